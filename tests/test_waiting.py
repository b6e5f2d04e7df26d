"""Calls that wait for a port: who is served, when, and by what. Time moves by hand alone."""

import random

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import (
    EventKind,
    InvalidValue,
    JournalFull,
    ManagerClosed,
    OutcomeUnknown,
    OwnerConflict,
    PoolExhausted,
    PoolSpec,
    PortfsmError,
    PortState,
    PortUnavailable,
    open_manager,
)

pytestmark = pytest.mark.anyio

ONE = PoolSpec("one", ports="1000", hold_s=10.0)
FREE_AT_ONCE = PoolSpec("fast", ports="2000-2001", hold_s=0)


@pytest.fixture
def opened(memory_log, clock):
    def make(*pools, journal=None):
        return open_manager(journal or memory_log.handle(), pools=pools or [ONE, FREE_AT_ONCE], clock=clock)

    return make


class Callers:
    """Calls of `allocate` that run beside the test, and what came of each, in the order in which they were served."""

    def __init__(self, manager, tasks):
        self.manager, self.tasks = manager, tasks
        self.got = {}
        self.order = []
        self.scopes = {}

    async def start(self, name, pool="one", *, wait_s=None, **request):
        """Start a call and let it get as far as it can."""
        self.tasks.start_soon(self._call, name, pool, wait_s, {"owner": name, **request})
        await a_few_ticks()

    async def _call(self, name, pool, wait_s, request):
        with anyio.CancelScope() as scope:
            self.scopes[name] = scope
            try:
                self.got[name] = await self.manager.allocate(pool, wait_s=wait_s, **request)
            except PortfsmError as error:
                self.got[name] = error
            self.order.append(name)


@pytest.fixture
def callers(opened):
    """A manager, a task group and calls; whoever still waits at the end is cancelled."""

    class Context:
        def __init__(self, *pools, journal=None):
            self.context = opened(*pools, journal=journal)

        async def __aenter__(self):
            self.tasks = anyio.create_task_group()
            self.manager = await self.context.__aenter__()
            await self.tasks.__aenter__()
            return Callers(self.manager, self.tasks)

        async def __aexit__(self, *error):
            self.tasks.cancel_scope.cancel()
            try:
                await self.tasks.__aexit__(*error)
            finally:
                await self.context.__aexit__(*error)

    return Context


TICKS = 10


async def a_few_ticks():
    """Longer than any task here runs before it waits for something else than its turn."""
    for _ in range(TICKS):
        await checkpoint()


async def settled(callers):
    """Everything that can run has run, and everything decided is durable: releasing nothing waits for just that."""
    for _ in range(2):
        await a_few_ticks()
        await callers.manager.release_owner("nobody")
    await a_few_ticks()


async def arrived(callers, *names):
    """Wait until these calls are over."""
    with anyio.fail_after(30):
        while not all(name in callers.got for name in names):
            await checkpoint()


# ---------------------------------------------------------------------- who is served


async def test_a_later_caller_is_served_first(callers, memory_log):
    async with callers(PoolSpec("one", ports="1000", hold_s=0)) as waiting:
        lease = await waiting.manager.allocate("one", owner="holder")
        names = [f"w{number}" for number in range(50)]
        for name in names:
            await waiting.start(name)
        for place, name in enumerate(names):
            assert waiting.order == names[:place]
            await waiting.manager.release(lease)
            await arrived(waiting, name)
            lease = waiting.got[name]
        await settled(waiting)
        assert waiting.order == names
        memory_log.check(waiting.manager)


async def test_a_caller_who_does_not_wait_overtakes(callers):
    async with callers(PoolSpec("two", ports="1-2", hold_s=10)) as waiting:
        lease = await waiting.manager.allocate("two", owner="a")
        await waiting.manager.allocate("two", owner="b")
        await waiting.start("first", "two")
        await waiting.manager.release(lease)  # quarantined for "a"
        for request in ({"owner": "x"}, {"owner": "a"}):
            with pytest.raises(PoolExhausted):  # even "a", who could have its port back: it is behind "first"
                await waiting.manager.allocate("two", **request)
        assert "first" not in waiting.got


