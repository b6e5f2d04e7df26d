"""Following a log that grows: what is there, then what comes, each event once. Blocking, for one thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from portfsm.journals import open_journal, read_journal
from portfsm.journals.file import FileJournal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event
    from portfsm.journals import Target

__all__ = ["Tail", "tail_of"]

_PART = 4096


class Tail(Protocol):
    """A place in a log that moves on. Use it with `with`."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def take(self) -> Iterator[list[Event]]:
        """The events that were not taken yet, in parts, up to what is durable now. Raises what `read_journal` does."""
        ...

    def fileno(self) -> int:
        """What becomes readable when there is more; -1 when nothing does and the log must be looked at now and then."""
        ...


@runtime_checkable
class _Tailed(Protocol):
    def tail(self, after: int = 0) -> Tail: ...


def tail_of(target: Target, *, after: int = 0) -> Tail:
    """Follow a log from behind the event `after`, without its lock. Raises `InvalidValue`, `MissingExtra`."""
    journal = open_journal(target)
    return journal.tail(after) if isinstance(journal, _Tailed) else _Polled(target, after)


class _Polled:
    """A log that tells nobody when it grows."""

    def __init__(self, target: Target, after: int) -> None:
        self._target = target
        self._seq = after
        self._seen: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def take(self) -> Iterator[list[Event]]:
        found = self._signature()
        if found is not None and found == self._seen:
            return
        part: list[Event] = []
        for event in read_journal(self._target, after=self._seq):
            self._seq = event.seq
            part.append(event)
            if len(part) == _PART:
                yield part
                part = []
        if part:
            yield part
        self._seen = found

    def _signature(self) -> object:
        """Changes when a log in a directory grows; None for any other."""
        target = self._target.path if isinstance(self._target, FileJournal) else self._target
        if not isinstance(target, str | os.PathLike) or not os.path.isdir(target):  # noqa: PTH112
            return None
        with os.scandir(target) as entries:
            return sorted((entry.name, entry.stat().st_size) for entry in entries if entry.name.endswith(".jsonl"))
