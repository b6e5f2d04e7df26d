"""A log replayed: the events with what each did, and the state at a moment.

Every answer about a log is a fold over its events. `Replay` keeps the ledger and goes on from where it is;
a damaged log raises from it and leaves the ledger as of the last good event.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from portfsm._ledger import Ledger
from portfsm._pool import STATES
from portfsm._replay import replay
from portfsm.errors import JournalCorrupt, JournalError
from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from portfsm.audit._moments import Moment
    from portfsm.events import Event

__all__ = ["Replay", "Step"]

_CHUNK = 4_096


def _parts(events: Iterator[Event]) -> Iterator[list[Event]]:
    """Many at a time are folded several times faster; those before damage come out before it is raised."""
    while True:
        part: list[Event] = []
        try:
            part.extend(islice(events, _CHUNK))
        except JournalError:
            yield part
            raise
        if not part:
            return
        yield part


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
        self.passed = False
        """Whether there were events after the moment up to which it went."""

    def run(self, events: Iterable[Event], *, upto: Moment | None = None) -> None:
        """Take in `events`, all or those that `upto` covers. Raises `JournalCorrupt`."""
        for _ in self.through(_parts(iter(events)), upto=upto):
            pass

    def through(self, batches: Iterable[list[Event]], *, upto: Moment | None = None) -> Iterator[list[Event]]:
        """Take in lists of events, all or those that `upto` covers, and give each out when it has happened. Raises `JournalCorrupt`."""
        for batch in batches:
            whole = upto is None or not batch or upto.covers(batch[-1])
            known = batch if whole else [event for event in batch if upto is not None and upto.covers(event)]
            self.take(known)
            yield known
            if not whole:
                self.passed = True
                return

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
        epoch = self.ledger.epoch
        try:
            replay(events, onto=self.ledger)
        except JournalCorrupt:
            events = [event for event in events if event.seq <= self.ledger.seq]  # those before it have happened
            raise
        finally:
            self.last = events[-1] if events else self.last
            if self.ledger.epoch != epoch:
                self.opened = next(event for event in reversed(events) if event.kind is EventKind.OPENED)