async def test_waiters_in_one_place_hold_up_another(callers):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("w")
        assert (await waiting.manager.allocate("one", owner="b", node="elsewhere")).port == 1000
        assert (await waiting.manager.allocate("fast", owner="b")).port == 2000


async def test_a_port_is_promised_to_two(callers, memory_log):
    async with callers() as waiting:
        first = await waiting.manager.allocate("fast", owner="a")
        second = await waiting.manager.allocate("fast", owner="b")
        for name in ("w1", "w2", "w3"):
            await waiting.start(name, "fast")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.manager.release, first)
            tasks.start_soon(waiting.manager.release, second)
        await arrived(waiting, "w1", "w2")
        await settled(waiting)
        assert {waiting.got["w1"].port, waiting.got["w2"].port} == {2000, 2001}
        assert "w3" not in waiting.got
        memory_log.check(waiting.manager)


async def test_a_waiter_for_one_number_takes_another(callers):
    async with callers() as waiting:
        a, b = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("picky", "fast", port=2001)
        await waiting.start("any", "fast")
        await waiting.manager.release(a)
        await arrived(waiting, "any")
        assert waiting.got["any"].port == 2000
        assert "picky" not in waiting.got
        await waiting.manager.release(b)
        await arrived(waiting, "picky")
        assert waiting.got["picky"].port == 2001


async def test_a_waiter_for_one_number_loses_it_to_one_who_came_later(callers):
    async with callers() as waiting:
        _, b = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("picky", "fast", port=2001)
        await waiting.start("any", "fast")
        await waiting.manager.release(b)
        await arrived(waiting, "picky")
        await settled(waiting)
        assert waiting.got["picky"].port == 2001
        assert "any" not in waiting.got


async def test_the_first_in_line_is_passed_over_for_one_who_wants_its_number(callers):
    async with callers() as waiting:
        _, b = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("any", "fast")
        await waiting.start("picky", "fast", port=2001)
        await waiting.manager.release(b)
        await arrived(waiting, "any")
        await settled(waiting)
        assert waiting.got["any"].port == 2001
        assert "picky" not in waiting.got


async def test_two_calls_of_one_owner_get_two_ports(callers, memory_log):
    async with callers() as waiting:
        a, _ = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("w1", "fast", owner="twin")
        await waiting.start("between", "fast")
        await waiting.start("w2", "fast", owner="twin")
        await waiting.manager.release(a)
        await arrived(waiting, "w1", "w2")
        await settled(waiting)
        assert waiting.got["w1"] == waiting.got["w2"]
        assert "between" not in waiting.got
        assert [event.owner for event in memory_log.events() if event.kind is EventKind.ALLOCATED].count("twin") == 1


async def test_the_answer_to_an_owners_second_call_is_kept_from_its_first(callers):
    """Its first call stands behind a stranger; its second wants the number that is kept for it, and is served out of turn."""
    async with callers(PoolSpec("two", ports="1-2", hold_s=10)) as waiting:
        lease = await waiting.manager.allocate("two", owner="twin")
        await waiting.manager.allocate("two", owner="b")
        await waiting.start("stranger", "two")
        await waiting.manager.release(lease)  # quarantined for "twin"
        await waiting.start("first", "two", owner="twin")
        await waiting.start("second", "two", owner="twin", port=lease.port)
        await arrived(waiting, "first", "second")
        assert waiting.got["first"] == waiting.got["second"]
        assert "stranger" not in waiting.got


async def test_a_waiting_owner_that_adopts_a_port_goes_on_waiting(callers):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("first")
        await waiting.start("w", owner="live")
        lease = await waiting.manager.adopt("one", 5000, owner="live")
        await arrived(waiting, "w")
        assert waiting.got["w"] == lease
        assert "first" not in waiting.got


