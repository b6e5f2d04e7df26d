"""From one holder to the next: how far apart they were, which holds ended early and why, who never gave back, who claimed the same port."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import attrs

from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm.audit._lives import Place, Span

__all__ = ["Conflict", "Distance", "EarlyFree", "Leak", "Reuse", "conflicts", "distances", "early_frees", "leaks", "reuses"]

_FORGOTTEN = frozenset({"reconciled", "expired"})
_CLAIMED = frozenset({"conflict", "address-in-use"})


@attrs.frozen
class Reuse:
    """A port went from one holder to the next. Both are spans in state ALLOCATED."""

    before: Span
    after: Span

    @property
    def gap_ns(self) -> int:
        """Time between the end of the one lease and the beginning of the next."""
        return self.after.from_ns - (self.before.to_ns or self.after.from_ns)

    @property
    def stranger(self) -> bool:
        """Whether traffic for the former holder would have gone astray: another owner, and another service or none."""
        same = self.before.owner == self.after.owner or (self.after.service and self.before.service == self.after.service)
        return not same


@attrs.frozen
class Distance:
    """How far apart the holders of two services were on the same port, from one to the other, in ns."""

    before: str
    """The service that left; empty for holders without one."""
    after: str
    """The service that came."""
    count: int
    least_ns: int
    median_ns: int
    most_ns: int


@attrs.frozen
class EarlyFree:
    """A hold that something else than time ended."""

    span: Span
    """The quarantine; `span.ended` is the event that freed the port."""
    cause: str
    """`evidence`, `operator` or `pressure`."""
    reason: str
    early_ns: int
    """How much of the hold was left."""


@attrs.frozen
class Leak:
    """A lease that its holder never gave back: somebody else found out."""

    span: Span
    cause: str
    """`reconciled`: it was not seen any more; `expired`: it was not renewed."""


@attrs.frozen
class Conflict:
    """Somebody was found on a port that the record had for another, or for nobody."""

    place: Place
    seq: int
    ts: int
    kind: str
    """`conflict`: two owners claimed it; `address-in-use`: a stranger sits on it; `adopted`: a live owner had it against the rules."""
    recorded: str
    """The owner that the record had, last or at that moment; empty for none."""
    claimant: str
    """Who was found there, where the log says so."""
    reason: str


def reuses(found: Iterable[Span]) -> Iterator[Reuse]:
    """Each time a port went to a next holder, in the order in which those ended."""
    last: dict[Place, Span] = {}
    for span in found:
        if span.state is PortState.ALLOCATED:
            before = last.get(span.place)
            if before is not None:
                yield Reuse(before, span)
            last[span.place] = span


def distances(found: Iterable[Reuse]) -> tuple[Distance, ...]:
    """The reuses per pair of services, the closest pair first."""
    gaps: dict[tuple[str, str], list[int]] = {}
    for reuse in found:
        gaps.setdefault((reuse.before.service, reuse.after.service), []).append(reuse.gap_ns)
    pairs = [Distance(*pair, len(each), min(each), int(median(each)), max(each)) for pair, each in gaps.items()]
    return tuple(sorted(pairs, key=lambda pair: (pair.least_ns, pair.before, pair.after)))


def early_frees(found: Iterable[Span]) -> Iterator[EarlyFree]:
    """Quarantines that were over before their time, by evidence, an operator's word, or for want of ports."""
    for span in found:
        event, until_ns = span.ended, span.until_ns
        if span.state is PortState.QUARANTINED and event and event.kind is EventKind.FREED and until_ns and event.ts < until_ns:
            yield EarlyFree(span, event.cause, event.reason, until_ns - event.ts)


def leaks(found: Iterable[Span]) -> Iterator[Leak]:
    """Leases that ended because nobody was seen to use them any more."""
    for span in found:
        event = span.ended
        if span.state is PortState.ALLOCATED and event and event.kind is EventKind.RELEASED and event.cause in _FORGOTTEN:
            yield Leak(span, event.cause)


def conflicts(found: Iterable[Span]) -> Iterator[Conflict]:
    """Claims that contradict the record, in the order in which the spans they began ended."""
    former: dict[Place, Span] = {}
    for span in found:
        before, event = former.get(span.place), span.began
        former[span.place] = span
        if event is None:
            continue
        recorded = before.owner if before else ""
        if event.kind is EventKind.ADOPTED and event.reason:
            yield Conflict(span.place, event.seq, event.ts, "adopted", recorded, event.owner, event.reason)
        elif event.kind is EventKind.BLOCKED and event.cause in _CLAIMED:
            yield Conflict(span.place, event.seq, event.ts, event.cause, event.owner or recorded, "", event.reason)
