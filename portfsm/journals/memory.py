"""A journal in memory: for tests, for demonstrations and for pools that need not outlive their process.

Keeps every promise of `protocols.Journal` but durability. The events live in a store that several
`MemoryJournal` objects may share (`reopened`), so that a test can let a second manager take over from a
first one that "crashed" (`abandon`) and then see the first one fenced.

Imports no clock, no thread, no file.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import attrs
import msgspec

from portfsm.errors import Fenced, InternalError, JournalError, JournalLocked
from portfsm.values import Head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from portfsm.events import Event

__all__ = ["MemoryJournal"]

_PATH = "memory:"
_SNAPSHOTS_KEPT = 2


@attrs.define
class _Store:
    """What outlives a `MemoryJournal` object: the log itself, its last epoch, and who has it open."""

    log_id: str = attrs.field(factory=lambda: os.urandom(16).hex())
    events: list[Event] = attrs.field(factory=list)
    snapshots: dict[int, list[bytes]] = attrs.field(factory=dict)
    epoch: int = 0
    holder: str | None = None


class MemoryJournal:
    """A journal that forgets everything when the last reference to it goes.

    The same object can be opened again after `close`. `reopened()` gives a second handle on the same log,
    for a second manager; while one handle is open, opening another raises `JournalLocked`.
    """

    def __init__(self) -> None:
        self._store = _Store()
        self._epoch: int | None = None

    @property
    def log_id(self) -> str:
        """Names this log; chosen when the first handle was made."""
        return self._store.log_id

    @property
    def full(self) -> bool:
        """Memory that is full raises `MemoryError`."""
        return False

    @property
    def recovered(self) -> str:
        """There is nothing that could need mending."""
        return ""

    def open(self, holder: str) -> int:
        """Become the writer and return the new epoch. Raises `JournalLocked`."""
        store = self._store
        if store.holder is not None:
            raise JournalLocked(
                f"this journal in memory is open already, by {store.holder!r}: close that one first",
                path=_PATH,
                pid=os.getpid(),
                holder=store.holder,
            )
        store.epoch += 1
        store.holder = holder
        self._epoch = store.epoch
        return store.epoch

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events with `seq > after`, as of the call."""
        return iter(self._store.events[max(after, 0) :])

    def append(self, events: Sequence[Event]) -> None:
        """Keep the events. Raises `Fenced` when another handle was opened since, `JournalError` when closed."""
        store = self._store
        if self._epoch is None:
            raise JournalError("this journal is closed: open it before appending", path=_PATH)
        if self._epoch != store.epoch:
            raise Fenced(
                f"epoch {self._epoch} was superseded by {store.epoch}: another writer has this journal, stop using this handle",
                path=_PATH,
                epoch=self._epoch,
                current=store.epoch,
            )
        last = len(store.events)
        if events and (events[0].seq != last + 1 or events[-1].seq != last + len(events)):
            raise InternalError(f"events {events[0].seq}..{events[-1].seq} do not follow {last}: nothing was written")
        store.events.extend(events)

    def head(self) -> Head:
        """Names the whole history. Hashes every event: for tests and people, not for hot paths."""
        digest = hashlib.sha256(msgspec.json.Encoder().encode_lines(self._store.events))
        return Head(self.log_id, len(self._store.events), digest.hexdigest())

    def close(self) -> None:
        """Let go. May be called twice."""
        if self._epoch == self._store.epoch:
            self._store.holder = None
        self._epoch = None

    def reopened(self) -> MemoryJournal:
        """Another handle, not yet open, on the same log."""
        other = MemoryJournal()
        other._store = self._store
        return other

    def abandon(self) -> None:
        """Free the log without closing this handle, as a crash or a lost lock would.

        This handle still believes that it holds the log; once another is opened, its appends raise `Fenced`.
        """
        if self._epoch == self._store.epoch:
            self._store.holder = None

    def load_snapshot(self) -> tuple[int, list[bytes]] | None:
        """The newest snapshot, as (seq, lines)."""
        kept = self._store.snapshots
        usable = [seq for seq in kept if seq <= len(self._store.events)]
        return (max(usable), list(kept[max(usable)])) if usable else None

    def save_snapshot(self, seq: int, lines: Iterable[bytes]) -> None:
        """Keep the state as of `seq`, and the one before it."""
        kept = self._store.snapshots
        kept[seq] = [bytes(line) for line in lines]
        for old in sorted(kept)[:-_SNAPSHOTS_KEPT]:
            del kept[old]