async def test_a_waiter_whose_owner_got_a_port_for_another_service_waits_for_ever(callers):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("w", owner="live", service="s1")
        await waiting.manager.adopt("one", 5000, owner="live", service="s2")
        await arrived(waiting, "w")
        assert isinstance(waiting.got["w"], OwnerConflict)


async def test_a_service_waits_for_its_own_quarantined_port(callers):
    async with callers() as waiting:
        lease = await waiting.manager.allocate("one", owner="old", service="s")
        await waiting.start("w", service="s")
        await waiting.manager.release(lease)
        await arrived(waiting, "w")
        assert waiting.got["w"].port == 1000


# ---------------------------------------------------------------------- when


async def test_a_due_port_wakes_nobody(callers, clock):
    """Claims that waited on an empty pool were never woken (cluster-api-ipam-provider-in-cluster#179).

    No call is made after the release: only time passes.
    """
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="a"))
        await waiting.start("w")
        clock.advance(9.999_999_999)
        await settled(waiting)
        assert "w" not in waiting.got
        clock.advance(0.000_000_001)
        await arrived(waiting, "w")
        assert waiting.got["w"].port == 1000


async def test_the_timer_sleeps_for_the_first_hold_and_misses_an_earlier_one(callers, clock):
    pools = PoolSpec("long", ports="1", hold_s=100), PoolSpec("short", ports="2", hold_s=1)
    async with callers(*pools) as waiting:
        for spec in pools:
            await waiting.manager.release(await waiting.manager.allocate(spec.name, owner="a"))
            await waiting.start(f"w-{spec.name}", spec.name)
        clock.advance(1)
        await arrived(waiting, "w-short")
        clock.advance(99)
        await arrived(waiting, "w-long")


async def test_a_hold_begun_while_somebody_waits_is_not_noticed(callers, clock):
    async with callers() as waiting:
        lease = await waiting.manager.allocate("one", owner="a")
        await waiting.start("w")
        await waiting.manager.release(lease)
        await settled(waiting)
        clock.advance(10)
        await arrived(waiting, "w")


async def test_a_blocks_end_is_not_noticed(callers, clock):
    """The block ends, a full hold follows, and the waiter is served at its end; nobody makes a call."""
    async with callers() as waiting:
        await waiting.manager.block("one", 1000, reason="x", for_s=5)
        await waiting.start("w")
        clock.advance(5)
        await settled(waiting)
        assert waiting.manager.port("one", 1000).state is PortState.QUARANTINED
        clock.advance(9.9)
        await settled(waiting)
        assert "w" not in waiting.got
        clock.advance(0.1)
        await arrived(waiting, "w")


async def test_a_due_port_that_nobody_wants_stops_the_loop(callers, clock):
    """A waiter for one number, and another port falls due: it must be noticed once, not looked at without end."""
    async with callers() as waiting:
        await waiting.manager.allocate("fast", owner="a", port=2001)
        await waiting.manager.hold("fast", 2000, hold_s=1)
        await waiting.start("w", "fast", port=2001, wait_s=100)
        clock.advance(2)
        with anyio.fail_after(30):
            await settled(waiting)
        assert waiting.manager.port("fast", 2000).state is PortState.FREE
        clock.advance(98)
        await arrived(waiting, "w")
        assert isinstance(waiting.got["w"], PortUnavailable)


async def test_more_ports_fall_due_than_one_sweep_takes(callers, clock):
    spec = PoolSpec("wide", ports="10000-15999", hold_s=1)
    async with callers(spec) as waiting:
        for port in range(10000, 16000):
            waiting.tasks.start_soon(_hold, waiting.manager, port)
        with anyio.fail_after(60):
            while waiting.manager.statistics("wide").quarantined < 6000:
                await checkpoint()
        await waiting.start("w", "wide", port=15999)
        clock.advance(1)
        await arrived(waiting, "w")


async def _hold(manager, port):
    await manager.hold("wide", port, hold_s=1)


