"""A log lived once more under another policy: who would have waited for a port, and which ports would have been reused sooner.

Rule: owners come, leave and are blocked when the log says, proxies let go when the log says; which port each gets, and when time
frees it, is decided anew by the machine itself. Ports that were asked for by number are picked like any other, for the log does not tell
them apart. Pure: events come in, an `Outcome` comes out, and no log is written.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from portfsm import commands
from portfsm._decide import decide
from portfsm._dump import spec_of
from portfsm._index import index_of
from portfsm._ledger import Ledger, apply_all
from portfsm._pool import ALLOCATED, BLOCKED, QUARANTINED
from portfsm._pressure import next_relief
from portfsm.errors import CommandRejected, PoolExhausted, QuotaExceeded
from portfsm.specs import normalise_ports
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm.commands import Command
    from portfsm.events import Event
    from portfsm.specs import Order, PoolSpec, Ports
    from portfsm.values import Lease

__all__ = ["Change", "Outcome", "Reuse", "Side", "Wait", "what_if"]

Place = tuple[str, str, int]
"""Node, pool, port."""


@attrs.frozen
class Change:
    """The policy to try: what is None stays as recorded. `pool`: the one it concerns; None for all."""

    pool: str | None = None
    hold_s: float | None = None
    order: Order | None = None
    ports: Ports | None = None

    def of(self, spec: PoolSpec) -> PoolSpec:
        """`spec` under this change; a floor longer than the new hold shrinks with it, a band with its pool. Raises `InvalidValue`."""
        if self.pool not in (None, spec.name):
            return spec
        given = {name: value for name in ("hold_s", "order", "ports") if (value := getattr(self, name)) is not None}
        floor_s = min(spec.floor_s, given.get("hold_s", spec.floor_s))
        size = sum(map(len, normalise_ports(self.ports))) if self.ports is not None else spec.size
        return attrs.evolve(spec, **given, floor_s=floor_s, static=min(spec.static, size - 1))


@attrs.frozen
class Wait:
    """An allocation of the log that would have found no port."""

    event: Event
    waited_ns: int | None
    """Until it had got one; None when it had ended before, or the log had."""


@attrs.frozen
class Reuse:
    """An allocation that would have got a port sooner after a stranger had left it than the one in the log did."""

    event: Event
    port: int
    gap_ns: int
    """Time since a stranger left the port."""
    recorded_gap_ns: int | None
    """The same for the port in the log; None when no stranger had had that one."""


@attrs.define
class Side:
    """What one of the two lives looked like."""

    ports: set[Place] = attrs.field(factory=set)
    gaps_ns: list[int] = attrs.field(factory=list)
    """For each time a port went to a stranger, how long after the last one had left it."""
    ends: dict[Place, tuple[int, str, str]] = attrs.field(factory=dict)

    def begin(self, place: Place, event: Event, now_ns: int) -> int | None:
        """A lease of the event's owner begins: the gap, if a stranger had the port before."""
        self.ports.add(place)
        end_ns, owner, service = self.ends.get(place, (None, "", ""))
        if end_ns is None or owner == event.owner or (service and service == event.service):
            return None
        self.gaps_ns.append(now_ns - end_ns)
        return now_ns - end_ns

    def end(self, place: Place, event: Event) -> None:
        """The lease that the event ends is over."""
        self.ends[place] = (event.ts, event.owner, event.service)


@attrs.frozen
class Outcome:
    """Both lives beside each other."""

    allocations: int
    waits: list[Wait]
    closer: list[Reuse]
    recorded: Side
    planned: Side
    skipped: int
    """Operator's calls that had no counterpart: their port was somebody's in the other life."""


def what_if(events: Iterable[Event], change: Change) -> Outcome:
    """Live the events of a log under `change`. Raises `InvalidValue` for one that no pool can have, `UnknownPool` for one of no pool."""
    life = _Life(change)
    for event in events:
        life.take(event)
    return life.outcome()


