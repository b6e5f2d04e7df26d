"""The state of all pools on all nodes, and the one place where an event changes it.

Rule: state = fold(events). `Ledger.fold` checks each event against the table and the port's row, then writes the
row; an event that does not fit raises `IllegalTransition` and changes nothing. Live operation (`apply`) and
replay go through the same loop. No clock, no file, no randomness is within reach of this file.
"""

from __future__ import annotations

from hashlib import sha256
from sys import intern
from typing import TYPE_CHECKING, Any

from portfsm._dump import dump, spec_of
from portfsm._forecast import next_free_at
from portfsm._pool import ALLOCATED, BLOCKED, FREE, NO_COLUMNS, OUTSIDE, QUARANTINED, STATES, Lost, Pool
from portfsm._rows import BEGIN, LAST_NS, early_fault, end_fault, forget, index_fault, lease_fault, rare_fault, write_note, write_rare
from portfsm._table import TRANSITIONS
from portfsm.errors import IllegalTransition, InvalidValue, PortOutOfRange, UnknownPool
from portfsm.specs import check_port, check_text
from portfsm.states import PORT_KINDS, EventKind, PortState
from portfsm.values import Lease, PoolStatistics, PortView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from portfsm.events import Event
    from portfsm.specs import PoolSpec

__all__ = ["Ledger", "apply", "apply_all"]

_CODES = {PortState.FREE: FREE, PortState.ALLOCATED: ALLOCATED, PortState.QUARANTINED: QUARANTINED, PortState.BLOCKED: BLOCKED}
_ILLEGAL = -1


def _row(kind: EventKind) -> tuple[int, ...]:
    """The table's column of one kind as a code a state code; OUTSIDE may only be adopted."""
    cells = [_CODES.get(TRANSITIONS.get((state, kind)), _ILLEGAL) for state in PortState]  # type: ignore[arg-type]
    return (*cells, ALLOCATED if kind is EventKind.ADOPTED else _ILLEGAL)


_AFTER = {kind: _row(kind) for kind in PORT_KINDS}
_ALLOCATE, _RELEASE, _FREED = EventKind.ALLOCATED, EventKind.RELEASED, EventKind.FREED


