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
from contextlib import suppress
from itertools import pairwise
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import anyio
import attrs
from anyio.lowlevel import current_token

from portfsm.errors import InternalError, OutcomeUnknown, PortfsmError
from portfsm.protocols import LeadingJournal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from portfsm.events import Event
    from portfsm.protocols import Journal

__all__ = ["ThreadWorker", "Worker", "Writer"]

T = TypeVar("T")

MAX_BATCH = 4096
"""Events in one sync at most: keeps the wait for a sync, and the tail a crash can tear, bounded."""

_JOIN_S = 1.0


class _Gate(Protocol):
    """What callers wait at until their batch is through."""

    def wait(self) -> Awaitable[object]: ...
    def set(self) -> object: ...


class _FutureGate:
    """A gate on asyncio. An `anyio.Event` there costs each wait as much again as deciding on a command does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[asyncio.Future[None]] = []

    def wait(self) -> asyncio.Future[None]:
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def set(self) -> None:
        for future in self._waiting:
            if not future.done():  # it was cancelled
                future.set_result(None)
        self._waiting.clear()


@attrs.frozen
class _Native:
    """What this loop offers below anyio."""

    soon: Callable[..., object]
    """Run a function at the end of the tick."""
    post: Callable[..., object]
    """The same, asked from a thread."""
    gate: Callable[[], _Gate]


def _native() -> _Native:
    token = current_token().native_token
    run_sync_soon: Callable[..., object] | None = getattr(token, "run_sync_soon", None)
    if run_sync_soon is not None:
        return _Native(run_sync_soon, run_sync_soon, anyio.Event)
    loop = cast("asyncio.AbstractEventLoop", token)
    return _Native(loop.call_soon, loop.call_soon_threadsafe, lambda: _FutureGate(loop))


@attrs.define
class _Batch:
    done: _Gate
    events: list[Event] = attrs.field(factory=list)
    cuts: list[int] = attrs.field(factory=lambda: [0])
    """Where each append of `MAX_BATCH` begins: between two decisions, as one of them must not reach the disk by half."""
    room: int = MAX_BATCH
    """How many events there may be before the next cut."""

    def cut(self) -> None:
        """What comes now goes into an append of its own."""
        self.cuts.append(len(self.events))
        self.room = len(self.events) + MAX_BATCH


class Worker(Protocol):
    """Runs jobs one at a time, in order, off the loop."""

    def run(self, job: Callable[[], None]) -> None:
        """Queue a job."""
        ...

    def stop(self) -> None:
        """End when what was queued is done."""
        ...

    def join(self) -> None:
        """See it end, once the last job is done."""
        ...


class ThreadWorker:
    """A thread of its own. A daemon, so that a hung disk does not keep the process from ending."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="portfsm-writer", daemon=True)
        self._thread.start()

    def run(self, job: Callable[[], None]) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End when what was queued is done."""
        self._jobs.put(None)

    def join(self) -> None:
        """See it end: a moment, once the last job is done."""
        self._thread.join(_JOIN_S)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class Writer:
    """One journal's only thread. Made and used on one event loop."""

    def __init__(
        self,
        journal: Journal,
        *,
        on_durable: Callable[[Sequence[Event]], None],
        on_failure: Callable[[PortfsmError], None],
        worker: Worker | None = None,
        boot_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._journal = journal
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._native = _native()
        self._pending = _Batch(self._native.gate())
        self._in_flight: _Batch | None = None
        self._kick_scheduled = False
        self._held = False
        self.durable_seq = 0
        self.failure: PortfsmError | None = None
        self.slowest_s = 0.0
        self._append_renews = not isinstance(journal, LeadingJournal) or journal.append_renews
        self.signed_s = time.monotonic()
        """When the last sign of life that was heard was begun."""
        self._boot_ns = boot_ns
        self.signed_ns = boot_ns()
        """The same by a clock that goes on while the machine is suspended."""
        self.lock = threading.Lock()
        """Held while the thread is inside the journal."""
        self._worker = worker if worker is not None else ThreadWorker()

    # ------------------------------------------------------------------ on the loop

    def push(self, events: Sequence[Event]) -> None:
        """Hand over events that have been applied. They go to disk at the end of this tick, or with the next batch."""
        batch = self._pending
        if len(batch.events) + len(events) > batch.room:
            batch.cut()
        batch.events.extend(events)
        self._schedule()

    def _schedule(self) -> None:
        if self._pending.events and self._in_flight is None and not self._held and not self._kick_scheduled:
            self._kick_scheduled = True
            self._native.soon(self._kick)

    def _kick(self) -> None:
        self._kick_scheduled = False
        if self._in_flight is None and not self._held and self.failure is None:
            batch, self._pending = self._pending, _Batch(self._native.gate())
            self._in_flight = batch
            self._worker.run(lambda: self._append(batch))

    async def durable(self, seq: int) -> None:
        """Return when the event `seq` is durable. Raises what stopped the writer."""
        while seq > self.durable_seq:
            self.check()
            batch = self._in_flight
            if batch is None or batch.events[-1].seq < seq:
                batch = self._pending
            await batch.done.wait()

    def check(self) -> None:
        """Raise what stopped the writer, if anything did."""
        if self.failure is not None:
            # One object for all who are told: without this it would collect the traceback of each.
            raise self.failure.with_traceback(None)

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the thread, after what was queued before it, and return its result.

        A cancelled caller leaves at once; the function runs all the same.
        """
        done, outcome = anyio.Event(), Future[T]()
        self._worker.run(lambda: self._run_for(function, outcome, done))
        await done.wait()
        return outcome.result()

    def between_batches(self, function: Callable[[], object]) -> None:
        """Run `function`, which must not raise, in the thread before the next batch: nothing becomes durable meanwhile."""
        self._held = True
        self._worker.run(lambda: self._run_between(function))

    def _resume(self) -> None:
        self._held = False
        self._schedule()

    def stop(self) -> None:
        """Let the worker end when it has done what was queued."""
        self._worker.stop()

    def join(self) -> None:
        """See the worker end, after the last `call` has returned."""
        self._worker.join()

    def heard(self, asked_s: float, asked_ns: int) -> None:
        """A sign of life was answered; it was begun then, by the two clocks."""
        self.signed_s, self.signed_ns = max(self.signed_s, asked_s), max(self.signed_ns, asked_ns)

    def _finished(self, batch: _Batch, error: PortfsmError | None, took_s: float, asked_ns: int) -> None:
        self._in_flight = None
        if self.failure is not None:
            return  # given up on, and those who waited were told
        self.slowest_s = max(self.slowest_s, took_s)
        if error is None:
            self.durable_seq = batch.events[-1].seq
            if self._append_renews:
                self.heard(time.monotonic() - took_s, asked_ns)
            error = self._show(batch)
        if error is not None:
            self._in_flight = batch
            self.fail(error)
        batch.done.set()
        self._schedule()

    def _show(self, batch: _Batch) -> PortfsmError | None:
        try:
            self._on_durable(batch.events)
        except Exception as raised:  # noqa: BLE001  (nobody who waits is left in silence, whatever broke)
            error = InternalError(f"what is on disk could not be shown: {raised!r}. Open the log again, and please report this")
            error.__cause__ = raised
            return error
        return None

    def fail(self, error: PortfsmError) -> None:
        """Stop for good, and tell all who wait for the disk."""
        self.failure = error
        self._on_failure(error)
        for batch in (self._in_flight, self._pending):
            if batch is not None:
                batch.done.set()

    # ------------------------------------------------------------------ in the thread

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with suppress(RuntimeError):  # the loop has ended: the disk took longer than anybody waited
            self._native.post(callback, *args)

    def _run_for(self, function: Callable[[], T], outcome: Future[T], done: anyio.Event) -> None:
        try:
            with self.lock:
                outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  (handed to the caller who awaits it)
            outcome.set_exception(error)
        self._tell(done.set)

    def _run_between(self, function: Callable[[], object]) -> None:
        try:
            with self.lock:
                function()
        finally:
            self._tell(self._resume)

    def _append(self, batch: _Batch) -> None:
        error: PortfsmError | None = None
        started, asked_ns = time.monotonic(), self._boot_ns()
        try:
            with self.lock:
                for start, stop in pairwise((*batch.cuts, len(batch.events))):
                    self._append_all(batch.events[start:stop])
        except PortfsmError as raised:
            error = raised
        except BaseException as raised:  # noqa: BLE001  (whatever a driver raises must reach those who wait)
            error = OutcomeUnknown(
                f"the journal failed with {raised!r}; nobody knows what it kept. Open it again: that replays what is there",
                path=getattr(raised, "filename", None), errno=getattr(raised, "errno", None),
            )  # fmt: skip
            error.__cause__ = raised
        self._tell(self._finished, batch, error, time.monotonic() - started, asked_ns)

    def _append_all(self, events: list[Event]) -> None:
        """In pieces of `MAX_BATCH` where one decision is longer, the last one whole: an opening puts `opened` there, behind holds."""
        for stop in range(len(events) % MAX_BATCH or MAX_BATCH, len(events) + 1, MAX_BATCH):
            self._journal.append(events[max(0, stop - MAX_BATCH) : stop])
