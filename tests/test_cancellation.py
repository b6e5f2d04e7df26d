"""Cancelling any call at any moment: no port leaks, nothing is half recorded, and what another call got it keeps.

`stepped` runs a call and cancels it when it is suspended for the n-th time; every test goes through n = 1, 2, ... until the
call ends before that. Where the moment depends on the disk, the journal's gate decides it.
"""

import asyncio
import threading
import types

import anyio
import pytest
import structlog
from anyio.lowlevel import checkpoint

from portfsm import EventKind, OutcomeUnknown, PoolSpec, PortState, open_manager
from portfsm.testing import GatedJournal

pytestmark = pytest.mark.anyio

TICKS = 10
LIMIT = 60


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


async def a_few_ticks(count=TICKS):
    for _ in range(count):
        await checkpoint()


class Call:
    """A call in a task and a scope of its own, cancelled at its `step`-th suspension, or from outside."""

    def __init__(self, tasks, coroutine, step=0):
        self.scope = anyio.CancelScope()
        self.result = None
        tasks.start_soon(self._run, coroutine, step)

    async def _run(self, coroutine, step):
        with self.scope:
            self.result = await stepped(coroutine, step, self.scope.cancel)


@pytest.fixture
def fresh(clock, pool):
    """A manager on a new log each time."""

    def make(journal=None, *pools):
        journal = journal or GatedJournal()
        return journal, open_manager(journal, pools=pools or [pool], clock=clock, close_s=5)  # should a test fail with its gate closed

    return make


def batches(journal, owner):
    """For each append that has to do with `owner`: what it recorded."""
    ports = {event.port for events in journal.appends for event in events if event.owner == owner}
    found = [[f"{event.kind}:{event.cause}" for event in events if event.port in ports and event.port] for events in journal.appends]
    return [batch for batch in found if batch]


UNDONE = ["released:cancelled", "freed:elapsed"]


async def undone(manager, journal, owner):
    """The call was cancelled: nothing of it is left, and what was recorded was undone in one batch."""
    await manager.release_owner("nobody")  # waits for all that was decided
    assert manager.find(owner) == ()
    assert manager.statistics().free == manager.statistics().size
    found = batches(journal, owner)
    flat = [kind for batch in found for kind in batch]
    assert flat in ([], ["allocated:", *UNDONE])
    if flat:
        assert found[-1][-2:] == UNDONE


# ---------------------------------------------------------------------- allocate


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


def writers():
    return [thread for thread in threading.enumerate() if thread.name == "portfsm-writer"]


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
