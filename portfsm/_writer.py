"""Group commit: events go to the journal in a thread of their own, all that wait in one write and one sync.

Rule: events are pushed on the loop in the order they were applied, and become durable in that order. While one
batch is on its way the next collects, so a thousand callers share a sync and a lone caller waits for nothing
but its own. After a failure nothing more is written: memory is ahead of the disk and only reopening tells
what the disk has.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import anyio
import attrs
from anyio.lowlevel import current_token

from portfsm.errors import OutcomeUnknown, PortfsmError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from portfsm.events import Event
    from portfsm.protocols import Journal

__all__ = ["Writer"]

T = TypeVar("T")

MAX_BATCH = 4096
"""Events in one sync at most: keeps the wait for a sync, and the tail a crash can tear, bounded."""


class _Loop(Protocol):
    def call_soon(self, callback: Callable[..., object], *args: object) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object: ...


def _scheduler() -> tuple[Callable[..., object], Callable[..., object]]:
    """How this loop runs a function at the end of the tick, and how a thread asks it to."""
    token = current_token().native_token
    if hasattr(token, "run_sync_soon"):
        return token.run_sync_soon, token.run_sync_soon
    loop = cast("_Loop", token)
    return loop.call_soon, loop.call_soon_threadsafe


@attrs.define
class _Batch:
    events: list[Event] = attrs.field(factory=list)
    done: anyio.Event = attrs.field(factory=anyio.Event)


class Writer:
    """One journal's only thread. Made and used on one event loop."""

    def __init__(self, journal: Journal, *, on_durable: Callable[[Sequence[Event]], None], on_failure: Callable[[PortfsmError], None]) -> None:
        self._journal = journal
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._soon, self._post = _scheduler()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._pending = _Batch()
        self._in_flight: _Batch | None = None
        self._kick_scheduled = False
        self._held = False
        self.durable_seq = 0
        self.failure: PortfsmError | None = None
        self.slowest_s = 0.0
        self.lock = threading.Lock()
        """Held while the thread is inside the journal."""
        self._thread = threading.Thread(target=self._run, name="portfsm-writer", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ on the loop

    def push(self, events: Sequence[Event]) -> None:
        """Hand over events that have been applied. They go to disk at the end of this tick, or with the next batch."""
        self._pending.events.extend(events)
        self._schedule()

    def _schedule(self) -> None:
        if self._pending.events and self._in_flight is None and not self._held and not self._kick_scheduled:
            self._kick_scheduled = True
            self._soon(self._kick)

    def _kick(self) -> None:
        self._kick_scheduled = False
        if self._in_flight is None and not self._held and self.failure is None:
            batch, self._pending = self._pending, _Batch()
            self._in_flight = batch
            self._jobs.put(lambda: self._append(batch))

    async def durable(self, seq: int) -> None:
        """Return when the event `seq` is durable. Raises what stopped the writer."""
        while seq > self.durable_seq:
            if self.failure is not None:
                raise self.failure
            batch = self._in_flight
            if batch is None or batch.events[-1].seq < seq:
                batch = self._pending
            await batch.done.wait()

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the thread, after what was queued before it, and return its result.

        A cancelled caller leaves at once; the function runs all the same.
        """
        done, outcome = anyio.Event(), Future[T]()
        self._jobs.put(lambda: self._run_for(function, outcome, done))
        await done.wait()
        return outcome.result()

    def between_batches(self, function: Callable[[], object]) -> None:
        """Run `function` in the thread before the next batch: nothing becomes durable meanwhile."""
        self._held = True
        self._jobs.put(lambda: self._run_between(function))

    def _resume(self) -> None:
        self._held = False
        self._schedule()

    def stop(self) -> None:
        """Let the thread end when it has done what was queued."""
        self._jobs.put(None)

    def _finished(self, batch: _Batch, error: PortfsmError | None, took_s: float) -> None:
        self._in_flight = None
        self.slowest_s = max(self.slowest_s, took_s)
        if error is None:
            self.durable_seq = batch.events[-1].seq
            self._on_durable(batch.events)
        else:
            self.failure = error
            self._on_failure(error)
            self._pending.done.set()
        batch.done.set()
        self._schedule()

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _run_for(self, function: Callable[[], T], outcome: Future[T], done: anyio.Event) -> None:
        try:
            with self.lock:
                outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  (handed to the caller who awaits it)
            outcome.set_exception(error)
        self._post(done.set)

    def _run_between(self, function: Callable[[], object]) -> None:
        try:
            with self.lock:
                function()
        finally:
            self._post(self._resume)

    def _append(self, batch: _Batch) -> None:
        error: PortfsmError | None = None
        started = time.monotonic()
        try:
            with self.lock:
                for first in range(0, len(batch.events), MAX_BATCH):
                    self._journal.append(batch.events[first : first + MAX_BATCH])
        except PortfsmError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001  (whatever a driver raises must reach those who wait)
            error = OutcomeUnknown(
                f"the journal failed with {raised!r}; nobody knows what it kept. Open it again: that replays what is there",
                path=getattr(raised, "filename", None), errno=getattr(raised, "errno", None),
            )  # fmt: skip
            error.__cause__ = raised
        self._post(self._finished, batch, error, time.monotonic() - started)
