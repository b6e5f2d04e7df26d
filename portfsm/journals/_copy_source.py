"""Where a copy comes from: a log read without its lock, as files byte for byte or as events, and what proves it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import msgspec

from portfsm._codec import BATCH_BYTES, FMT, SCHEMA, Encoder, Header, Seal
from portfsm._recovery import Place
from portfsm.errors import InvalidValue, JournalUnreadable
from portfsm.events import Event
from portfsm.journals._disk import unreadable
from portfsm.journals._inspect import head_in, inspect_in
from portfsm.journals._reader import open_directory, read_directory
from portfsm.journals._segments import ending_of, name_of, survey
from portfsm.journals._urls import is_url, shared_journal, shown
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm.journals._disk import Directory
    from portfsm.journals._segments import Segment
    from portfsm.journals._urls import SharedJournal
    from portfsm.values import Head

__all__ = ["Digest", "Files", "Rows", "Source", "digest_of", "open_source"]

SEGMENT_EVENTS = 16_384
BATCH = 256
"""Far below what a batch may have in bytes, whatever its events say."""
_encode = msgspec.json.Encoder().encode


class Source(Protocol):
    """A log up to `head`, all of it proven."""

    shown: str
    head: Head
    epoch: int
    """Of its last writer that recorded anything."""
    closed: bool
    """Its last writer ended it. Otherwise it may be at work still, or have been killed."""

    def segments(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """As files: their names and bytes, each one sealed."""
        ...

    def events(self) -> Iterator[Event]:
        """As events."""
        ...


def open_source(target: str) -> Source:
    """The log at `target`, proven now. Raises `JournalCorrupt`, `JournalUnreadable`, `InvalidValue`."""
    if not isinstance(target, str) or not target or "\0" in target or target == "memory:":
        raise InvalidValue(f"a log that can be copied is a directory or a URL, not {target!r}", name="source", value=target)
    if not is_url(target):
        return Files(open_directory(target))
    journal = shared_journal(target)
    shelf = getattr(journal, "shelf", None)
    return Files(shelf()) if shelf is not None else Rows(shown(target), journal)


def _nothing(place: str) -> JournalUnreadable:
    return JournalUnreadable(f"{place} has no events yet: there is nothing to copy", path=place, errno=None)


class Files:
    """A log that lies in files, in a directory or in etcd."""

    def __init__(self, directory: Directory) -> None:
        self.shown = directory.path
        self._directory = directory
        try:
            self._prove()
        except OSError as error:
            raise unreadable(directory.path, error, "read the log") from error

    def _prove(self) -> None:
        directory = self._directory
        report = inspect_in(directory)
        if report.damage:
            raise report.damage[0]
        directory.reach(0)
        self._segments = survey(directory)
        if not self._segments:
            raise _nothing(self.shown)
        last = self._segments[-1]
        self._ending = ending_of(directory, last, Place.LAST)
        self.closed = last.seal is not None
        self.epoch = last.header.epoch
        self.head = head_in(directory, self._ending.last_seq)
        if not self.head.seq:
            raise _nothing(self.shown)

    def segments(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """As they are. The last one gets the seal it lacks; what was torn is left behind."""
        for segment in self._segments[:-1]:
            yield segment.name, self._directory.chunks(segment.name)
        last = self._segments[-1]
        if self.closed:
            yield last.name, self._directory.chunks(last.name, 0, last.size)
        elif self._ending.last_seq > last.header.base:
            yield last.name, self._sealed(last)

    def _sealed(self, segment: Segment) -> Iterator[bytes]:
        ending = self._ending
        yield from self._directory.chunks(segment.name, 0, ending.good.offset)
        if ending.newline_missing:
            yield b"\n"
        yield Encoder(ending.good.carry).encode_line(ending.seal(segment.header))

    def events(self) -> Iterator[Event]:
        """Up to the head."""
        for event in read_directory(self._directory):
            if event.seq > self.head.seq:
                return
            yield event


class Rows:
    """A log that lies in rows of a database."""

    def __init__(self, place: str, journal: SharedJournal) -> None:
        self.shown = place
        self._journal = journal
        self.epoch = 0
        self.closed = False
        with journal.audit() as audit:
            for event in audit.events():
                self.epoch = _epoch(event) or self.epoch
                self.closed = event.kind is EventKind.CLOSED
            if not audit.last_seq:
                raise _nothing(place)
            self.head = audit.heads[audit.last_seq]

    def events(self) -> Iterator[Event]:
        """Up to the head."""
        for event in self._journal.read_apart():
            if event.seq > self.head.seq:
                return
            yield event

    def segments(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Made from the events: a segment for each epoch at least."""
        link, no, base = "", 1, 0
        for epoch, events in _by_epoch(self.events()):
            header = Header(fmt=FMT, log=self.head.log_id, no=no, base=base, epoch=epoch, prev=link, schema=SCHEMA, batch=BATCH_BYTES)
            encoder = Encoder()
            data = [encoder.encode_line(header)]
            data += [encoder.encode(events[start : start + BATCH]) for start in range(0, len(events), BATCH)]
            link = hashlib.sha256(b"".join(data)).hexdigest()
            data.append(encoder.encode_line(Seal(len(events), events[-1].seq, link)))
            yield name_of(base + 1), data
            no, base = no + 1, events[-1].seq


def _by_epoch(events: Iterable[Event]) -> Iterator[tuple[int, list[Event]]]:
    """In parts that one segment takes."""
    epoch, part = 0, list[Event]()
    for event in events:
        begins = _epoch(event)
        if part and (begins or len(part) >= SEGMENT_EVENTS):
            yield epoch, part
            part = []
        epoch = begins or epoch
        part.append(event)
    if part:
        yield epoch, part


def _epoch(event: Event) -> int:
    return int(event.data["epoch"]) if event.kind is EventKind.OPENED and event.data else 0


class Digest:
    """SHA-256 of all that events say: the same wherever and however they are kept."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, events: Iterable[Event]) -> None:
        """The next ones."""
        for event in events:
            self._sha.update(_encode(event) + b"\n")

    def hex(self) -> str:
        """Of all so far."""
        return self._sha.hexdigest()


def digest_of(events: Iterable[Event]) -> str:
    """The same at once."""
    digest = Digest()
    digest.add(events)
    return digest.hex()
