"""Cancelling `allocate` at any moment: no port leaks, nothing is half recorded, and what another call got it keeps.

`stepped` runs a call and cancels it when it is suspended for the n-th time; a test goes through n = 1, 2, ... until the
call ends before that. Where the moment depends on the disk, the journal's gate decides it.
"""

import asyncio

import anyio
import pytest
import structlog
from anyio.lowlevel import checkpoint

from portfsm import EventKind, OutcomeUnknown, PoolSpec, PortState
from tests.cancellation.undone import UNDONE, batches, undone
from tests.tasks import Call, a_few_ticks, at_each_step, stepped

pytestmark = pytest.mark.anyio


async def test_a_cancelled_allocate_leaks_its_port(fresh):
    async def attempt(step):
        journal, context = fresh()
        async with context as manager:
            with anyio.CancelScope() as scope:
                lease = await stepped(manager.allocate("http", owner="r1"), step, scope.cancel)
            if not scope.cancelled_caught:
                assert manager.find("r1") == (lease,)
                assert manager.port("http", lease.port).token == lease.token
            else:
                await undone(manager, journal, "r1")
            return scope.cancel_called

    await at_each_step(attempt)


@pytest.mark.parametrize("ahead", [0, 1], ids=["in flight", "behind another batch"])
@pytest.mark.parametrize("ticks", [0, 1, 2, 5])
async def test_a_port_leaks_that_was_on_its_way_to_disk(fresh, ahead, ticks):
    journal, context = fresh()
    async with context as manager, anyio.create_task_group() as tasks:
        journal.hold()
        if ahead:
            Call(tasks, manager.block("http", 30003, reason="x"))
            await journal.held()
        call = Call(tasks, manager.allocate("http", owner="r1"))
        if not ahead:
            await journal.held()
        await a_few_ticks(ticks)
        call.scope.cancel()
        await a_few_ticks()
        assert manager.find("r1") == ()
        journal.let_go()
        await manager.release_owner("nobody")
        assert manager.find("r1") == ()
        assert manager.statistics("http").allocated == 0
        flat = [kind for batch in batches(journal, "r1") for kind in batch]
        assert flat == ["allocated:", *UNDONE] or (ticks < 5 and flat == [])


async def test_a_port_leaks_when_the_cancellation_comes_with_the_sync(fresh):
    """The event has just become durable and its caller has not run since: cancelled there, it is undone or returned."""
    journal, context = fresh()
    async with context as manager:
        with anyio.CancelScope() as scope:

            def cancel_when_recorded(_logger, _name, line):
                if line["event"] == "portfsm.allocated":
                    scope.cancel()
                raise structlog.DropEvent

            structlog.configure(processors=[cancel_when_recorded])
            try:
                await manager.allocate("http", owner="r1")
            finally:
                structlog.reset_defaults()
        assert scope.cancel_called
        if scope.cancelled_caught:
            await undone(manager, journal, "r1")
        else:
            assert manager.find("r1")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_leaks_a_port(fresh):
    async def attempt(step):
        journal, context = fresh()
        async with context as manager:

            async def call():
                task = asyncio.current_task()
                return await stepped(manager.allocate("http", owner="r1"), step, task.cancel)

            task = asyncio.create_task(call())
            await asyncio.wait([task])
            if task.cancelled():
                await undone(manager, journal, "r1")
            else:
                assert manager.find("r1") == (task.result(),)
            return task.cancelled()

    await at_each_step(attempt)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_leaks_a_port_whose_event_is_durable(fresh):
    """`task.cancel()` reaches a task whose wait is over and that has not run since."""
    journal, context = fresh()
    async with context as manager:
        task = asyncio.create_task(manager.allocate("http", owner="r1"))

        def cancel_when_recorded(_logger, _name, line):
            if line["event"] == "portfsm.allocated":
                asyncio.get_running_loop().call_soon(task.cancel)
            raise structlog.DropEvent

        structlog.configure(processors=[cancel_when_recorded])
        try:
            await asyncio.wait([task])
        finally:
            structlog.reset_defaults()
        if task.cancelled():
            await undone(manager, journal, "r1")
        else:
            assert manager.find("r1") == (task.result(),)


async def test_a_cancelled_reuse_ends_or_restarts_the_hold_of_before(fresh, clock):
    """The port was taken out of a quarantine by the service it was held for: that quarantine goes on as if nothing had been."""

    async def attempt(step):
        journal, context = fresh()
        async with context as manager:
            await manager.release(await manager.allocate("http", owner="old", service="s"))
            until = manager.port("http", 30000).until
            clock.advance(4)
            with anyio.CancelScope() as scope:
                await stepped(manager.allocate("http", owner="new", service="s"), step, scope.cancel)
            await manager.release_owner("nobody")
            if scope.cancelled_caught:
                view = manager.port("http", 30000)
                assert (view.state, view.until, view.service) == (PortState.QUARANTINED, until, "s")
                assert not any(event.kind is EventKind.FREED for events in journal.appends for event in events)
                clock.advance(6)
                assert (await manager.allocate("http", owner="x", service="other", port=30000)).port == 30000
            return scope.cancel_called

    await at_each_step(attempt)