class Ledger:
    """All ports of one log. Made empty; changed by `apply` (or `fold`) alone."""

    def __init__(self) -> None:
        self.seq = 0
        """Sequence number of the last event."""
        self.ts = 0
        """Its time, UTC ns on the log's timeline."""
        self.epoch = 0
        self.opened: dict[str, Any] = {}
        """What the last `opened` carried, with its `ts`: how log time hangs on the machine's clock."""
        self.specs: dict[str, PoolSpec] = {}
        self.seeds: dict[str, str] = {}
        self.proxies: dict[str, int] = {}
        """Proxies whose evidence is required, each with the seq of its joining."""
        self.lost: dict[str, Lost] = {}
        """Pools whose history was lost and whose ports are held for it."""
        self.pools: dict[tuple[str, str], Pool] = {}
        """(node, pool name) -> its rows, for those ever touched."""

    @property
    def required(self) -> tuple[str, ...]:
        """The proxies whose evidence ends a hold, by name."""
        return tuple(sorted(self.proxies))

    def copy(self) -> Ledger:
        """An equal ledger that shares no column, only the strings."""
        other = Ledger()
        other.seq, other.ts, other.epoch, other.opened = self.seq, self.ts, self.epoch, dict(self.opened)
        other.specs, other.seeds, other.proxies, other.lost = dict(self.specs), dict(self.seeds), dict(self.proxies), dict(self.lost)
        other.pools = {place: pool.copy() for place, pool in self.pools.items()}
        return other

    def fold(self, events: Iterable[Event], *, at: Pool | None = None) -> None:  # noqa: C901, PLR0912, PLR0915  (one loop: replay's speed)
        """Take in `events` in order; at the first illegal one raise, those before it stay. `at`: their pool; the caller keeps its index."""
        pool, seq, ts, after_of = at, self.seq, self.ts, _AFTER
        state, since, ends, tokens, owners, services, notes = NO_COLUMNS if at is None else at.columns
        try:
            for event in events:
                number, now = event.seq, event.ts
                if number != seq + 1 or not ts <= now < LAST_NS:
                    raise self._illegal(event, None, f"it follows seq {seq} at {ts}: events are gapless and time does not go back")
                kind, port = event.kind, event.port
                if pool is None or event.pool != pool.name or event.node != pool.node or not port or kind not in after_of:
                    pool = self._turn_to(event)
                    if pool is None:
                        seq, ts = number, now
                        continue
                    state, since, ends, tokens, owners, services, notes = pool.columns
                offset = port - pool.base
                if not 0 <= offset < len(state):
                    offset = self._first(pool, event)
                code = state[offset]
                after = after_of[kind][code]
                if after < 0:
                    raise self._illegal(event, code, "the table has no such cell")
                if kind is _ALLOCATE:
                    owner, service, data, until = event.owner, event.service, event.data, event.until
                    astray = code and pool.is_stranger(offset, owner, service, now)
                    odd = (data and index_fault(event)) or (until and not now < until < LAST_NS)
                    if astray or odd or event.token != number or not owner:
                        raise self._illegal(event, code, lease_fault(pool, offset, event))
                    if notes or code or data or until:
                        write_note(pool, offset, event)
                    tokens[offset] = number
                    owners[offset] = owner
                    if service or services[offset]:
                        services[offset] = intern(service)
                elif kind is _RELEASE:
                    until = event.until
                    if event.token != tokens[offset] or event.owner != owners[offset] or not ends[offset] <= until < LAST_NS:
                        raise self._illegal(event, code, end_fault(pool, offset))
                    ends[offset] = until
                    if notes or event.cause != "released":
                        write_note(pool, offset, event, cause=event.cause)
                elif kind is _FREED:
                    if now < ends[offset] and (early := early_fault(pool, offset, event)):
                        raise self._illegal(event, code, early)
                    ends[offset] = 0
                    owners[offset] = services[offset] = ""
                    if notes:
                        forget(pool, offset)
                    if pool.outside:
                        after = pool.retire(offset)
                else:
                    if (fault := rare_fault(pool, offset, event)) is not None:
                        raise self._illegal(event, code, fault)
                    write_rare(pool, offset, code, event)
                seq, ts, state[offset] = number, now, after
                if after != code:
                    since[offset] = now
        finally:
            self.seq, self.ts = seq, ts

    def _turn_to(self, event: Event) -> Pool | None:
        """The pool that this event and maybe the next ones concern; None when it was one that concerns no port."""
        pool = self.pools.get((event.node, event.pool)) if event.port and event.kind in _AFTER else None
        if pool is None:
            return self._begin(event)
        pool.index = None  # whoever keeps it in step names the pool beforehand
        return pool

    def _first(self, pool: Pool, event: Event) -> int:
        """Make the row that a port's first event needs, unless the event is illegal anyway."""
        code = pool.code(event.port)
        if _AFTER[event.kind][code] < 0:
            raise self._illegal(event, code, "the table has no such cell")
        if event.kind in BEGIN and (event.token != event.seq or not event.owner):
            raise self._illegal(event, code, f"it begins a lease, so it needs an owner and the token {event.seq}")
        if event.kind is _ALLOCATE and (fault := index_fault(event)):
            raise self._illegal(event, code, fault)
        if not 1 <= event.port <= 65_535:  # noqa: PLR2004
            raise self._illegal(event, code, "a port is a number from 1 to 65535")
        return pool.reach(event.port)

    def _begin(self, event: Event) -> Pool | None:
        """Take in an event that concerns no port, or make the pool that a port's first event needs."""
        if event.ts <= 0:
            raise self._illegal(event, None, "its time is not after 1970, and 0 means never")
        if event.kind not in _AFTER:
            self._take_in(event)
            self.seq, self.ts = event.seq, event.ts
            return None
        spec = self.specs.get(event.pool)
        if spec is None or not event.port:
            raise self._illegal(event, None, f"pool {event.pool!r} is not defined" if spec is None else "it names no port")
        pool = Pool(event.node, spec, self.seeds[event.pool], proxies=self.required, lost=self.lost.get(event.pool))
        offset = self._first(pool, event)
        if (fault := rare_fault(pool, offset, event)) is not None:
            raise self._illegal(event, pool.state[offset], fault)
        self.pools[event.node, event.pool] = pool
        return pool

    def _take_in(self, event: Event) -> None:
        data = event.data or {}
        try:
            match event.kind:
                case EventKind.OPENED:
                    self._open(event, data)
                case EventKind.POOL_DEFINED:
                    self._define(event.pool, data)
                case EventKind.PROXY_JOINED:
                    self._ask({**self.proxies, check_text("proxy", data["proxy"], required=True): event.seq})
                case EventKind.PROXY_LEFT:
                    self._ask({proxy: seq for proxy, seq in self.proxies.items() if proxy != data["proxy"]})
                case _:
                    pass
        except (KeyError, TypeError, InvalidValue) as error:
            raise self._illegal(event, None, f"its data do not fit: {error!r}") from error

    def _ask(self, proxies: dict[str, int]) -> None:
        self.proxies = proxies
        for pool in self.pools.values():
            pool.asked(self.required)

    def _open(self, event: Event, data: dict[str, Any]) -> None:
        opened = {"boot": data["boot"], "boot_ns": data["boot_ns"], "ts": event.ts}
        if data["epoch"] <= self.epoch:
            raise self._illegal(event, None, f"epoch {data['epoch']} follows epoch {self.epoch}: two writers")
        self.epoch, self.opened = data["epoch"], opened
        history = data.get("history")
        if history == "lost":
            opened |= {"history": history, "seq": event.seq}
            self.lost = {name: Lost(event.ts, event.ts + spec.hold_ms * 1_000_000, event.seq) for name, spec in self.specs.items()}
        elif history == "held anew":
            self.lost = {
                name: lost._replace(until=max(lost.until, event.ts + self.specs[name].hold_ms * 1_000_000))
                for name, lost in self.lost.items()
            }
        self._mark_lost()

    def _mark_lost(self) -> None:
        for (_, name), pool in self.pools.items():
            pool.lost = self.lost.get(name)

    def _define(self, name: str, data: dict[str, Any]) -> None:
        spec = spec_of(name, data)
        if data.get("history") == "kept":
            self.lost.pop(name, None)
        elif self.opened.get("history") == "lost" and (name in self.lost or name not in self.specs):
            lost = self.lost.get(name, Lost(self.opened["ts"], 0, self.opened["seq"]))
            self.lost[name] = lost._replace(until=max(lost.until, lost.since + spec.hold_ms * 1_000_000))
        self.specs[name] = spec
        self.seeds[name] = data.get("seed", "")
        self._mark_lost()
        for (_, pool_name), pool in self.pools.items():
            if pool_name == name:
                pool.define(spec, self.seeds[name])

    def _illegal(self, event: Event, code: int | None, why: str) -> IllegalTransition:
        place = f"port {event.port} of pool {event.pool!r} on node {event.node!r}"
        state = None if code is None else STATES[code]
        standing = f" in state {state.value}" if state else ""
        return IllegalTransition(
            f"event {event.seq} ({event.kind}) cannot happen to {place}{standing}: {why}. Nothing was changed.",
            node=event.node, pool=event.pool, port=event.port, state=state, kind=event.kind, seq=event.seq,
        )  # fmt: skip

    # ------------------------------------------------------------------ views

    def spec(self, pool: str) -> PoolSpec:
        """The pool's spec in force. Raises `UnknownPool`."""
        spec = self.specs.get(pool)
        if spec is None:
            known = tuple(sorted(self.specs))
            raise UnknownPool(
                f"no pool is named {pool!r}; defined: {', '.join(known) or 'none'}. Add it to pools=[...]", pool=pool, known=known
            )
        return spec

    def pool(self, pool: str, node: str) -> Pool:
        """The rows of `pool` on `node`; a new, empty record (not kept) where nothing happened yet."""
        found = self.pools.get((node, pool))
        if found is not None:
            return found
        return Pool(node, self.spec(pool), self.seeds[pool], proxies=self.required, lost=self.lost.get(pool))

    def locate(self, pool: str, port: int, node: str) -> Pool:
        """The pool that `port` belongs to. Raises `UnknownPool`, or `PortOutOfRange` if it is neither inside nor held."""
        check_text("pool", pool)
        check_text("node", node)
        if type(port) is not int:  # a number that is none of a pool's ports is told the ranges below
            check_port(port)
        found = self.pool(pool, node)
        if found.code(port) == OUTSIDE:
            ranges = found.spec.ranges
            raise PortOutOfRange(
                f"port {port} is outside pool {pool!r} ({ranges}): name one inside, or widen the pool's ports",
                node=node, pool=pool, port=port, ranges=ranges,
            )  # fmt: skip
        return found

    def port(self, pool: str, port: int, *, node: str = "") -> PortView:
        """One port as it stands. Raises `UnknownPool`, `PortOutOfRange`."""
        return self.locate(pool, port, node).view(port)

    def select(self, pool: str | None = None, node: str | None = None) -> list[Pool]:
        """Touched pools in the order of (node, name), all or those that match."""
        if pool is not None:
            self.spec(check_text("pool", pool))
        if node is not None:
            check_text("node", node)
        return [self.pools[key] for key in sorted(self.pools) if node in (None, key[0]) and pool in (None, key[1])]

    def ports(self, pool: str | None = None, *, node: str | None = None, state: PortState | None = None) -> Iterator[PortView]:
        """Every port that is not FREE, by node, pool and number; or every used one in `state`."""
        if not (state is None or isinstance(state, PortState)):
            raise InvalidValue(f"state must be a PortState, such as PortState.BLOCKED, not {state!r}", name="state", value=state)
        wanted = bytes((ALLOCATED, QUARANTINED, BLOCKED)) if state is None else bytes((_CODES[state],))
        for record in self.select(pool, node):
            numbers: Iterable[int] = (record.base + offset for offset in record.offsets(states=wanted) if record.since[offset])
            if record.lost is not None:
                numbers = [number for number in numbers if not record.is_lost(number)]
                numbers += filter(record.is_lost, record.numbers()) if QUARANTINED in wanted else ()
                numbers.sort()
            yield from map(record.view, numbers)

    def find(self, owner: str) -> tuple[Lease, ...]:
        """The leases `owner` holds, by node and pool."""
        check_text("owner", owner)
        return tuple(
            record.lease(offset)
            for record in self.select()
            for offset in record.offsets(states=bytes((ALLOCATED,)))
            if record.owner[offset] == owner
        )  # fmt: skip

    def statistics(self, pool: str | None = None, *, node: str | None = None) -> PoolStatistics:
        """Counts over the touched pools that match; over one pool as if untouched where nothing happened yet."""
        records = self.select(pool, node)
        if pool is not None and not records:
            records = [self.pool(pool, node or "")]
        counts = [record.statistics() for record in records]
        sums = [
            sum(column)
            for column in zip(*((c.size, c.free, c.allocated, c.quarantined, c.blocked, c.retired) for c in counts), strict=True)
        ]
        size, free, allocated, quarantined, blocked, retired = sums or [0] * 6
        return PoolStatistics(
            size, free, allocated, quarantined, blocked, retired,
            kept=sum(found.quarantined for found, record in zip(counts, records, strict=True) if record.kept),
            next_free_at=min((end for record in records if (end := next_free_at(record)) is not None), default=None),
        )  # fmt: skip

    def digest(self) -> str:
        """SHA-256 over the whole state, in hex: equal states, equal digests, on every platform."""
        hasher = sha256()
        for line in dump(self):
            hasher.update(line)
        return hasher.hexdigest()


def apply(ledger: Ledger, event: Event) -> None:
    """Change `ledger` by `event`, in place. An illegal one raises `IllegalTransition` and changes nothing."""
    apply_all(ledger, (event,))


def apply_all(ledger: Ledger, events: Sequence[Event]) -> None:
    """Change `ledger` by the events of one decision, keeping the indexes in step."""
    first, last = events[0], events[-1]
    # Two events on one port, its release and its freeing say, are one step to the index; any others are taken singly.
    if first is not last and (len(events) > 2 or first.port != last.port or first.pool != last.pool or first.node != last.node):  # noqa: PLR2004
        for event in events:
            apply_all(ledger, (event,))
        return
    pool = ledger.pools.get((first.node, first.pool))
    if pool is None or pool.index is None or not first.port:
        ledger.fold(events)
        return
    index, state, offset = pool.index, pool.state, first.port - pool.base
    code = state[offset] if 0 <= offset < len(state) else FREE
    owner, service = (pool.owner[offset], pool.service[offset]) if code else ("", "")
    try:
        ledger.fold(events, at=pool)
    except IllegalTransition:
        pool.index = None  # the first of two may have happened
        raise
    if pool.index is index:
        index.touched(pool, offset, code, owner, service)
