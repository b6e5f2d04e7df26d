"""A log replayed: the events with what each did, and the state at a moment.

Every answer about a log is a fold over its events. `Replay` keeps the ledger and goes on from where it is;
a damaged log raises from it and leaves the ledger as of the last good event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from portfsm._ledger import Ledger
from portfsm._pool import STATES
from portfsm._replay import replay
from portfsm.errors import JournalCorrupt
from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from portfsm.audit._moments import Moment
    from portfsm.events import Event

__all__ = ["Replay", "Step"]

_CHUNK = 4_096


class Step(NamedTuple):
    """One event, and the state of its port before and after it (None for an event that concerns no port)."""

    event: Event
    before: PortState | None
    after: PortState | None
    epoch: int
    """Of the writer that recorded it."""


class Replay:
    """A ledger on its way through a log: an empty one, or one as of some seq, which the events then follow."""

    def __init__(self, onto: Ledger | None = None) -> None:
        self.ledger = Ledger() if onto is None else onto
        self.last: Event | None = None
        """The last event taken in."""
        self.opened: Event | None = None
        """The last opening."""

    def run(self, events: Iterable[Event], *, upto: Moment | None = None) -> None:
        """Take in `events`, all or those that `upto` covers. Raises `JournalCorrupt`."""
        known: list[Event] = []
        try:
            for event in events:
                if upto is not None and not upto.covers(event):
                    break
                known.append(event)
                if len(known) == _CHUNK:  # many at a time are folded several times faster
                    whole, known = known, []
                    self.take(whole)
        finally:
            self.take(known)  # those before damage, too

    def checked(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events, each proven legal before it is given out. Raises `JournalCorrupt`."""
        known: list[Event] = []
        for event in events:
            known.append(event)
            if len(known) == _CHUNK:
                whole, known = known, []
                yield from self._legal(whole)
        yield from self._legal(known)

    def _legal(self, events: list[Event]) -> Iterator[Event]:
        try:
            self.take(events)
        except JournalCorrupt:  # those before it have happened
            yield from (event for event in events if event.seq <= self.ledger.seq)
            raise
        yield from events

    def steps(self, events: Iterable[Event], wanted: Callable[[Event], bool]) -> Iterator[Step]:
        """Take in `events` and give out those that are `wanted`. Raises `JournalCorrupt`."""
        between: list[Event] = []
        for event in events:
            if wanted(event):
                self.take(between)
                between.clear()
                yield self._step(event)
            else:
                between.append(event)
                if len(between) >= _CHUNK:
                    self.take(between)
                    between.clear()
        self.take(between)

    def _step(self, event: Event) -> Step:
        if not event.port:
            self.take([event])
            return Step(event, None, None, self.ledger.epoch)
        before = self._state(event)
        self.take([event])
        return Step(event, before, self._state(event), self.ledger.epoch)

    def _state(self, event: Event) -> PortState:
        pool = self.ledger.pools.get((event.node, event.pool))
        return PortState.FREE if pool is None else STATES[pool.code(event.port)]

    def take(self, events: list[Event]) -> None:
        """Take in all of these. Raises `JournalCorrupt`."""
        try:
            replay(events, onto=self.ledger)
        finally:  # those before one that cannot have happened are taken in
            for event in events:
                if event.seq > self.ledger.seq:
                    break
                self.last = event
                if event.kind is EventKind.OPENED:
                    self.opened = event
