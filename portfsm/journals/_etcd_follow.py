"""Following a log in etcd: one question a look while nothing comes, and each piece read once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from portfsm._scanner import Scanner
from portfsm.journals._disk import unreadable
from portfsm.journals._reader import read_directory
from portfsm.journals._segments import name_of, survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event
    from portfsm.journals._etcd_store import Shelf

__all__ = ["EtcdTail"]


class EtcdTail:
    """A reader that stays, behind the event `after`. Leave it with `with`."""

    def __init__(self, shelf: Shelf, after: int) -> None:
        self.seq = after
        self._shelf = shelf
        self._scanner: Scanner | None = None
        self._name = ""
        self._last = (0, b"")
        """The piece that was read last, by offset."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shelf.let_go()

    def fileno(self) -> int:
        """Nothing tells when there is more."""
        return -1

    def take(self) -> Iterator[list[Event]]:
        """Everything after what was taken before, proven. Raises what `read_journal` does."""
        try:
            scanner = self._scanner or self._find()
            while scanner is not None:
                for piece in self._new():
                    if events := scanner.feed(piece):
                        self.seq = events[-1].seq
                        yield events
                if scanner.seal is None:
                    break
                scanner = self._begin(name_of(scanner.seal.last + 1))
            if scanner is not None and scanner.stopped:
                yield from self._anew()
        except OSError as error:
            raise unreadable(self._shelf.path, error, "follow the log") from error

    def _find(self) -> Scanner | None:
        """Where the next event stands."""
        segments = survey(self._shelf)
        self._shelf.reach(self.seq)
        within = [segment.name for segment in segments if segment.header.base <= self.seq]
        return self._begin(within[-1]) if within else None

    def _begin(self, name: str) -> Scanner:
        self._name, self._last = name, (0, b"")
        self._scanner = Scanner(self._shelf.at(name), after=self.seq)
        return self._scanner

    def _new(self) -> Iterator[bytes]:
        """What stands behind the last piece."""
        at, before = self._last
        if not before:
            yield from self._first()
            return
        parts = self._shelf.parts(self._name, at)
        if parts[:1] != [self._last]:  # it was shipped, or put aside as never finished
            self._scanner = None
            return
        for part in parts[1:]:
            self._last = part
            yield part[1]

    def _first(self) -> Iterator[bytes]:
        """A segment from its beginning; one that left etcd meanwhile is whole, and read from the archive."""
        parts = self._shelf.parts(self._name)
        if parts:
            self._last = parts[-1]
            yield from (data for _, data in parts)
            return
        try:
            yield from self._shelf.chunks(self._name)
        except FileNotFoundError:
            return  # it is still to come

    def _anew(self) -> Iterator[list[Event]]:
        """What came does not prove behind what was read: damage raises here; where a leader mended the log, read on."""
        self._scanner = None
        for event in read_directory(self._shelf, self.seq):
            self.seq = event.seq
            yield [event]
