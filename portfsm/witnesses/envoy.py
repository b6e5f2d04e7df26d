"""Evidence from Envoy, by its admin interface.

Envoy's list of hosts is one for all listeners, also those that drain, so what the list lacks gets no new request. What it does
not show are connection attempts under way and requests between two tries. So the rule, for a port withdrawn at `since`:
1. every subscription named in `subscriptions` has accepted a version, read as a generation, of at least `since`;
2. `/clusters` lacks the address in every cluster;
3. it still does once the longest connection attempt and all retries can have ended; meanwhile HELD;
4. all that of one process: the epoch and the start stay the same, and no parent of a hot restart can be alive.

What the configuration must carry: `ignore_health_on_host_removal: true` on clusters with active health checks. Without it, a host
that discovery dropped stays routable for as long as its health check passes, and the port's next owner may pass it. It
is listed all that time, so the port stays HELD. Clusters of type ORIGINAL_DST and dynamic forward proxies route to addresses that
are in no list: they must not reach ports of a pool.

Without `subscriptions` nothing tells a late push of an old configuration from the present one, and `generation` is None.
"""

from __future__ import annotations

import ipaddress
import math
import re
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
import attrs
import msgspec

from portfsm.errors import InvalidValue
from portfsm.evidence import Evidence, Verdict
from portfsm.specs import check_seconds
from portfsm.witnesses._asking import Finding, Named, NoAnswerError, Place
from portfsm.witnesses._http import Requester

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from portfsm.evidence import Witness
    from portfsm.protocols import Clock

__all__ = ["EnvoyWitness"]

_LISTING_BYTES = 32 << 20
_INFO_BYTES = 4 << 20
_BACK_OFF_S = 0.25
"""Envoy's longest pause between two tries, unless a route says otherwise."""
_MARGIN_S = 0.1
"""The workers hear of a new list a moment after the main thread shows it."""
_DEADLINE_S = 5.0
_T = TypeVar("_T")


class _Options(msgspec.Struct):
    restart_epoch: int
    parent_shutdown_time: str = "900s"
    base_id: str = ""


class _Info(msgspec.Struct):
    state: str
    uptime_current_epoch: str
    command_line_options: _Options


class _Socket(msgspec.Struct):
    address: str
    port_value: int = 0


class _Address(msgspec.Struct):
    socket_address: _Socket | None = None


class _Health(msgspec.Struct):
    pending_dynamic_removal: bool = False


class _Host(msgspec.Struct):
    address: _Address
    health_status: _Health = msgspec.field(default_factory=_Health)


class _Cluster(msgspec.Struct):
    name: str
    host_statuses: list[_Host] = []


class _Clusters(msgspec.Struct):
    cluster_statuses: list[_Cluster] = []


class _Stat(msgspec.Struct):
    name: str = ""
    value: str | int | float | None = None


class _Stats(msgspec.Struct):
    stats: list[_Stat]


@attrs.frozen
class _Listed:
    address: str
    cluster: str
    leaving: bool


@attrs.frozen
class _Gone:
    """Since when a place has been seen absent, as asked for `since`, in `incarnation`."""

    since: int
    at_ns: int
    incarnation: str


