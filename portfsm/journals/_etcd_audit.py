"""What `portfsm verify` and `portfsm init` ask of a log in etcd."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Self

import attrs

from portfsm.errors import InvalidValue, JournalCorrupt
from portfsm.journals import _snapshots
from portfsm.journals._inspect import head_in, inspect_in
from portfsm.journals._reader import read_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event
    from portfsm.journals._etcd_store import Shelf
    from portfsm.values import Head

__all__ = ["Audit", "Prepared"]


@attrs.frozen
class Prepared:
    """A log in etcd has no tables that could be old: its first opening makes it."""

    log: str
    new: bool
    version_before: int = 0
    version: int = 0


class Audit:
    """Every byte, the archive included; then every event, up to the first damage."""

    def __init__(self, shelf: Shelf, at: int | None) -> None:
        self._shelf = shelf
        self._at = at
        self.heads: dict[int, Head] = {}

    def __enter__(self) -> Self:
        self._report = inspect_in(self._shelf)
        self.log_id = self._report.log_id
        self.last_seq = max((segment.last_seq for segment in self._report.segments), default=0)
        self.snapshot = _snapshots.load(self._shelf, self.log_id, self.last_seq)
        return self

    def __exit__(self, *_: object) -> None:
        self._shelf.let_go()

    def events(self) -> Iterator[Event]:
        """Every event, proven. Raises `JournalCorrupt` at the first damage, or behind all events that prove nevertheless."""
        seq = 0
        for event in read_directory(self._shelf):
            seq = event.seq
            yield event
        for wanted in {self._at or seq, seq}:
            with suppress(InvalidValue, JournalCorrupt):
                self.heads[wanted] = head_in(self._shelf, wanted)
        for damage in self._report.damage:
            raise damage
