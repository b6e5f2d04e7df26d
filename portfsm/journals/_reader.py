"""Reading a log without its lock, while a writer may be at work in it.

What a reader sees may not be synced yet, and the last write may be half there: that is the end of the log for now,
not damage. Anything else is damage, and nothing behind it is given out.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from portfsm._recovery import Place
from portfsm._scanner import Scanner
from portfsm.errors import JournalCorrupt, JournalUnreadable
from portfsm.journals._disk import Directory, Disk, RealDisk, unreadable
from portfsm.journals._lock import NAME as LOCK
from portfsm.journals._segments import Segment, names_in, refuse_damage, survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event

__all__ = ["open_directory", "read_batches", "read_directory", "settled"]

_ATTEMPTS = 4
"""A reader can meet a write that is cut back and written anew under its eyes: reading again tells that from damage."""


def open_directory(path: str, disk: Disk | None = None) -> Directory:
    """The directory of an existing log. Raises `JournalUnreadable`."""
    directory = Directory(disk or RealDisk(), path)
    try:
        names = directory.names()
        if not names_in(directory) and LOCK not in names:
            raise JournalUnreadable(f"{path} holds no log (no file 0...1.jsonl): check the path", path=path, errno=None)
    except OSError as error:
        raise unreadable(path, error, "read the log") from error
    return directory


def read_directory(directory: Directory, after: int = 0) -> Iterator[Event]:
    """The events with `seq > after`, as `read_journal` promises them."""
    return chain.from_iterable(read_batches(directory, after))  # a generator would cost replay a third of its speed


def read_batches(directory: Directory, after: int = 0) -> Iterator[list[Event]]:
    """The same in lists of some hundred, some of them empty: for whoever has something to do for each and is in a hurry."""
    try:
        segments = settled(directory)
        for number, segment in enumerate(segments, 1):
            last = number == len(segments)
            if not last and segments[number].header.base <= after:
                continue
            yield from _read(directory, segment, Place.LAST if last else Place.EARLIER, after)
    except OSError as error:
        raise unreadable(directory.path, error, "read the log") from error


def settled(directory: Directory) -> list[Segment]:
    """The segments. A writer that ends one and begins another between two of our reads can make links look broken for a moment."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return survey(directory)
        except (JournalCorrupt, FileNotFoundError):
            continue
    return survey(directory)


def _read(directory: Directory, segment: Segment, place: Place, after: int) -> Iterator[list[Event]]:
    for attempts_left in reversed(range(_ATTEMPTS)):
        scanner = Scanner(directory.at(segment.name), after=after)
        size = 0
        for chunk in directory.chunks(segment.name):
            size += len(chunk)
            yield scanner.feed(chunk)
        yield scanner.finish()
        try:
            refuse_damage(directory, segment.name, scanner, size, place)
        except JournalCorrupt:
            if not attempts_left:
                raise
            after = max(after, scanner.good.next_seq - 1)
        else:
            return
