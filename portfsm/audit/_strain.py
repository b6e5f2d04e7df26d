"""When a pool had no port to give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from portfsm.audit._steps import Replay
from portfsm.states import PORT_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.events import Event

__all__ = ["Exhaustion", "exhaustions"]

_ON_PORTS: Final = frozenset(PORT_KINDS)


@attrs.frozen
class Exhaustion:
    """From one moment to another no port of a pool was FREE on a node. Times in UTC ns.

    Ports of which the hold was over may have been among them, not noticed yet: whoever asked then got one.
    """

    node: str
    pool: str
    from_ns: int
    to_ns: int | None
    """None while it lasts."""
    from_seq: int
    to_seq: int | None
    size: int
    """Ports of the pool when it began."""
    allocated: int
    """How many of them were in use when it began; the others were held back or blocked."""


def exhaustions(events: Iterable[Event], *, since: Ledger | None = None) -> Iterator[Exhaustion]:
    """The episodes in which a pool had no FREE port on a node, in the order of their ends, those that last after them.

    A pool on a node counts from its first event there on. `since` is a ledger that the events follow on; it is taken along.
    Raises `JournalCorrupt`.
    """
    strain = _Strain(since)
    moment: list[Event] = []
    for event in events:
        if moment and event.ts != moment[0].ts:
            yield from strain.look(moment)
            moment = []
        moment.append(event)
    yield from strain.look(moment)
    yield from strain.lasting.values()


class _Strain:
    """The pools that have no port to give, on the way through a log."""

    def __init__(self, since: Ledger | None) -> None:
        self._replay = Replay(since)
        self.lasting: dict[tuple[str, str], Exhaustion] = {}
        for _ in self._judge(self._replay.ledger.pools):
            pass  # nothing ends before the first event

    def look(self, events: list[Event]) -> Iterator[Exhaustion]:
        """Take in all that happened at one moment; the episodes that are over with it."""
        self._replay.take(events)
        pools = self._replay.ledger.pools
        everywhere = any(event.kind not in _ON_PORTS for event in events)  # ranges, or a history that was lost
        yield from self._judge(sorted(pools) if everywhere else sorted({(event.node, event.pool) for event in events}))

    def _judge(self, places: Iterable[tuple[str, str]]) -> Iterator[Exhaustion]:
        ledger = self._replay.ledger
        for place in places:
            pool, was = ledger.pools[place], self.lasting.get(place)
            if was is None and not _has_free(pool):
                found = pool.statistics()
                self.lasting[place] = Exhaustion(*place, ledger.ts, None, ledger.seq, None, found.size, found.allocated)
            elif was is not None and _has_free(pool):
                yield attrs.evolve(self.lasting.pop(place), to_ns=ledger.ts, to_seq=ledger.seq)


def _has_free(pool: Pool) -> bool:
    return pool.free_after(0) >= 0 if pool.lost is None else pool.statistics().free > 0
