"""Cancelling the other calls at any moment, the opening and the leaving too. How: see `test_allocate`."""

import asyncio
import threading

import anyio
import pytest

from portfsm import EventKind, PoolSpec, open_manager
from portfsm.testing import GatedJournal
from tests.tasks import LIMIT, a_few_ticks, at_each_step, stepped, writers

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- the other calls


CALLS = {
    "release": lambda manager, lease: manager.release(lease),
    "release, block": lambda manager, lease: manager.release(lease, block="x"),
    "withdraw": lambda manager, lease: manager.withdraw(lease),
    "release_owner": lambda manager, lease: manager.release_owner("held"),
    "adopt": lambda manager, lease: manager.adopt("http", 30002, owner="live"),
    "block": lambda manager, lease: manager.block("http", lease.port, reason="x"),
    "unblock": lambda manager, lease: manager.unblock("http", 30003),
    "hold": lambda manager, lease: manager.hold("http", 30001, hold_s=5),
    "free": lambda manager, lease: manager.free("http", 30001, reason="x"),
    "sweep": lambda manager, lease: manager.sweep(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_cancelled_call_is_half_recorded(fresh, clock, name):
    """It is recorded whole or not at all, and repeating it brings the same state as if it had not been cancelled."""

    async def run(step):
        journal, context = fresh()
        async with context as manager:
            lease = await manager.allocate("http", owner="held")
            await manager.hold("http", 30001, hold_s=1)
            await manager.block("http", 30003, reason="before")
            clock.advance(2)
            before = len(journal.appends)
            with anyio.CancelScope() as scope:
                await stepped(CALLS[name](manager, lease), step, scope.cancel)
            await manager.release_owner("nobody")
            assert len(journal.appends) <= before + 1
            await CALLS[name](manager, lease)
            return scope.cancel_called, [(view.port, view.state) for view in manager.ports()]

    _, expected = await run(LIMIT)

    async def attempt(step):
        cancelled, state = await run(step)
        assert state == expected
        return cancelled

    await at_each_step(attempt)


@pytest.mark.parametrize("inside", [0, 1, 3])
async def test_a_cancelled_lease_block_keeps_its_port(fresh, inside):
    async def use(manager):
        async with manager.lease("http", owner="r1"):
            await a_few_ticks(inside)

    async def attempt(step):
        _, context = fresh(None, PoolSpec("http", ports="1-4", hold_s=0))
        async with context as manager:
            with anyio.CancelScope() as scope:
                await stepped(use(manager), step, scope.cancel)
            await manager.release_owner("nobody")
            assert manager.statistics("http").free == 4
            return scope.cancel_called

    await at_each_step(attempt)


async def test_a_cancelled_watch_loses_an_event(log, clock, pool):
    """Cancelled at any suspension, the next `anext` goes on where the last event was: from memory, and from the log."""
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        for number in range(3):
            await manager.allocate("http", owner=f"r{number}")
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        watch = manager.watch(after=0)
        seen = []
        for step in [1, 2, 3, 4, 5, 6] * 20:
            if len(seen) == manager.seq:
                await manager.release_owner(f"r{len(seen) % 3}")
                await manager.hold("http", 30003, hold_s=step + len(seen) * 10)
            with anyio.CancelScope() as scope:
                seen.append(await stepped(anext(watch), step, scope.cancel))
        with anyio.move_on_after(30):
            while len(seen) < manager.seq:
                seen.append(await anext(watch))
        assert seen == log.events()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_natively_cancelled_watch_loses_an_event(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        await manager.allocate("http", owner="r1")
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        watch = manager.watch(after=0)
        seen = []
        for step in [1, 2, 3, 4] * 10:

            async def call(step=step):
                return await stepped(anext(watch), step, asyncio.current_task().cancel)

            if len(seen) < manager.seq:
                task = asyncio.create_task(call())
                await asyncio.wait([task])
                if not task.cancelled():
                    seen.append(task.result())
        while len(seen) < manager.seq:
            seen.append(await anext(watch))
        assert seen == log.events()


# ---------------------------------------------------------------------- opening and leaving


async def test_a_cancelled_opening_keeps_the_lock_or_the_thread(log, clock, pool):
    async def use(journal):
        async with open_manager(journal, pools=[pool], clock=clock) as manager:
            await manager.allocate("http", owner="r1")

    async def attempt(step):
        with anyio.CancelScope() as scope:
            await stepped(use(log.handle()), step, scope.cancel)
        assert writers() == []
        async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
            log.check(manager)
            await manager.release_owner("r1")
        return scope.cancel_called

    await at_each_step(attempt)


class SlowToOpen(GatedJournal):
    """Opening takes until the test says so."""

    def __init__(self):
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def open(self, holder):
        self.begun.set()
        assert self.go.wait(60)
        return super().open(holder)


async def test_a_log_opened_after_its_caller_was_cancelled_stays_open(clock, pool):
    journal = SlowToOpen()

    async def release_later():
        await anyio.to_thread.run_sync(journal.begun.wait)
        scope.cancel()
        await a_few_ticks()
        journal.go.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(release_later)
        with anyio.CancelScope() as scope:
            async with open_manager(journal, pools=[pool], clock=clock):
                pytest.fail("it was cancelled")
    assert journal.closed == 1
    assert writers() == []
    async with open_manager(journal, pools=[pool], clock=clock) as manager:
        await manager.allocate("http", owner="r1")


async def test_cancelling_while_leaving_loses_the_closing(fresh):
    """The cancellation comes while `closed` is on its way: the log is closed all the same, and nobody is left behind."""
    journal, context = fresh()
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def meanwhile():
            await journal.held()
            scope.cancel()
            await a_few_ticks()
            journal.let_go()

        with scope:
            async with context as manager:
                await manager.allocate("http", owner="r1")
                journal.hold()
                tasks.start_soon(meanwhile)
    assert scope.cancel_called
    assert [event.kind for events in journal.appends for event in events][-1] is EventKind.CLOSED
    assert journal.closed == 1
    assert writers() == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_timeout_around_the_block_ends_in_another_error(fresh):
    _, context = fresh()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), context:
            await asyncio.Event().wait()
    assert writers() == []
