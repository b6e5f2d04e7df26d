"""What a manager shows without waiting: the durable state, and nothing that is on its way to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._evidence import Place
from portfsm._explain import explain
from portfsm._forecast import Forecast, forecast
from portfsm._watch import Watch
from portfsm.specs import check_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from portfsm._engine import Engine
    from portfsm._warden import Warden
    from portfsm.events import Event
    from portfsm.specs import PoolSpec
    from portfsm.states import PortState
    from portfsm.values import Head, Lease, PoolStatistics, PortView

__all__ = ["Views"]


class Views:
    """The synchronous half of `PortManager`."""

    def __init__(self, engine: Engine, warden: Warden) -> None:
        self._engine = engine
        self._warden = warden

    def port(self, pool: str, port: int, *, node: str = "") -> PortView:
        """One port as recorded. Raises `UnknownPool`, `PortOutOfRange`."""
        return self._engine.published.port(pool, port, node=node)

    def find(self, owner: str) -> tuple[Lease, ...]:
        """The leases that `owner` holds, by node and pool; those with a ttl with their present ends."""
        return tuple(map(self._engine.terms.shown, self._engine.published.find(owner)))

    def ports(self, pool: str | None = None, *, node: str | None = None, state: PortState | None = None) -> tuple[PortView, ...]:
        """Every port that is not FREE, by node, pool and number; with `state`, those in it that were ever used."""
        return tuple(self._engine.published.ports(pool, node=node, state=state))

    def statistics(self, pool: str | None = None, *, node: str | None = None) -> PoolStatistics:
        """Counts per state, summed over the pools and nodes that match and were ever used."""
        return self._engine.published.statistics(pool, node=node)

    def forecast(self, pool: str, *, node: str = "") -> Forecast:
        """What a pool on a node will have to give: how many ports are free when, what rate it sustains, whether a rollout fits.

        Held-back ports count from the end of their hold on, and never where they wait for proxies. Raises `UnknownPool`, `InvalidValue`.
        """
        record = self._engine.published.pool(check_text("pool", pool), check_text("node", node))
        return forecast(record, max(self._engine.now(), self._engine.published.ts))

    def digest(self) -> str:
        """SHA-256 of the whole state, in hex."""
        return self._engine.published.digest()

    def explain(self, pool: str, port: int, *, node: str = "") -> str:
        """Why a port is not free, since when, by whom, until when, and which call would free it."""
        text = explain(self._engine.published, pool, port, node=node, now_ns=self._engine.now())
        held = self._warden.explain(Place(node, pool, port))
        rival = self._engine.claims.on((node, pool, port))
        return text + (f" Evidence: {held}." if held else "") + (f" Also claimed by {rival!r}." if rival else "")

    @property
    def pools(self) -> dict[str, PoolSpec]:
        """The pools in force, by name."""
        return dict(self._engine.published.specs)

    @property
    def seq(self) -> int:
        """The last event that the views show: the generation to stamp into a proxy's configuration made from them."""
        return self._engine.published.seq

    @property
    def durable_seq(self) -> int:
        """The last event that would survive a crash now."""
        return self._engine.writer.durable_seq

    @property
    def now_ns(self) -> int:
        """The log's present time, UTC ns: what an `Observation` is stamped with before anybody looks."""
        return self._engine.now()

    @property
    def epoch(self) -> int:
        """The number of this opening."""
        return self._engine.published.epoch

    @property
    def head(self) -> Head:
        """Names the whole durable history; kept elsewhere, it shows later that nothing was cut or changed.

        Waits for a sync that is under way, as the journal is asked itself.
        """
        with self._engine.writer.lock:
            return self._engine.journal.head()

    def watch(self, *, after: int | None = None) -> AsyncIterator[Event]:
        """Durable events as they come: those after seq `after`, or those after now. Ends when the manager is left.

        A watcher that falls behind reads the log, so none is ever missed and none is kept for it in memory. A wait
        for the next event may be cancelled and taken up again. Raises `InvalidValue` for a seq that is not there yet.
        """
        return Watch(self._engine, after)
