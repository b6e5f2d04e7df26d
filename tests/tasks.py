"""Tasks beside a test: giving them their turns, keeping what comes of their calls, cancelling a call at each of its steps."""

from __future__ import annotations

import threading
import types

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import PortfsmError

TICKS = 10
LIMIT = 60


async def a_few_ticks(count=TICKS):
    """Longer than any task here runs before it waits for something else than its turn."""
    for _ in range(count):
        await checkpoint()


def writers():
    """The threads that write journals."""
    return [thread for thread in threading.enumerate() if thread.name == "portfsm-writer"]


class Callers:
    """Calls that run beside the test, what came of each (an error, too), and in which order they ended."""

    def __init__(self, manager, tasks):
        self.manager, self.tasks = manager, tasks
        self.got, self.order, self.scopes = {}, [], {}

    async def begin(self, name, call):
        """Start a call and let it get as far as it can."""
        self.tasks.start_soon(self._run, name, call)
        await a_few_ticks()

    async def _run(self, name, call):
        with anyio.CancelScope() as self.scopes[name]:
            try:
                self.got[name] = await call
            except PortfsmError as error:
                self.got[name] = error
            self.order.append(name)

    @property
    def served(self):
        """Who got what they asked for, in that order."""
        return [name for name in self.order if not isinstance(self.got[name], PortfsmError)]

    async def settled(self):
        """Everything that can run has run, and everything decided is durable: releasing nothing waits for just that."""
        for _ in range(3):
            await a_few_ticks()
            await self.manager.release_owner("nobody")
        await a_few_ticks()

    async def arrived(self, *names):
        """Wait until these calls are over."""
        with anyio.fail_after(30):
            while not all(name in self.got for name in names):
                await checkpoint()


@types.coroutine
def stepped(coroutine, at, cancel):
    """Await `coroutine`; at its `at`-th suspension call `cancel`."""
    steps, resume, value = 0, coroutine.send, None
    while True:
        try:
            trap = resume(value)
        except StopIteration as stop:
            return stop.value
        steps += 1
        if steps == at:
            cancel()
        try:
            value, resume = (yield trap), coroutine.send
        except BaseException as error:
            value, resume = error, coroutine.throw


async def at_each_step(attempt):
    """`await attempt(n)` for n = 1, 2, ... until it says that the call was over before its n-th suspension."""
    for step in range(1, LIMIT):
        if not await attempt(step):
            assert step > 1, "the call has no checkpoint at all"
            return
    pytest.fail(f"the call is still suspended {LIMIT} times")


class Call:
    """A call in a task and a scope of its own, cancelled at its `step`-th suspension, or from outside."""

    def __init__(self, tasks, coroutine, step=0):
        self.scope = anyio.CancelScope()
        self.result = None
        tasks.start_soon(self._run, coroutine, step)

    async def _run(self, coroutine, step):
        with self.scope:
            self.result = await stepped(coroutine, step, self.scope.cancel)