class EnvoyWitness(Named):
    """Asks one Envoy.

    `connect_timeout_s` is the longest of its clusters, `retries` the most that a route allows. `subscriptions` names the sources of
    its hosts as its statistics call them: `cluster.NAME` for endpoint discovery, `cluster_manager.cds` for clusters; the
    version each one sends must be the generation, in digits.
    """

    def __init__(
        self,
        admin_url: str,
        *,
        proxy: str,
        connect_timeout_s: float,
        retries: int,
        subscriptions: Collection[str] = (),
        fallback_s: float | None = None,
        deadline_s: float = _DEADLINE_S,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(proxy, fallback_s, deadline_s=deadline_s, clock=clock)
        check_seconds("connect_timeout_s", connect_timeout_s)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidValue(f"retries is a whole number from 0 on, not {retries!r}", name="retries", value=retries)
        if isinstance(subscriptions, str):
            raise InvalidValue(f"subscriptions is a list: write [{subscriptions!r}]", name="subscriptions", value=subscriptions)
        self._requester = Requester(admin_url, name="admin_url")
        self._wait_ns = round(((retries + 1) * connect_timeout_s + retries * _BACK_OFF_S + _MARGIN_S) * 1e9)
        self._subscriptions = tuple(subscriptions)
        self._gone: dict[tuple[str, int], _Gone] = {}
        self._started_ns = 0
        self._uptime_s = 0
        self._waiting = anyio.Event()

    async def check_many(self, places: Sequence[Place]) -> tuple[Evidence, ...]:
        """Look once. The second look is the next call: until then it says HELD and how long that will take."""
        return await self._answer(places, partial(self._look, places))

    async def changed(self) -> AsyncIterator[None]:
        """Yields when the wait for a port's last connection attempts is over."""
        told = 0
        while True:
            due = min((gone.at_ns + self._wait_ns for gone in self._gone.values() if gone.at_ns + self._wait_ns > told), default=None)
            if due is None:
                await self._waiting.wait()
            elif due > self._clock.boot_ns():
                await self._clock.sleep_until(due)
            else:
                told = due
                yield

    async def _look(self, places: Sequence[Place]) -> list[Finding]:
        before = await self._info()
        incarnation = self._incarnation(before)
        generation = await self._generation()
        listed = await self._listed()
        # Taken when the list has arrived: it was true a moment before.
        now_ns = self._clock.boot_ns()
        after = await self._info()
        if self._incarnation(after) != incarnation:
            raise NoAnswerError("Envoy was restarted while it was asked")
        if after.state not in ("LIVE", "DRAINING"):
            raise NoAnswerError(f"Envoy is {after.state} and has not heard of all hosts yet")
        parent = _parent(after)
        findings = [self._judge(place, listed, generation, incarnation, now_ns, parent) for place in places]
        waiting, self._waiting = self._waiting, anyio.Event()
        waiting.set()
        return findings

    def _judge(
        self, place: Place, listed: dict[int, list[_Listed]], generation: int | None, incarnation: str, now_ns: int, parent: str
    ) -> Finding:
        host, port, since = place
        held = partial(Finding, Verdict.HELD, generation=generation, incarnation=incarnation)
        holder = next((each for each in listed.get(port, ()) if _same(host, each.address)), None)
        behind = generation is not None and generation < since
        if holder or behind or parent:
            self._gone.pop((host, port), None)
            return held(reason=_why(holder, generation, since) if holder or behind else parent)
        gone = self._gone.get((host, port))
        if gone is None or gone.since < since or gone.incarnation != incarnation:
            gone = self._gone[host, port] = _Gone(since, now_ns, incarnation)
        left_ns = gone.at_ns + self._wait_ns - now_ns
        if left_ns > 0:
            return held(reason=f"no cluster lists it any more; connection attempts and retries may last {left_ns / 1e9:.3g} s longer")
        reason = f"no cluster has listed it for {(now_ns - gone.at_ns) / 1e9:.3g} s, longer than connection attempts and retries can last"
        return Finding(Verdict.CLEAR, reason, generation, incarnation)

    async def _info(self) -> _Info:
        return _decoded(await self._requester.fetch("/server_info", limit=_INFO_BYTES), _Info, "/server_info")

    async def _listed(self) -> dict[int, list[_Listed]]:
        """What all clusters may connect to, by port."""
        found: dict[int, list[_Listed]] = {}
        body = await self._requester.fetch("/clusters?format=json", limit=_LISTING_BYTES)
        for cluster in _decoded(body, _Clusters, "/clusters").cluster_statuses:
            for host in cluster.host_statuses:
                if (socket := host.address.socket_address) is not None:
                    listed = _Listed(socket.address, cluster.name, host.health_status.pending_dynamic_removal)
                    found.setdefault(socket.port_value, []).append(listed)
        return found

    async def _generation(self) -> int | None:
        """The oldest version that a subscription has accepted last."""
        if not self._subscriptions:
            return None
        body = await self._requester.fetch("/stats?format=json&type=TextReadouts&filter=version_text", limit=_LISTING_BYTES)
        versions = {stat.name: str(stat.value) for stat in _decoded(body, _Stats, "/stats").stats}
        found = [versions.get(f"{name}.version_text", "") for name in self._subscriptions]
        for name, version in zip(self._subscriptions, found, strict=True):
            if not re.fullmatch(r"[0-9]{1,18}", version):
                raise NoAnswerError(f"the version of {name} is {version[:40]!r}: it must be the generation, in digits")
        return min(map(int, found))

    def _incarnation(self, info: _Info) -> str:
        """Epoch and start. The start is reckoned from an uptime in whole seconds, so it is kept while that explains the reading."""
        uptime_s = _seconds(info.uptime_current_epoch)
        started_ns = self._clock.boot_ns() - round(uptime_s * 1e9)
        if uptime_s < self._uptime_s or abs(started_ns - self._started_ns) > 2e9:  # noqa: PLR2004
            self._started_ns = started_ns
        self._uptime_s = math.floor(uptime_s)
        options = info.command_line_options
        return f"{options.base_id}/{options.restart_epoch}@{self._started_ns // 1_000_000}"


def _why(holder: _Listed | None, generation: int | None, since: int) -> str:
    if holder is None:
        return f"Envoy runs a configuration of generation {generation}, made before {since}"
    if holder.leaving:
        return f"cluster {holder.cluster} keeps it while its health check passes: set ignore_health_on_host_removal"
    return f"cluster {holder.cluster} lists it"


def _parent(info: _Info) -> str:
    """Why the process before a hot restart may still live; empty when it cannot."""
    options = info.command_line_options
    left_s = _seconds(options.parent_shutdown_time) + 1 - _seconds(info.uptime_current_epoch)
    if options.restart_epoch == 0 or left_s < 0:
        return ""
    return f"the process before the hot restart to epoch {options.restart_epoch} may live for {left_s:.3g} s more"


def _same(host: str, address: str) -> bool:
    """Whether both may be one host. A name is not resolved: it may be any."""
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(address)
    except ValueError:
        return True


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)s", text)
    if match is None:
        raise NoAnswerError(f"{text[:40]!r} is not a length of time as Envoy writes it")
    return float(match[1])


def _decoded(body: bytes, kind: type[_T], path: str) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except ValueError as error:  # also the UnicodeDecodeError that msgspec lets through
        raise NoAnswerError(f"{path} is not as Envoy answers it: {error}") from error


if TYPE_CHECKING:
    _: type[Witness] = EnvoyWitness
