"""Answers from spans: who held a port around a moment, what an owner or a service held, what lasted longest."""

from __future__ import annotations

from heapq import nlargest
from typing import TYPE_CHECKING

from portfsm.audit._lives import Lives, Place
from portfsm.errors import InvalidValue
from portfsm.states import PortState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm._ledger import Ledger
    from portfsm.audit._lives import Span
    from portfsm.audit._moments import Moment
    from portfsm.events import Event

__all__ = ["around", "held_by", "life", "longest", "who"]

_NS = 1_000_000_000
_FOR_EVER_S = 1e9
"""Thirty years; what is no number is no less than that."""


def life(events: Iterable[Event], pool: str, port: int, *, node: str = "", since: Ledger | None = None) -> tuple[Span, ...]:
    """One port's life: its spans, oldest first, from its first event on (or from `since` on). Empty when it was never used."""
    lives = Lives(since, only=Place(node, pool, port))
    mine = (event for event in events if event.port == port and event.pool == pool and event.node == node)
    ended = tuple(span for event in mine if (span := lives.take(event)) is not None)
    return (*ended, *lives.lasting())


def who(
    events: Iterable[Event], pool: str, port: int, *, at: Moment, within_s: float = 0.0, node: str = "", since: Ledger | None = None
) -> tuple[Span, ...]:
    """Who held the port at a moment, or within so many seconds before and after it, oldest first.

    Between two holders the spans say who held the port last: traffic for that one may still have come. Empty when nothing had
    happened to the port yet. The moment of an `@seq` is the time of that event. Raises `InvalidValue`.
    """
    when = [at.ts]
    found = life(_noting(events, at, when), pool, port, node=node, since=since)
    if when[0] is None and (at.seq or 0) > (since.seq if since else 0):
        raise InvalidValue(f"the log does not reach @{at.seq}", name="at", value=at.seq)
    return around(found, at, within_s=within_s, at_ns=when[0])


def around(found: Iterable[Span], at: Moment, *, within_s: float = 0.0, at_ns: int | None = None) -> tuple[Span, ...]:
    """Those of the spans that cover the moment, or meet so many seconds before and after it. `at_ns` is when the moment was.

    Raises `InvalidValue` for a length of time that is none, and for a moment of which no time is known.
    """
    if not 0 <= within_s < _FOR_EVER_S:
        raise InvalidValue(f"within_s must be seconds, 0 or more, not {within_s!r}", name="within_s", value=within_s)
    if not within_s:
        return tuple(span for span in found if span.covers(at))
    middle_ns = at.ts if at_ns is None else at_ns
    if middle_ns is None:
        raise InvalidValue(f"the log does not reach @{at.seq}", name="at", value=at.seq)
    reach_ns = round(within_s * _NS)
    return tuple(span for span in found if span.meets(middle_ns - reach_ns, middle_ns + reach_ns))


def _noting(events: Iterable[Event], at: Moment, when: list[int | None]) -> Iterator[Event]:
    """The events; on the way the time of the one with the seq that was asked for."""
    for event in events:
        if event.seq == at.seq:
            when[0] = event.ts
        yield event


def held_by(found: Iterable[Span], *, owner: str | None = None, service: str | None = None) -> tuple[Span, ...]:
    """The life of an owner, or of a service: what they held, by when they got it. With neither, all that anybody held."""
    mine = (
        span
        for span in found
        if span.state is PortState.ALLOCATED and owner in (None, span.owner) and service in (None, span.service)
    )  # fmt: skip
    return tuple(sorted(mine, key=lambda span: (span.from_ns, span.token)))


def longest(found: Iterable[Span], count: int = 10, *, now_ns: int, state: PortState = PortState.QUARANTINED) -> tuple[Span, ...]:
    """The longest holds, or the longest spans in another state, longest first; those that last, as long as they did at `now_ns`."""
    return tuple(nlargest(count, (span for span in found if span.state is state), key=lambda span: span.lasted_ns(now_ns)))
