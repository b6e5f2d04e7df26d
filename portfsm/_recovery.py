"""Torn or corrupt: what the bytes behind the last good batch of a segment mean. A decision table, as data.

A crash can tear only what was being written, and that is one batch: a later batch is begun only after the sync of
the earlier one returned. So bytes that do not prove are a torn tail, to be cut, when they lie at the end of the last
segment and nothing behind them was begun later. Everything else is damage to what was acknowledged: refuse, lose nothing.

Evidence is whether something *decodes* as later, not whether it proves: that errs towards refusing.

Rule of this file: pure. No os, time, random, threads or paths.
"""

from __future__ import annotations

import enum
import re
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import attrs
import msgspec

from portfsm._codec import Header, Seal
from portfsm.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm._scanner import Scanner

__all__ = ["RULES", "Facts", "Place", "Rule", "Tail", "Verdict", "begun_later", "decide", "events_in", "facts", "sealed_in", "tail_limit"]

TAIL_SLACK = 64 << 10
"""A file system may round a length up to a page or a block after a power cut."""


class Place(enum.Enum):
    """Where the segment stands in the log."""

    LAST = "the last segment"
    EARLIER = "a segment before the last"


class Tail(enum.Enum):
    """What lies behind the last complete batch that proves."""

    EMPTY = "nothing"
    INCOMPLETE = "proven lines of a batch whose end is missing"
    UNPROVEN = "bytes that do not prove"
    WRONG = "a proven line that cannot be"


class Verdict(enum.Enum):
    """What to do about it."""

    CLEAN = "believe all of it"
    TORN = "cut the tail off"
    CORRUPT = "refuse to open"


@attrs.frozen
class Facts:
    """What is known about one segment."""

    place: Place
    sealed: bool
    """A seal stands at its end; or, where the end does not prove, behind the damage. What else follows a seal was torn with it."""
    tail: Tail
    later: bool = False
    """Something in the tail decodes as an event of a batch begun after the damaged one."""
    oversize: bool = False
    """The tail is longer than one write can be."""


@attrs.frozen
class Rule:
    """One row: None matches anything."""

    verdict: Verdict
    why: str
    tails: tuple[Tail, ...]
    place: Place | None = None
    sealed: bool | None = None
    later: bool | None = None
    oversize: bool | None = None

    def matches(self, facts: Facts) -> bool:
        """Every condition holds."""
        return facts.tail in self.tails and all(
            wanted is None or wanted is found
            for wanted, found in (
                (self.place, facts.place),
                (self.sealed, facts.sealed),
                (self.later, facts.later),
                (self.oversize, facts.oversize),
            )
        )


_CUT = (Tail.INCOMPLETE, Tail.UNPROVEN)

RULES = (
    Rule(Verdict.CORRUPT, "a line carries the right checksum and cannot be: software wrote it, not a crash", (Tail.WRONG,)),
    Rule(Verdict.CLEAN, "sealed, and every byte proves", (Tail.EMPTY,), sealed=True),
    Rule(Verdict.CLEAN, "the writer stopped without a seal, between two writes", (Tail.EMPTY,), sealed=False, place=Place.LAST),
    Rule(Verdict.CORRUPT, "a later segment exists, so this one had a seal", (Tail.EMPTY,), sealed=False, place=Place.EARLIER),
    Rule(Verdict.CORRUPT, "a sealed segment was synced whole, so no crash did this", _CUT, sealed=True),
    Rule(Verdict.CORRUPT, "a later segment exists, so this one was synced whole", _CUT, sealed=False, place=Place.EARLIER),
    Rule(Verdict.CORRUPT, "a later batch was begun, so the damaged one had been synced", _CUT, sealed=False, place=Place.LAST, later=True),
    Rule(Verdict.CORRUPT, "more is damaged than one write can be", _CUT, sealed=False, place=Place.LAST, later=False, oversize=True),
    Rule(Verdict.TORN, "the last write was torn", _CUT, sealed=False, place=Place.LAST, later=False, oversize=False),
)
"""Exactly one row matches any facts."""


def decide(facts: Facts) -> Rule:
    """The row for these facts."""
    for rule in RULES:
        if rule.matches(facts):
            return rule
    raise InternalError(f"no rule for {facts}")


class _Line(msgspec.Struct):
    """As much of an event as evidence needs."""

    seq: int
    ts: int
    kind: str
    b: tuple[int, int] = (1, 1)


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_seal = msgspec.json.Decoder(Seal).decode
# A line is looked for anywhere, not between line ends: a line end may be damaged too.
_EVENT_START = re.compile(rb'\{"seq":[0-9]')
_SEAL_START = re.compile(rb'\{"kind":"seal",')
_SEAL_BYTES = 256
"""A seal is shorter."""
_LINE_END = re.compile(rb',"c":"[0-9a-f]{8}"\}')


def tail_limit(header: Header) -> int:
    """As much as a crash can have torn in this segment."""
    return header.batch + TAIL_SLACK


def facts(scanner: Scanner, *, place: Place, size: int, tail: bytes) -> Facts:
    """What a finished scan found. `tail` is what follows `scanner.good`, of a segment of `size` bytes: `tail_limit` bytes are enough."""
    sealed = scanner.seal is not None
    if scanner.wrong is not None or scanner.header is None:
        return Facts(place, sealed, Tail.WRONG)
    behind = size - scanner.good.offset
    if not behind:
        return Facts(place, sealed, Tail.EMPTY)
    torn_seq = scanner.good.next_seq - sealed  # behind a seal every event is a later one
    return Facts(
        place,
        sealed_in(tail),
        Tail.INCOMPLETE if scanner.incomplete else Tail.UNPROVEN,
        later=begun_later(tail, torn_seq) is not None,
        oversize=behind > tail_limit(scanner.header),
    )


def begun_later(tail: bytes, missing_seq: int) -> int | None:
    """The first `seq` of a batch in `tail` that was begun after the one `missing_seq` belongs to; None when there is none."""
    firsts = (line.seq - line.b[0] + 1 for line in _legible(tail))
    return next((first for first in firsts if first > missing_seq), None)


def events_in(damaged: bytes) -> int:
    """How many events can still be read in bytes that do not prove."""
    return sum(1 for _ in _legible(damaged))


def _legible(damaged: bytes) -> Iterator[_Line]:
    starts = (match.start() for match in _EVENT_START.finditer(damaged))
    for start, stop in pairwise(chain(starts, (len(damaged),))):
        end = _LINE_END.search(damaged, start, stop)
        if end is None:
            continue
        try:
            yield _decode_line(damaged[start : end.end()])
        except ValueError:  # msgspec's own errors and the UnicodeDecodeError it lets through
            continue


def sealed_in(tail: bytes) -> bool:
    """A seal can be read somewhere in `tail`."""
    for match in _SEAL_START.finditer(tail):
        end = _LINE_END.search(tail, match.start(), match.start() + _SEAL_BYTES)
        if end is None:
            continue
        try:
            _decode_seal(tail[match.start() : end.end()])
        except ValueError:
            continue
        return True
    return False
