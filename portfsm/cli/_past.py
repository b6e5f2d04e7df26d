"""One port around a moment of a long log: from the nearest snapshot on, and no further than needed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import attrs

from portfsm.audit import Lives, Moment, Place, Replay, around
from portfsm.audit._states import reached
from portfsm.cli._out import Bar
from portfsm.cli._places import find_place
from portfsm.cli._reading import read_state
from portfsm.errors import CommandRejected, JournalCorrupt
from portfsm.journals import past_of
from portfsm.states import PortState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm._ledger import Ledger
    from portfsm.audit import Span
    from portfsm.events import Event
    from portfsm.journals import Past

__all__ = ["Life", "life_around"]

_NS = 1_000_000_000


@attrs.frozen
class Life:
    """What is known of a port around a moment."""

    place: Place
    at: Moment
    at_ns: int | None
    """When the moment was; None for the beginning of the log."""
    spans: tuple[Span, ...]
    """What covers the moment, or meets the time around it; oldest first."""
    before: Span | None
    """The holding before the first of these; None when there was none."""
    ledger: Ledger
    """As of the moment, or of the end of the time around it."""
    beyond: bool
    """Whether the log ends before the moment."""
    damage: JournalCorrupt | None = None
    """What kept from seeing when the last span ended."""

    @property
    def unused(self) -> str:
        """How the port stood at the moment, where nothing had happened to it yet."""
        if self.spans:
            return PortState.FREE.value
        if self.place.pool not in self.ledger.specs:
            return "in no pool yet"
        return self.ledger.pool(self.place.pool, self.place.node).view(self.place.port).state.value

    @property
    def then(self) -> Span | None:
        """What was at the moment itself."""
        return next((span for span in self.spans if span.covers(self.at)), None)

    @property
    def former(self) -> Span | None:
        """The last holding that was over at the moment."""
        then = self.then
        holdings = [span for span in (self.before, *self.spans) if span is not None and span.state is PortState.ALLOCATED]
        return next((each for each in reversed(holdings) if then and each.to_ns is not None and each.to_ns <= then.from_ns), None)


def life_around(log: str, port: int, at: Moment, *, within_s: float, pool: str | None, node: str | None) -> Life:
    """The port around the moment.

    Raises what `read_journal` does, `InvalidValue` for a seq that the log does not reach and for a port of which there are several.
    """
    past = past_of(log)
    at_ns = at.ts if at.ts is not None else _time_of(past, at.seq or 0)
    low, high = _window(at, at_ns, within_s)
    since = past.nearest(seq=low.seq, ts=low.ts)
    replay = Replay(since.copy())
    batches = replay.through(Bar(log).watch_all(past.batches(since.seq)), upto=high)
    named = [event for batch in batches for event in batch if event.port == port]
    reached(replay.ledger, high)
    place = _place(log, replay.ledger, port, pool, node)
    lives = Lives(since, only=place)
    found = [*_ended(lives, [named], place), *lives.lasting()]
    spans = around(found, at, within_s=within_s, at_ns=at_ns)
    first, damage = spans[0] if spans else None, None
    try:
        if spans and spans[-1].ended is None:
            spans = (*spans[:-1], _to_its_end(past, lives, spans[-1], replay.ledger.seq))
    except JournalCorrupt as error:
        damage = error
    earlier = [span for span in found[: found.index(first)] if span.state is PortState.ALLOCATED] if first else []
    before = earlier[-1] if earlier else _holding_before(past, first) if first else None
    beyond = at.ts is not None and not replay.passed and at.ts > replay.ledger.ts
    return Life(place, at, at_ns, spans, before, replay.ledger, beyond, damage)


def _time_of(past: Past, seq: int) -> int | None:
    event = next(past.events(seq - 1), None) if seq else None
    return event.ts if event is not None else None


def _window(at: Moment, at_ns: int | None, within_s: float) -> tuple[Moment, Moment]:
    if not within_s or at_ns is None:
        return at, at
    reach_ns = round(within_s * _NS)
    return Moment(ts=at_ns - reach_ns), Moment(ts=at_ns + reach_ns)


def _place(log: str, ledger: Ledger, port: int, pool: str | None, node: str | None) -> Place:
    """The port as the pools were then, else as they are now."""
    try:
        return Place(*find_place(ledger, port, pool=pool, node=node))
    except CommandRejected:
        return Place(*find_place(read_state(log).ledger, port, pool=pool, node=node))


def _ended(lives: Lives, batches: Iterable[list[Event]], place: Place) -> Iterable[Span]:
    """The spans of the port that the events end."""
    node, pool, port = place
    mine = (event for batch in batches for event in batch if event.port == port and event.pool == pool and event.node == node)
    return (span for event in mine if (span := lives.take(event)) is not None)


def _to_its_end(past: Past, lives: Lives, span: Span, seq: int) -> Span:
    """The span with what ended it, if anything did after `seq`: the last snapshot in which it goes on is where to look from."""
    first = bisect_right(past.seqs, seq)
    count = bisect_left(past.seqs[first:], 1, key=lambda each: not _goes_on(past.state(each), span))
    after = past.seqs[first + count - 1] if count else seq
    return next(iter(_ended(lives, past.batches(after), span.place)), span)


def _goes_on(ledger: Ledger | None, span: Span) -> bool:
    if ledger is None or span.pool not in ledger.specs:
        return False
    view = ledger.pool(span.pool, span.node).view(span.port)
    return (view.state, view.token, view.since) == (span.state, span.token, span.from_ns)


def _holding_before(past: Past, span: Span) -> Span | None:
    """The lease of the port before this span; its token is in the port's row for as long as there is no newer one."""
    token = span.token if span.state is not PortState.ALLOCATED else _token_before(past, span)
    began = next(past.events(token - 1), None) if token else None
    if began is None:
        return None
    lives = Lives()
    lives.take(began)
    return _to_its_end(past, lives, next(lives.lasting()), token)


def _token_before(past: Past, span: Span) -> int:
    """The port's last token before a lease; 0 for none."""
    state = past.nearest(seq=span.token - 1)
    token = state.pool(span.pool, span.node).view(span.port).token if span.pool in state.specs else 0
    for batch in past.batches(state.seq):
        for event in batch:
            if event.seq >= span.token:
                return token
            if event.port == span.port and event.token == event.seq and (event.pool, event.node) == (span.pool, span.node):
                token = event.seq
    return token