async def test_cancelling_one_caller_takes_the_port_from_another_of_the_same_owner(fresh):
    async def attempt(step):
        journal, context = fresh()
        async with context as manager, anyio.create_task_group() as tasks:
            journal.hold()
            cancelled = Call(tasks, manager.allocate("http", owner="r1"), step)
            others = [Call(tasks, manager.allocate("http", owner="r1", wait_s=wait_s)) for wait_s in (0, None)]
            await a_few_ticks()
            journal.let_go()
            await manager.release_owner("nobody")
            await a_few_ticks()
            assert others[0].result == others[1].result
            assert manager.find("r1") == (others[0].result,)
            return cancelled.scope.cancel_called

    await at_each_step(attempt)


@pytest.mark.parametrize("order", ["first", "last"])
async def test_the_last_caller_of_an_owner_leaves_the_port_behind(fresh, order):
    journal, context = fresh()
    async with context as manager, anyio.create_task_group() as tasks:
        journal.hold()
        calls = [Call(tasks, manager.allocate("http", owner="r1")) for _ in range(3)]
        await journal.held()
        for call in calls if order == "first" else calls[::-1]:
            call.scope.cancel()
            await a_few_ticks()
        journal.let_go()
        await undone(manager, journal, "r1")


async def test_a_lease_that_a_live_owner_adopted_is_taken_back(fresh):
    """While `allocate` is on its way to disk the owner proves that it uses the port; then `allocate` is cancelled."""
    journal, context = fresh()
    async with context as manager, anyio.create_task_group() as tasks:
        journal.hold()
        call = Call(tasks, manager.allocate("http", owner="r1"))
        await journal.held()
        adopted = Call(tasks, manager.adopt("http", 30000, owner="r1"))
        await a_few_ticks()
        call.scope.cancel()
        await a_few_ticks()
        journal.let_go()
        await manager.release_owner("nobody")
        await a_few_ticks()
        assert adopted.result is not None
        assert manager.find("r1") == (adopted.result,)


async def test_a_cancelled_lease_that_was_blocked_meanwhile_is_released_from_its_block(fresh):
    journal, context = fresh()
    async with context as manager, anyio.create_task_group() as tasks:
        journal.hold()
        call = Call(tasks, manager.allocate("http", owner="r1"))
        await journal.held()
        Call(tasks, manager.block("http", 30000, reason="x"))
        await a_few_ticks()
        call.scope.cancel()
        await a_few_ticks()
        journal.let_go()
        await manager.release_owner("nobody")
        assert manager.port("http", 30000).state is PortState.BLOCKED


async def test_a_cancelled_waiter_leaks_the_port_it_was_just_given(fresh):
    """All suspensions of a call that queues up, is served, and waits for the disk; another waits behind it."""

    async def attempt(step):
        journal, context = fresh(None, PoolSpec("http", ports="1", hold_s=0))
        async with context as manager, anyio.create_task_group() as tasks:
            lease = await manager.allocate("http", owner="holder")
            call = Call(tasks, manager.allocate("http", owner="r1", wait_s=None), step)
            await a_few_ticks()
            behind = Call(tasks, manager.allocate("http", owner="behind", wait_s=None))
            await a_few_ticks()
            await manager.release(lease)
            with anyio.fail_after(30):
                while not (call.scope.cancelled_caught or call.result):
                    await checkpoint()
            if call.result:
                await manager.release(call.result)
            await manager.release_owner("nobody")
            await a_few_ticks()
            assert manager.find("behind") == (behind.result,)
            assert all(event.cause != "cancelled" or event.owner == "r1" for events in journal.appends for event in events)
            return call.scope.cancel_called

    await at_each_step(attempt)


async def test_a_port_leaks_that_was_cancelled_while_the_manager_is_left(fresh):
    """Leaving waits for the disk; a call cancelled meanwhile still gives its port back before the log is closed."""
    journal, context = fresh()
    async with anyio.create_task_group() as tasks:

        async def meanwhile(call):
            await journal.held()
            call.scope.cancel()
            await a_few_ticks()
            journal.let_go()

        async with context as manager:
            journal.hold()
            call = Call(tasks, manager.allocate("http", owner="r1"))
            await journal.held()
            tasks.start_soon(meanwhile, call)
    kinds = [f"{event.kind}:{event.cause}" for events in journal.appends for event in events]
    assert kinds[-4:] == ["allocated:", *UNDONE, "closed:"]


async def test_nobody_hears_of_a_lease_that_could_not_be_undone(fresh, told):
    """The journal has failed: the port cannot be given back, and somebody should know."""
    journal, context = fresh()
    async with context as manager:
        journal.hold()
        journal.fail(RuntimeError("gone"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_fail_to_allocate, manager)
            await journal.held()
            journal.let_go()
    assert [line["owner"] for line in told if line["event"] == "portfsm.lease_unreleased"] == ["r1"]


async def _fail_to_allocate(manager):
    with pytest.raises(OutcomeUnknown, match="gone"):
        await manager.allocate("http", owner="r1")