@pytest.mark.parametrize("wait_s", [0.5, 1, 9.9])
async def test_a_call_waits_longer_than_it_said(callers, clock, wait_s):
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="a"))
        await waiting.start("w", wait_s=wait_s)
        clock.advance(wait_s - 0.001)
        await settled(waiting)
        assert "w" not in waiting.got
        clock.advance(0.001)
        await arrived(waiting, "w")
        assert isinstance(waiting.got["w"], PoolExhausted)
        assert waiting.got["w"].counts["QUARANTINED"] == 1
        clock.advance(10)
        assert (await waiting.manager.allocate("one", owner="next")).port == 1000


async def test_a_port_that_falls_due_at_the_deadline_is_refused(callers, clock):
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="a"))
        await waiting.start("w", wait_s=10)
        clock.advance(10)
        await arrived(waiting, "w")
        assert waiting.got["w"].port == 1000


async def test_deadlines_come_in_the_order_of_the_queue(callers, clock):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        for name, wait_s in (("slow", 30), ("quick", 10), ("patient", None), ("middle", 20)):
            await waiting.start(name, wait_s=wait_s)
        for name in ("quick", "middle", "slow"):
            clock.advance(10)
            await arrived(waiting, name)
        assert waiting.order == ["quick", "middle", "slow"]


async def test_the_wall_clock_decides_how_long_a_call_waits(callers, clock):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("w", wait_s=60)
        clock.step_wall(3600)
        clock.advance(59)
        await settled(waiting)
        assert "w" not in waiting.got
        clock.step_wall(-7200)
        clock.advance(1)
        await arrived(waiting, "w")


@pytest.mark.parametrize("wait_s", [-1, float("nan"), float("inf"), "10", True])
async def test_a_nonsensical_wait_is_taken(opened, memory_log, wait_s):
    async with opened() as manager:
        seq = manager.seq
        with pytest.raises(InvalidValue, match="wait_s"):
            await manager.allocate("one", owner="a", wait_s=wait_s)
        assert manager.seq == seq


async def test_not_waiting_leaves_the_call_in_line(callers, clock):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("first")
        with pytest.raises(PoolExhausted):
            await waiting.manager.allocate("one", owner="b")
        await waiting.manager.release_owner("a")
        clock.advance(10)
        await arrived(waiting, "first")
        with pytest.raises(PoolExhausted):
            await waiting.manager.allocate("one", owner="c")


# ---------------------------------------------------------------------- leaving the line


async def test_a_cancelled_waiter_takes_a_port_with_it(callers, clock, memory_log):
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="a"))
        for name in ("w1", "w2", "w3"):
            await waiting.start(name)
        waiting.scopes["w1"].cancel()
        await settled(waiting)
        clock.advance(10)
        await arrived(waiting, "w2")
        assert waiting.got["w2"].port == 1000
        assert memory_log.kinds() == ["allocated", "released", "freed", "allocated"]


async def test_who_waits_behind_a_cancelled_one_is_forgotten(callers):
    """What the second could have had all along (its service's own port) it gets when the first goes away."""
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="old", service="s2"))
        await waiting.start("first", service="s1")
        await waiting.start("second", service="s2")
        assert "second" not in waiting.got
        waiting.scopes["first"].cancel()
        await arrived(waiting, "second")


async def test_who_waits_behind_one_whose_time_is_up_is_forgotten(callers, clock):
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="old", service="s2"))
        await waiting.start("first", service="s1", wait_s=1)
        await waiting.start("second", service="s2")
        clock.advance(1)
        await arrived(waiting, "first", "second")
        assert isinstance(waiting.got["first"], PoolExhausted)
        assert waiting.got["second"].port == 1000


