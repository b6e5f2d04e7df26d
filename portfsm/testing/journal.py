"""A journal whose appends wait, or fail, when a test says so: slow disks, full disks and lost locks without a disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio.to_thread

from portfsm.journals import MemoryJournal, read_journal
from portfsm.protocols import CachingJournal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from portfsm.events import Event
    from portfsm.protocols import Journal
    from portfsm.values import Head

__all__ = ["GatedJournal"]

_PATIENCE_S = 60.0
"""Bound on waiting for an append that never comes: only a test that hangs reaches it."""


class GatedJournal:
    """Any journal (in memory by default) behind a gate.

    `hold()` closes the gate: the next append waits inside until `let_go()` opens it, or `let_go(n)` lets n of them
    pass. `await held()` returns once an append waits. `fail(error)` makes all appends raise; with `after=n`, n of
    them succeed first; with `kept=True` the journal keeps the events all the same, as a disk may whose sync failed.
    `full` may be set: a journal on its reserve. `room` says what an append of nothing then finds.
    `appends` holds the events of each append that returned.
    """

    def __init__(self, inner: Journal | None = None) -> None:
        self.inner: Journal = inner if inner is not None else MemoryJournal()
        self.appends: list[tuple[Event, ...]] = []
        self.full = False
        self.room = False
        self.closed = 0
        self._gate = threading.Condition()
        self._passes: int | None = None
        self._waiting = 0
        self._error: BaseException | None = None
        self._error_after = 0
        self._kept = False

    # ---- what a test does ---------------------------------------------------------------------------------

    def hold(self) -> None:
        """Close the gate."""
        with self._gate:
            self._passes = 0

    def let_go(self, count: int | None = None) -> None:
        """Open the gate, or let `count` appends pass and keep it closed."""
        with self._gate:
            self._passes = None if count is None else (self._passes or 0) + count
            self._gate.notify_all()

    async def held(self) -> None:
        """Return once an append waits at the gate."""
        await anyio.to_thread.run_sync(self._see)

    def _see(self) -> None:
        with self._gate:
            if not self._gate.wait_for(lambda: self._waiting > 0 and self._passes == 0, _PATIENCE_S):
                raise TimeoutError("no append came to the gate")

    def fail(self, error: BaseException, *, after: int = 0, kept: bool = False) -> None:
        """Let `after` appends succeed and all later ones raise `error`."""
        with self._gate:
            self._error, self._error_after, self._kept = error, after, kept

    def heal(self) -> None:
        """Appends succeed again."""
        with self._gate:
            self._error = None

    # ---- what the manager does ----------------------------------------------------------------------------

    @property
    def log_id(self) -> str:
        """As the journal inside."""
        return self.inner.log_id

    @property
    def recovered(self) -> str:
        """As the journal inside."""
        return self.inner.recovered if isinstance(self.inner, CachingJournal) else ""

    def open(self, holder: str) -> int:
        """As the journal inside."""
        return self.inner.open(holder)

    def read(self, after: int = 0) -> Iterator[Event]:
        """As the journal inside; after an append, as a reader of its own."""
        return read_journal(self.inner, after=after) if self.appends else self.inner.read(after)

    def append(self, events: Sequence[Event]) -> None:
        """Wait at the gate, then append or raise as told."""
        if not events:
            self.full = self.full and not self.room
            return
        with self._gate:
            self._waiting += 1
            self._gate.notify_all()
            self._gate.wait_for(lambda: self._passes is None or self._passes > 0)
            self._waiting -= 1
            if self._passes is not None:
                self._passes -= 1
        self._append(events)

    def _append(self, events: Sequence[Event]) -> None:
        error = self._error
        if error is not None and self._error_after <= 0:
            if self._kept:
                self.inner.append(events)
            raise error
        self._error_after -= 1
        self.inner.append(events)
        self.appends.append(tuple(events))

    def head(self) -> Head:
        """As the journal inside."""
        return self.inner.head()

    def close(self) -> None:
        """As the journal inside; `closed` counts."""
        self.closed += 1
        self.inner.close()

    def load_snapshot(self) -> tuple[int, list[bytes]] | None:
        """As the journal inside."""
        return self.inner.load_snapshot() if isinstance(self.inner, CachingJournal) else None

    def save_snapshot(self, seq: int, lines: Iterable[bytes]) -> None:
        """As the journal inside."""
        if isinstance(self.inner, CachingJournal):
            self.inner.save_snapshot(seq, lines)


if TYPE_CHECKING:
    _: type[CachingJournal] = GatedJournal
