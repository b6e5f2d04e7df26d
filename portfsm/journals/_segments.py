"""The segments of a log: which there are, whether they follow on each other, and what the last one ends in.

A segment is a file `%020d.jsonl`, named by the `seq` of its first event. Its header links it to the one before
(number, base, epoch, SHA-256 in the seal), so a lost, foreign or edited file shows without reading all bytes.

Rule: reads only. Nothing here changes a file.
"""

from __future__ import annotations

import hashlib
import re
from itertools import zip_longest
from typing import TYPE_CHECKING

import attrs
import msgspec

from portfsm._codec import Header, Seal, decode_mark
from portfsm._recovery import Place, Rule, Verdict, begun_later, decide, facts, sealed_in, tail_limit
from portfsm._scanner import Position, Scanner
from portfsm.errors import JournalCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event
    from portfsm.journals._disk import Directory

__all__ = [
    "EMPTY_DIGEST",
    "Ending",
    "Joint",
    "Segment",
    "Standing",
    "corrupt",
    "ending_of",
    "links",
    "name_of",
    "names_in",
    "read_ends",
    "read_standing",
    "seal_at_end",
    "stand",
    "survey",
]

EMPTY_DIGEST = hashlib.sha256().hexdigest()
"""The digest of a log without events."""
_NAME = re.compile(r"[0-9]{20}\.jsonl")
_EDGE_BYTES = 64 << 10
"""A header or a seal is far shorter."""
_NONE_WANTED = 1 << 63


def name_of(first_seq: int) -> str:
    """The file name of the segment whose first event has this `seq`."""
    return f"{first_seq:020d}.jsonl"


def names_in(directory: Directory) -> list[str]:
    """The names of all segments, in order."""
    return [name for name in directory.names() if _NAME.fullmatch(name)]


@attrs.frozen
class Segment:
    """One segment by its two ends. `seal` is None while it is written to, or was left so."""

    name: str
    header: Header
    seal: Seal | None
    size: int


@attrs.frozen
class Ending:
    """How far a segment can be believed, and what to do about the rest."""

    good: Position
    newline_missing: bool
    size: int
    rule: Rule
    sha256: str
    """Of the bytes up to `good`, the missing line end included: the head's digest there."""

    @property
    def torn_bytes(self) -> int:
        """How many bytes are to be cut off."""
        return self.size - self.good.offset

    @property
    def last_seq(self) -> int:
        """The last event that can be believed."""
        return self.good.next_seq - 1

    @property
    def head(self) -> tuple[int, str]:
        """That event and the digest up to it."""
        return self.last_seq, self.sha256

    def seal(self, header: Header) -> Seal:
        """What ends the segment there."""
        return Seal(self.last_seq - header.base, *self.head)


@attrs.frozen
class Joint:
    """What the header of the next segment must say: its number, the `seq` it goes on after, and the SHA-256 of what it follows."""

    no: int = 1
    base: int = 0
    prev: str = ""

    @classmethod
    def after(cls, header: Header, head: tuple[int, str]) -> Joint:
        """The one that goes on where the segment with this header ends."""
        return cls(header.no + 1, *head)

    @property
    def head(self) -> tuple[int, str]:
        """The last event and the digest that names the history up to it."""
        return self.base, self.prev or EMPTY_DIGEST


@attrs.frozen
class Standing:
    """Where a log stands: its segments, what the last one ends in where no seal says it, and how it goes on."""

    segments: list[Segment] = attrs.Factory(list)
    ending: Ending | None = None
    joint: Joint = Joint()


def corrupt(path: str, segment: str, offset: int, seq: int | None, why: str) -> JournalCorrupt:
    """The refusal to open, with the place and what to do."""
    at = "" if seq is None else f" (seq {seq})"
    message = (
        f"{path}: {segment} is damaged at byte {offset}{at}: {why}. Nothing was changed. "
        f"`portfsm verify {path}` shows all damage, `portfsm repair {path}` what can be saved; or restore a copy"
    )
    return JournalCorrupt(message, path=path, segment=segment, offset=offset, seq=seq)


def survey(directory: Directory) -> list[Segment]:
    """All segments, their links checked, by reading both ends of each. Raises `JournalCorrupt`, `JournalTooNew`, `OSError`."""
    segments = [read_ends(directory, name) for name in names_in(directory)]
    before: Segment | None = None
    for segment in segments:
        if before is not None and before.seal is None:
            ending_of(directory, before, Place.EARLIER)  # finds the exact place, and refuses
        why = links(before, segment, directory.origin)
        if why:
            raise corrupt(directory.path, segment.name, 0, segment.header.base + 1, why)
        before = segment
    return segments


def stand(directory: Directory, segments: list[Segment]) -> Standing:
    """Where a log of these segments stands. Raises `JournalCorrupt`, `OSError`."""
    if not segments:
        return Standing()
    last = segments[-1]
    header = last.header
    if last.seal is not None:
        return Standing(segments, None, Joint.after(header, (last.seal.last, last.seal.sha256)))
    ending = ending_of(directory, last, Place.LAST)
    if ending.last_seq > header.base:
        return Standing(segments, ending, Joint.after(header, ending.head))
    return Standing(segments, ending, Joint(header.no, header.base, header.prev))  # it holds no event: the next one takes its place


