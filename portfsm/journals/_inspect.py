"""Every byte of a log looked at, for `portfsm verify` and `portfsm head`: what is there, what proves, what does not.

Unlike opening, inspecting does not stop at the first damage and recomputes every SHA-256. Takes no lock, changes nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs

from portfsm._recovery import Place, Verdict
from portfsm._scanner import Scanner
from portfsm.errors import InvalidValue, JournalCorrupt
from portfsm.journals._disk import unreadable
from portfsm.journals._reader import open_directory
from portfsm.journals._segments import EMPTY_DIGEST, Segment, corrupt, ending_of, links, names_in, read_ends, refuse_damage, survey
from portfsm.journals._urls import is_url, shared_journal
from portfsm.values import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm.events import Event
    from portfsm.journals._disk import Directory, Disk

__all__ = ["LogReport", "SegmentReport", "head_at", "head_in", "inspect", "inspect_in"]


@attrs.frozen
class SegmentReport:
    """One segment, every byte read."""

    name: str
    no: int
    epoch: int
    first_seq: int
    last_seq: int
    """Of what can be believed; `first_seq - 1` when there is no event."""
    size: int
    sealed: bool
    sha256_ok: bool | None
    """The seal's SHA-256 is that of the bytes; None without a seal."""
    link_ok: bool
    """Header and the segment before fit together."""
    torn_bytes: int
    """What the next opening for writing will cut off."""

    @property
    def count(self) -> int:
        """How many events can be believed."""
        return self.last_seq - self.first_seq + 1


@attrs.frozen
class LogReport:
    """What `inspect` found. `damage` is what opening refuses, or would if it looked as closely; in the order of the log."""

    path: str
    log_id: str
    segments: tuple[SegmentReport, ...]
    damage: tuple[JournalCorrupt, ...]

    @property
    def torn_bytes(self) -> int:
        """Normal after a crash, and harmless."""
        return sum(segment.torn_bytes for segment in self.segments)

    @property
    def sealed_upto(self) -> int:
        """Up to this seq an edit shows by the log alone; behind it only against a head kept elsewhere."""
        return max((segment.last_seq for segment in self.segments if segment.sealed), default=0)


def inspect(path: str, *, disk: Disk | None = None, each: Callable[[list[Event]], None] = lambda _: None) -> LogReport:
    """Read and verify everything; `each` gets the events, some at a time, up to the first damage.

    Raises `JournalUnreadable`, `JournalTooNew`.
    """
    return inspect_in(open_directory(path, disk), each=each)


def inspect_in(directory: Directory, *, each: Callable[[list[Event]], None] = lambda _: None) -> LogReport:
    """The same of a log whose files lie elsewhere."""
    path = directory.path
    reports: list[SegmentReport] = []
    damage: list[JournalCorrupt] = []
    before: Segment | None = None
    log_id = ""
    try:
        names = names_in(directory)
        for name in names:
            try:
                segment = read_ends(directory, name)
            except JournalCorrupt as error:
                damage.append(error)
                before = None
                continue
            log_id = log_id or segment.header.log
            broken = links(before, segment, directory.origin) if before is not None or name == names[0] else ""
            if broken:
                damage.append(corrupt(path, name, 0, segment.header.base + 1, broken))
            place = Place.LAST if name == names[-1] else Place.EARLIER
            reports.append(_look_through(directory, segment, place, not broken, damage, _nobody if damage else each))
            before = segment
    except OSError as error:
        raise unreadable(path, error, "read the log") from error
    return LogReport(path, log_id, tuple(reports), tuple(damage))


def _nobody(_: list[Event]) -> None:
    """Behind damage no event has a meaning."""


def _look_through(
    directory: Directory,
    segment: Segment,
    place: Place,
    link_ok: bool,  # noqa: FBT001
    damage: list[JournalCorrupt],
    each: Callable[[list[Event]], None],
) -> SegmentReport:
    scanner = Scanner(directory.at(segment.name))
    size = 0
    for chunk in directory.chunks(segment.name):
        each(scanner.feed(chunk))
        size += len(chunk)
    each(scanner.finish())
    torn_bytes = 0
    try:
        if refuse_damage(directory, segment.name, scanner, size, place).verdict is Verdict.TORN:
            torn_bytes = size - scanner.good.offset
    except JournalCorrupt as error:
        damage.append(error)
    sha256_ok = None
    if scanner.seal is not None:
        sha256_ok = _sha256(directory, segment.name, scanner.body.offset) == scanner.seal.sha256
        if not sha256_ok:
            why = "its SHA-256 is not the one in its seal, though every line proves: somebody edited it"
            damage.append(corrupt(directory.path, segment.name, 0, segment.header.base + 1, why))
    header = segment.header
    last_seq = scanner.good.next_seq - 1
    return SegmentReport(
        segment.name, header.no, header.epoch, header.base + 1, last_seq, size, scanner.seal is not None, sha256_ok, link_ok, torn_bytes
    )


def _sha256(directory: Directory, name: str, stop: int) -> str:
    digest = hashlib.sha256()
    for chunk in directory.chunks(name, 0, stop):
        digest.update(chunk)
    return digest.hexdigest()


def head_at(path: str, seq: int | None = None, *, disk: Disk | None = None) -> Head:
    """The head as it was when `seq` was the last event (now, if None), computed anew from the bytes.

    Raises `InvalidValue` when the log does not reach `seq`, `JournalCorrupt`, `JournalUnreadable`.
    """
    if is_url(path):
        return shared_journal(path).head_at(seq)
    return head_in(open_directory(path, disk), seq)


def head_in(directory: Directory, seq: int | None = None) -> Head:
    """The same of a log whose files lie elsewhere."""
    path = directory.path
    try:
        segments = survey(directory)
        last_seq = _last_seq(directory, segments)
        wanted = last_seq if seq is None else seq
        if not 0 <= wanted <= last_seq:
            raise InvalidValue(f"{path} ends at seq {last_seq}, there is no head at {wanted}", name="seq", value=seq)
        log_id = segments[0].header.log if segments else ""
        if not wanted:
            return Head(log_id, 0, EMPTY_DIGEST)
        segment = next(segment for segment in reversed(segments) if segment.header.base < wanted)
        ending_of(directory, segment, Place.LAST if segment is segments[-1] else Place.EARLIER)  # believe it before quoting it
        return Head(log_id, wanted, _digest_at(directory, segment, wanted))
    except OSError as error:
        raise unreadable(path, error, "read the log") from error


def _last_seq(directory: Directory, segments: list[Segment]) -> int:
    if not segments:
        return 0
    last = segments[-1]
    return last.seal.last if last.seal is not None else ending_of(directory, last, Place.LAST).last_seq


def _digest_at(directory: Directory, segment: Segment, seq: int) -> str:
    """SHA-256 of the segment up to the end of the line of event `seq`. Text cannot hold a raw line end, so the search is exact."""
    data = directory.bytes_of(segment.name, 0, segment.size)
    start = data.index(b'\n{"seq":%d,' % seq) + 1
    end = data.find(b"\n", start) + 1
    whole = data[:end] if end else data[: data.index(b'"}', data.index(b',"c":"', start)) + 2] + b"\n"
    return hashlib.sha256(whole).hexdigest()
