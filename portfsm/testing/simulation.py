"""One seed, one course of events: an event loop and a writer's worker that wait for nothing but their turn.

Rule: nothing here reads a clock, starts a thread or touches a device. `Loop` runs callbacks in the order they were
scheduled, keeps a time of its own and ends with what a callback raises; `SteppedWorker` runs a journal's jobs when it is
told to, between any two turns of the loop, so that a batch can collect, a caller be cancelled while its event is on the
way, or a machine die between a write and its answer. With `ManualClock` and `SimulatedDisk` a whole controller runs
twice the same way:

    async def story() -> None:
        worker = SteppedWorker()
        ...                     # hand it to the engine, start calls as tasks
        await turns(3)          # let the loop go round
        worker.step()           # now the disk works

    run(story())

`tests/simulation` is built on this.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio.base_events import BaseEventLoop
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from portfsm._writer import Worker

__all__ = ["Deadlock", "Loop", "SteppedWorker", "run", "turns"]

T = TypeVar("T")


class Deadlock(Exception):  # noqa: N818  (it says what happened)
    """Every task waits, and nothing is left that could wake one."""


class Loop(BaseEventLoop):
    """An asyncio loop without a selector. Its time stands still until `advance`, or until nothing but timers is left."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self._broken: BaseException | None = None

    def time(self) -> float:
        """Seconds since the loop was made, as far as it is concerned."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let the loop's own timers (`anyio.move_on_after`, `asyncio.sleep`) come due."""
        self._now += seconds

    def select(self, timeout: float | None) -> list[Any]:
        """In the place of a selector: nothing ever happens outside. Called when a turn begins."""
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken
        if timeout is None:
            raise Deadlock("every task waits for another")
        self._now += timeout
        return []

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What a callback raised has nobody who would hear it: it ends the run."""
        if "handle" in context:
            self._broken = self._broken or context["exception"]
        else:
            super().call_exception_handler(context)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """`call_soon_threadsafe` wakes a selector; this loop never sleeps."""


class SteppedWorker:
    """The writer's thread, as an argument: keeps jobs until `step` runs the first of them, in the caller's stack."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.stopped = False
        """The writer wants no more of it."""
        self.dead = False
        """The process is gone: jobs are forgotten."""

    def run(self, job: Callable[[], None]) -> None:
        """Queue a job."""
        if not self.dead:
            self.jobs.append(job)

    def stop(self) -> None:
        """Nothing to end."""
        self.stopped = True

    def join(self) -> None:
        """There is nothing to wait for."""

    def step(self) -> bool:
        """Run the next job; whether there was one."""
        if not self.jobs:
            return False
        self.jobs.popleft()()
        return True

    def kill(self) -> None:
        """The process dies: what was queued never runs, nor does anything that comes after."""
        self.dead = True
        self.jobs.clear()


async def turns(count: int = 1) -> None:
    """Let the loop go round `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a new `Loop`, then cancel and see off the tasks it left."""
    loop = Loop()
    try:
        return loop.run_until_complete(main)
    finally:
        _see_off(loop)
        loop.close()


def _see_off(loop: Loop) -> None:
    left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    while left:
        for task in left:
            if _has_begun(task):
                task.cancel()
        loop.run_until_complete(turns(2))
        left = [task for task in left if not task.done()]
    loop.run_until_complete(loop.shutdown_asyncgens())


def _has_begun(task: asyncio.Task[Any]) -> bool:
    """One that is cancelled before its first turn would leave a coroutine that nobody awaited."""
    coroutine = task.get_coro()
    return not inspect.iscoroutine(coroutine) or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED


if TYPE_CHECKING:
    _: type[Worker] = SteppedWorker