class _Life:
    """The other life on its way through a log. Ports, leases and ends are its own; owners and times are the log's."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.ledger = Ledger()
        self.leases: dict[int, Lease] = {}
        """By the token that the log gave to the lease; those that are over stay for as long as their port is told of."""
        self.last: dict[Place, int] = {}
        """The log's port -> token of its last lease there."""
        self.queues: dict[tuple[str, str], deque[Event]] = {}
        self.now = self.allocations = self.skipped = self.restarted_at = 0
        self.noticed: list[Event] = []
        """Ends that the log has recorded as noticed, and this life has not yet."""
        self.waits: list[Wait] = []
        self.closer: list[Reuse] = []
        self.gaps: dict[int, int | None] = {}
        self.recorded, self.planned = Side(), Side()

    def outcome(self) -> Outcome:
        """What came of it; who still waits was never served. Raises `UnknownPool` for a change of a pool that the log does not know."""
        self._notice_all()
        if self.change.pool is not None:
            self.ledger.spec(self.change.pool)
        for queue in self.queues.values():
            self.waits += [Wait(event, None) for event in queue]
        self.waits.sort(key=lambda wait: wait.event.seq)
        return Outcome(self.allocations, self.waits, self.closer, self.recorded, self.planned, self.skipped)

    # ------------------------------------------------------------------ one event of the log

    def take(self, event: Event) -> None:
        """Let time pass up to the event, and do what it says."""
        if event.cause == "elapsed":
            self.noticed.append(event)
            return
        # What an allocation notices it records first, though it had chosen its port before.
        choosing = event.kind is EventKind.ALLOCATED and bool(self.noticed) and self.noticed[-1].ts == event.ts
        if not choosing:
            self._notice_all()
        self._pass_time(event.ts)
        self._follow(event)
        if choosing:
            self._notice_all()

    def _follow(self, event: Event) -> None:
        match event.kind:
            case EventKind.ALLOCATED | EventKind.ADOPTED:
                self._begin(event)
            case EventKind.RELEASED:
                self._end(event, block=None)
            case EventKind.BLOCKED if event.token:
                self._end(event, block=event.reason or event.cause or "blocked")
            case EventKind.FREED if event.cause in ("evidence", "operator"):
                self._let_go(event)
            case EventKind.HELD if event.cause == "reboot":
                self._restart_holds(event.ts)
            case EventKind.BLOCKED | EventKind.HELD | EventKind.UNBLOCKED:
                self._operate(event)
            case EventKind.POOL_DEFINED | EventKind.PROXY_JOINED | EventKind.PROXY_LEFT:
                self._set_up(event)
            case _:
                pass

    def _do(self, command: Command, now_ns: int) -> None:
        events = decide(self.ledger, command, now_ns=now_ns)
        if events:
            apply_all(self.ledger, events)

    def _set_up(self, event: Event) -> None:
        data = event.data or {}
        if event.kind is EventKind.POOL_DEFINED:
            spec = self.change.of(spec_of(event.pool, data))
            self._do(commands.DefinePool(spec, seed=data.get("seed", "") or (event.pool if spec.order == "random" else "")), event.ts)
            self._serve(event.ts)
        elif event.kind is EventKind.PROXY_JOINED:
            self._do(commands.Join(data["proxy"]), event.ts)
        else:
            self._do(commands.Leave(data["proxy"], reason=event.reason or "left"), event.ts)

    # ------------------------------------------------------------------ leases

    def _begin(self, event: Event) -> None:
        self.allocations += 1
        place = (event.node, event.pool, event.port)
        self.leases.pop(self.last.get(place, 0), None)  # nothing more will be told of it
        self.last[place] = event.seq
        self.gaps[event.seq] = self.recorded.begin(place, event, event.ts)
        queue = self.queues.setdefault((event.node, event.pool), deque())
        if event.kind is EventKind.ADOPTED:
            with suppress(CommandRejected):  # its number is somebody's here: it would have had to find another
                self._do(commands.Adopt(event.pool, event.port, owner=event.owner, node=event.node, service=event.service), event.ts)
                self._began(event, event.ts)
                return
        queue.append(event)
        self._serve_queue(queue, event.ts, fresh=event)

    def _attempt(self, event: Event, now_ns: int) -> None:
        self._do(commands.Allocate(event.pool, owner=event.owner, node=event.node, service=event.service), now_ns)
        self._began(event, now_ns)

    def _began(self, event: Event, now_ns: int) -> None:
        pool = self.ledger.pool(event.pool, event.node)
        lease = self.leases[event.seq] = pool.lease(index_of(pool).holders[event.owner])
        gap_ns, recorded_ns = self.planned.begin((event.node, event.pool, lease.port), event, now_ns), self.gaps.pop(event.seq)
        if gap_ns is not None and (recorded_ns is None or gap_ns < recorded_ns):
            self.closer.append(Reuse(event, lease.port, gap_ns, recorded_ns))

    def _end(self, event: Event, *, block: str | None) -> None:
        self.recorded.end((event.node, event.pool, event.port), event)
        lease = self.leases.get(event.token)
        if lease is None:
            self._give_up(event)
            return
        pool = self.ledger.pool(lease.pool, lease.node)
        with suppress(CommandRejected):  # an operator had ended it here, and its port has had others since
            if block is None:
                self._do(commands.Release(lease, cause=event.cause), event.ts)
            elif pool.token[lease.port - pool.base] == lease.token:  # for as long as was recorded, doubled or not
                for_s = (event.until - event.ts) / 1e9 if event.until else None
                self._do(commands.Block(lease.pool, lease.port, node=lease.node, reason=block, for_s=for_s), event.ts)
        self.planned.end((event.node, event.pool, lease.port), event)
        self._serve(event.ts)

    def _give_up(self, event: Event) -> None:
        """It ended before it had got a port."""
        queue = self.queues.get((event.node, event.pool), deque())
        for waiting in [each for each in queue if each.seq == event.token]:
            queue.remove(waiting)
            self.waits.append(Wait(waiting, None))

    # ------------------------------------------------------------------ what else happened to ports

    def _here(self, event: Event) -> tuple[int, bool]:
        """The port that stands for the log's one, and whether it still is as its last lease left it."""
        lease = self.leases.get(self.last.get((event.node, event.pool, event.port), 0))
        if lease is None:
            return event.port, True
        pool = self.ledger.pool(event.pool, event.node)
        return lease.port, pool.token[lease.port - pool.base] == lease.token

    def _let_go(self, event: Event) -> None:
        port, same = self._here(event)
        pool = self.ledger.pool(event.pool, event.node)
        if not same or pool.code(port) != QUARANTINED:
            return
        ending = commands.Clear if event.cause == "evidence" else commands.Free
        self._do(ending(event.pool, port, node=event.node, reason=event.reason or event.cause), event.ts)
        self._serve(event.ts)

    def _notice_all(self) -> None:
        noticed, self.noticed = self.noticed, []
        for event in noticed:
            self._pass_time(event.ts)
            self._notice(event)

    def _notice(self, event: Event) -> None:
        """The log noticed an end, and so does this life where it has come: whose port is whose hangs on it, and when a hold begins."""
        port, same = self._here(event)
        pool = self.ledger.pool(event.pool, event.node)
        offset = pool.row(port)
        if not same or offset < 0 or not 0 < pool.until[offset] <= event.ts:
            return
        if pool.state[offset] == BLOCKED:
            self._do(commands.Unblock(event.pool, port, node=event.node), event.ts)
        elif pool.state[offset] == QUARANTINED and not pool.kept:
            self._do(commands.Free(event.pool, port, node=event.node, reason="elapsed"), event.ts)
        self._serve(event.ts)

    def _operate(self, event: Event) -> None:
        port, same = self._here(event)
        left_s = (event.until - event.ts) / 1e9 if event.until else None
        command: Command
        if event.kind is EventKind.BLOCKED:
            command = commands.Block(event.pool, port, node=event.node, reason=event.reason or event.cause or "blocked", for_s=left_s)
        elif event.kind is EventKind.HELD:
            command = commands.Hold(event.pool, port, node=event.node, hold_s=left_s or 0.0, cause=event.cause)
        else:
            command = commands.Unblock(event.pool, port, node=event.node)
        try:
            if not same or self.ledger.pool(event.pool, event.node).code(port) == ALLOCATED:
                self.skipped += 1
                return
            self._do(command, event.ts)
        except CommandRejected:
            self.skipped += 1
        self._serve(event.ts)

    def _restart_holds(self, now_ns: int) -> None:
        """The machine had restarted, and every hold with it."""
        if self.restarted_at == now_ns:
            return
        self.restarted_at = now_ns
        for pool in self.ledger.select():
            for offset in pool.offsets(states=bytes((QUARANTINED,))):
                hold_s = max(pool.spec.hold_ms, pool.held_ms(offset)) / 1000
                self._do(commands.Hold(pool.name, pool.base + offset, node=pool.node, hold_s=hold_s, cause="reboot"), now_ns)

    # ------------------------------------------------------------------ time

    def _pass_time(self, until_ns: int) -> None:
        """Serve those who wait at each moment up to `until_ns` at which a hold or a block ends."""
        while due := [end for place, queue in self.queues.items() if queue for end in self._next_ends(place) if end <= until_ns]:
            self.now = max(self.now, min(due))
            self._do(commands.Sweep(), self.now)
            self._serve(self.now)
        self.now = until_ns

    def _next_ends(self, place: tuple[str, str]) -> list[int]:
        pool = self.ledger.pool(place[1], place[0])
        return [end for end in (index_of(pool).next_due(pool), next_relief(pool, self.now)) if end is not None]

    def _serve(self, now_ns: int) -> None:
        now_ns = max(now_ns, self.ledger.ts)
        for queue in self.queues.values():
            self._serve_queue(queue, now_ns)

    def _serve_queue(self, queue: deque[Event], now_ns: int, *, fresh: Event | None = None) -> None:
        """First come, first served; one that waits for its service's quota keeps nobody back."""
        for event in list(queue):
            try:
                self._attempt(event, now_ns)
            except PoolExhausted:
                return
            except QuotaExceeded:
                continue
            queue.remove(event)
            if event is not fresh:
                self.waits.append(Wait(event, now_ns - event.ts))
