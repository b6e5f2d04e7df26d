"""Lives of ports as spans: in which state each was, from when to when, who held it, and what began and ended it.

One pass over the events, whatever is asked: a span is given out when it ends, those that last are given out last. What a
span says of a port is what the ledger says of it at any moment in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from portfsm._pool import BLOCKED, QUARANTINED, STATES
from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.audit._moments import Moment
    from portfsm.events import Event

__all__ = ["Lives", "Place", "Span", "spans"]

_AFTER: Final = {
    EventKind.ALLOCATED: PortState.ALLOCATED,
    EventKind.ADOPTED: PortState.ALLOCATED,
    EventKind.WITHDRAWN: PortState.ALLOCATED,
    EventKind.RELEASED: PortState.QUARANTINED,
    EventKind.HELD: PortState.QUARANTINED,
    EventKind.FREED: PortState.FREE,
    EventKind.BLOCKED: PortState.BLOCKED,
    EventKind.UNBLOCKED: PortState.QUARANTINED,
}
"""Where a port is after each kind of event, wherever it was before."""
_GOES_ON: Final = frozenset({EventKind.WITHDRAWN, EventKind.HELD})
"""Kinds after which a port may still be in the state it was in."""
_BEGINS: Final = frozenset({EventKind.ALLOCATED, EventKind.ADOPTED})


class Place(NamedTuple):
    """A port's full name."""

    node: str
    pool: str
    port: int


@attrs.frozen
class Span:
    """A port in one state from one moment to another, under one lease if it is ALLOCATED. Times in UTC ns."""

    node: str
    pool: str
    port: int
    state: PortState
    owner: str
    """Who holds the port, or who held it last while QUARANTINED or BLOCKED; empty when FREE."""
    service: str
    token: int
    """Of its last lease; 0 when it never had one."""
    from_ns: int
    to_ns: int | None
    """None while it lasts."""
    until_ns: int | None
    """When the hold or the block is to end by time; None when nothing ends by time."""
    began: Event | None
    """What began it; None when that was before the events that were looked at."""
    events: tuple[Event, ...] = ()
    """What happened without ending it: `withdrawn`, `held`."""
    ended: Event | None = None
    """What ended it; None while it lasts."""

    @property
    def place(self) -> Place:
        """Which port."""
        return Place(self.node, self.pool, self.port)

    @property
    def from_seq(self) -> int:
        """The event that began it; 0 when that was before the events that were looked at."""
        return self.began.seq if self.began else 0

    def lasted_ns(self, now_ns: int) -> int:
        """How long, or how long so far."""
        return max(0, (now_ns if self.to_ns is None else self.to_ns) - self.from_ns)

    def covers(self, moment: Moment) -> bool:
        """Whether the port was in this state, under this lease, at the moment."""
        if moment.seq is not None:
            return self.from_seq <= moment.seq and (self.ended is None or moment.seq < self.ended.seq)
        at_ns = moment.ts or 0
        return self.from_ns <= at_ns and (self.to_ns is None or at_ns < self.to_ns)

    def meets(self, from_ns: int, to_ns: int) -> bool:
        """Whether any of it, be it without length, lies within the two times, both included."""
        return self.from_ns <= to_ns and (self.to_ns is None or self.to_ns > from_ns or self.from_ns == self.to_ns == from_ns)


class _Now:
    """A span that goes on."""

    __slots__ = ("began", "events", "from_ns", "owner", "service", "state", "token", "until")

    def __init__(self, state: PortState, holder: tuple[str, str, int], began: Event | None, from_ns: int, until: int) -> None:
        self.state = state
        self.owner, self.service, self.token = holder
        self.began, self.from_ns, self.until = began, from_ns, until
        self.events: list[Event] = []


class Lives:
    """The present span of every port, on the way through a log.

    Events must be legal: `Replay().checked(events)` proves that of those from anywhere.

    Begins with no port used, or where `ledger` stands: the first event is then the one after it. Only ports with an event of their own
    have a life: those that are held because the history of a whole pool was lost have none before it. With `only`, the ledger's other ports
    are left out.
    """

    def __init__(self, ledger: Ledger | None = None, *, only: Place | None = None) -> None:
        self._now: dict[Place, _Now] = {}
        for pool in ledger.select() if ledger is not None else ():
            if only is None or (pool.node, pool.name) == only[:2]:
                self._now |= {Place(pool.node, pool.name, port): now for port, now in _rows(pool) if only is None or port == only.port}

    def take(self, event: Event) -> Span | None:
        """Take in the next event; the span that it ends, if it ends one."""
        kind = event.kind
        after = _AFTER.get(kind)
        if after is None:
            return None
        place = Place(event.node, event.pool, event.port)
        was = self._now.get(place)
        if was is not None and was.state is after and kind in _GOES_ON:
            was.events.append(event)
            was.until = event.until if after is PortState.QUARANTINED else 0
            return None
        self._now[place] = _next(was, after, event)
        return None if was is None else _span(place, was, event)

    def lasting(self) -> Iterator[Span]:
        """The spans that no event has ended yet, by node, pool and port."""
        for place in sorted(self._now):
            yield _span(place, self._now[place], None)


def spans(events: Iterable[Event], *, since: Ledger | None = None) -> Iterator[Span]:
    """All spans that the events tell of, in the order of their ends, those that last after them.

    `since` is the state that the events follow on (`state_at`), where they do not begin with the log; it is not changed.
    """
    lives = Lives(since)
    for event in events:
        span = lives.take(event)
        if span is not None:
            yield span
    yield from lives.lasting()


def _next(was: _Now | None, after: PortState, event: Event) -> _Now:
    if event.kind in _BEGINS:
        holder = (event.owner, event.service, event.seq)
    elif was is None:
        holder = ("", "", event.token)
    elif after is PortState.FREE:
        holder = ("", "", was.token)
    else:
        holder = (was.owner, was.service, was.token)
    return _Now(after, holder, event, event.ts, 0 if after is PortState.ALLOCATED else event.until)


def _rows(pool: Pool) -> Iterator[tuple[int, _Now]]:
    """The ports that were ever used, with how each stands."""
    for offset, since in enumerate(pool.since):
        if since:
            code = pool.state[offset]
            holder = (pool.owner[offset], pool.service[offset], pool.token[offset])
            yield pool.base + offset, _Now(STATES[code], holder, None, since, pool.until[offset] if code in (QUARANTINED, BLOCKED) else 0)


def _span(place: Place, now: _Now, ended: Event | None) -> Span:
    to_ns = None if ended is None else ended.ts
    return Span(
        *place, now.state, now.owner, now.service, now.token, now.from_ns, to_ns, now.until or None, now.began, tuple(now.events), ended,
    )  # fmt: skip