async def test_cancelled_just_after_it_was_served_it_keeps_the_port(callers, memory_log):
    async with callers(PoolSpec("one", ports="1000", hold_s=0)) as waiting:
        lease = await waiting.manager.allocate("one", owner="a")
        await waiting.start("w1")
        await waiting.start("w2")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.manager.release, lease)
            await checkpoint()  # w1 has its port and has not run since
            waiting.scopes["w1"].cancel()
        await arrived(waiting, "w2")
        memory_log.check(waiting.manager)
        assert [found.owner for name in ("w1", "w2") for found in waiting.manager.find(name)] == ["w2"]


async def test_leaving_keeps_waiters_waiting(opened):
    errors = []

    async def wait(manager, wait_s):
        try:
            await manager.allocate("one", owner=f"w{wait_s}", wait_s=wait_s)
        except ManagerClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks, opened() as manager:
        await manager.allocate("one", owner="a")
        for wait_s in (None, 5, 1000):
            tasks.start_soon(wait, manager, wait_s)
        await a_few_ticks()
    assert len(errors) == 3


async def test_a_failing_journal_keeps_waiters_waiting(callers, memory_log):
    journal = memory_log.gated()
    broken = OutcomeUnknown("the disk is gone", path="x", errno=5)
    async with callers(journal=journal) as waiting:
        lease = await waiting.manager.allocate("one", owner="a")
        for name in ("w1", "w2"):
            await waiting.start(name, wait_s=100)
        journal.fail(broken)
        with pytest.raises(OutcomeUnknown):
            await waiting.manager.release(lease)
        await arrived(waiting, "w1", "w2")
        assert waiting.got["w1"] is waiting.got["w2"] is broken


async def test_a_disk_that_fills_up_keeps_waiters_waiting(callers, memory_log):
    journal = memory_log.gated()
    async with callers(journal=journal) as waiting:
        leases = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("w", "fast")
        journal.full = True
        await waiting.manager.release(leases[0])
        await arrived(waiting, "w")
        assert isinstance(waiting.got["w"], JournalFull)


# ---------------------------------------------------------------------- all of it at random


class Crowd:
    """Callers who come, wait, give up and give back as `chance` has it."""

    def __init__(self, waiting, chance):
        self.waiting, self.chance = waiting, chance

    async def come(self, name):
        request = {"service": self.chance.choice(["", "s1", "s2"])}
        if self.chance.random() < 0.2:
            request["port"] = self.chance.randint(1, 5)
        await self.waiting.start(name, "crowd", wait_s=self.chance.choice([None, None, 0, 3]), **request)

    async def give_back(self, *, likely):
        for name, got in list(self.waiting.got.items()):
            if not isinstance(got, Exception) and self.chance.random() < likely:
                await self.waiting.manager.release(got)
                del self.waiting.got[name]

    def give_up(self):
        if self.chance.random() < 0.2:
            self.waiting.scopes[self.chance.choice(list(self.waiting.scopes))].cancel()

    @property
    def waits(self):
        scopes, order = self.waiting.scopes, self.waiting.order
        return [name for name, scope in scopes.items() if name not in order and not scope.cancel_called]


@pytest.mark.parametrize("seed", range(8))
async def test_a_random_crowd_loses_a_port_or_a_caller(callers, clock, memory_log, seed):
    """At the end each has its answer, no port is lost, and what was shown was always what the log says."""
    chance = random.Random(seed)
    async with callers(PoolSpec("crowd", ports="1-5", hold_s=2)) as waiting:
        crowd = Crowd(waiting, chance)
        for number in range(120):
            await crowd.come(f"c{number}")
            await crowd.give_back(likely=0.5)
            crowd.give_up()
            if chance.random() < 0.5:
                clock.advance(chance.random() * 3)
            memory_log.check(waiting.manager)
        for _ in range(200):
            await crowd.give_back(likely=1)
            clock.advance(3)
            await settled(waiting)
            if not crowd.waits:
                break
        assert crowd.waits == []
        await crowd.give_back(likely=1)
        clock.advance(3)
        await waiting.manager.sweep()
        assert waiting.manager.statistics("crowd").free == 5
        memory_log.check(waiting.manager)