def links(before: Segment | None, segment: Segment, origin: tuple[int, int, str] = (1, 0, "")) -> str:
    """Why `segment` cannot follow `before`; empty when it can. `origin`: what the first one must say of itself."""
    header = segment.header
    if before is None:
        first = (header.no, header.base, header.prev) == origin
        found = [(not first, f"it is segment {header.no}, and the ones before it are missing")]
    else:
        was, seal = before.header, before.seal or Seal(0, 0, "")
        found = [
            (header.log != was.log, f"it belongs to another log ({header.log})"),
            (before.seal is None, f"{before.name} before it has no readable seal"),
            (header.no != was.no + 1, f"it is segment {header.no} of the log and follows segment {was.no}"),
            (header.base != seal.last, f"it goes on after seq {header.base}, the one before it ends at {seal.last}"),
            (header.prev != seal.sha256, f"its link does not match the seal of {before.name}: one of the two was edited or replaced"),
            (header.epoch < was.epoch, f"its epoch {header.epoch} is older than {was.epoch} before it"),
        ]
    found.append((segment.name != name_of(header.base + 1), f"it begins with seq {header.base + 1}, its name says otherwise"))
    return next((why for wrong, why in found if wrong), "")


def read_ends(directory: Directory, name: str) -> Segment:
    """A segment by its header and its seal, if it has one. Raises `JournalCorrupt` when the header does not prove."""
    size = directory.size(name)
    start = directory.bytes_of(name, 0, min(size, _EDGE_BYTES))
    scanner = Scanner(directory.at(name), after=_NONE_WANTED)
    scanner.feed(start[: start.find(b"\n") + 1])
    scanner.finish()
    if scanner.header is None:
        why = scanner.wrong.why if scanner.wrong else "it does not prove"
        raise corrupt(directory.path, name, 0, None, f"it does not begin with a header ({why})")
    return Segment(name, scanner.header, seal_at_end(directory, name, size)[2], size)


def seal_at_end(directory: Directory, name: str, size: int) -> tuple[int, bytes, Seal | None]:
    """Where the last line begins, the line, and what it says if it reads as a seal. Whether it proves shows when the segment is read."""
    start = max(0, size - _EDGE_BYTES)
    end = directory.bytes_of(name, start, size)
    place = end.rfind(b"\n", 0, -1) + 1
    line = end[place:]
    if not line.startswith(b'{"kind":"seal"') or not sealed_in(line):  # one judgement with the rules of recovery
        return start + place, line, None
    try:
        mark = decode_mark(line, directory.at(name))
    except (msgspec.MsgspecError, ValueError):
        return start + place, line, None
    return start + place, line, mark if isinstance(mark, Seal) else None


def ending_of(directory: Directory, segment: Segment, place: Place) -> Ending:
    """Prove every byte of a segment and say what it ends in. Raises `JournalCorrupt`, `OSError`."""
    scanner = Scanner(directory.at(segment.name), after=_NONE_WANTED)
    digest = hashlib.sha256()
    size = 0
    for chunk in directory.chunks(segment.name):
        scanner.feed(chunk)
        digest.update(chunk)
        size += len(chunk)
    scanner.finish()
    rule = refuse_damage(directory, segment.name, scanner, size, place)
    good = scanner.good
    if good.offset != size:
        digest = hashlib.sha256()
        for chunk in directory.chunks(segment.name, 0, good.offset):
            digest.update(chunk)
    if scanner.newline_missing:
        digest.update(b"\n")
    return Ending(good, scanner.newline_missing, size, rule, digest.hexdigest())


def read_standing(directory: Directory, standing: Standing, *, after: int) -> Iterator[list[Event]]:
    """The events behind `after`, in lists, every byte proven. Raises `JournalCorrupt`, `OSError`."""
    for segment, following in zip_longest(standing.segments, standing.segments[1:]):
        if following is None:
            yield from _read(directory, segment, Place.LAST, after, standing.ending)
        elif following.header.base > after:
            yield from _read(directory, segment, Place.EARLIER, after, None)


def _read(directory: Directory, segment: Segment, place: Place, after: int, upto: Ending | None) -> Iterator[list[Event]]:
    """The events of a segment. `upto` is what it was found to end in before."""
    scanner = Scanner(directory.at(segment.name), after=after)
    size = 0
    for chunk in directory.chunks(segment.name, 0, upto.size if upto else segment.size):
        size += len(chunk)
        events = scanner.feed(chunk)
        if events:
            yield events
    yield scanner.finish()
    refuse_damage(directory, segment.name, scanner, size, place)
    if upto is not None and scanner.good != upto.good:
        raise corrupt(directory.path, segment.name, scanner.good.offset, scanner.good.next_seq, "it reads differently than a moment ago")


def refuse_damage(directory: Directory, name: str, scanner: Scanner, size: int, place: Place) -> Rule:
    """The verdict on what lies behind the last good batch, a torn seal included; raises `JournalCorrupt` when that is it."""
    good, wrong, header = scanner.good, scanner.wrong, scanner.header
    tail = b"" if header is None else directory.bytes_of(name, good.offset, min(size, good.offset + tail_limit(header)))
    rule = decide(facts(scanner, place=place, size=size, tail=tail))
    if rule.verdict is not Verdict.CORRUPT:
        if rule.verdict is Verdict.TORN and scanner.seal is not None:
            scanner.unseal()
        return rule
    if wrong is not None:
        raise corrupt(directory.path, name, wrong.offset, wrong.seq, f"{rule.why} ({wrong.why})")
    later = begun_later(tail, good.next_seq - (scanner.seal is not None))
    raise corrupt(directory.path, name, good.offset, good.next_seq, rule.why + (f" (from seq {later})" if later else ""))
