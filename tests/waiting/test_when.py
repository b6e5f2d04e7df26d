"""When those that wait for a port are served, and by what. Time moves by hand alone."""

import random

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import InvalidValue, PoolExhausted, PoolSpec, PortState, PortUnavailable

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- when


async def test_a_due_port_wakes_nobody(callers, clock):
    """Claims that waited on an empty pool were never woken (cluster-api-ipam-provider-in-cluster#179).

    No call is made after the release: only time passes.
    """
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="a"))
        await waiting.start("w")
        clock.advance(9.999_999_999)
        await waiting.settled()
        assert "w" not in waiting.got
        clock.advance(0.000_000_001)
        await waiting.arrived("w")
        assert waiting.got["w"].port == 1000


async def test_the_timer_sleeps_for_the_first_hold_and_misses_an_earlier_one(callers, clock):
    pools = PoolSpec("long", ports="1", hold_s=100), PoolSpec("short", ports="2", hold_s=1)
    async with callers(*pools) as waiting:
        for spec in pools:
            await waiting.manager.release(await waiting.manager.allocate(spec.name, owner="a"))
            await waiting.start(f"w-{spec.name}", spec.name)
        clock.advance(1)
        await waiting.arrived("w-short")
        clock.advance(99)
        await waiting.arrived("w-long")


async def test_a_hold_begun_while_somebody_waits_is_not_noticed(callers, clock):
    async with callers() as waiting:
        lease = await waiting.manager.allocate("one", owner="a")
        await waiting.start("w")
        await waiting.manager.release(lease)
        await waiting.settled()
        clock.advance(10)
        await waiting.arrived("w")


async def test_a_blocks_end_is_not_noticed(callers, clock):
    """The block ends, a full hold follows, and the waiter is served at its end; nobody makes a call."""
    async with callers() as waiting:
        await waiting.manager.block("one", 1000, reason="x", for_s=5)
        await waiting.start("w")
        clock.advance(5)
        await waiting.settled()
        assert waiting.manager.port("one", 1000).state is PortState.QUARANTINED
        clock.advance(9.9)
        await waiting.settled()
        assert "w" not in waiting.got
        clock.advance(0.1)
        await waiting.arrived("w")


async def test_a_due_port_that_nobody_wants_stops_the_loop(callers, clock):
    """A waiter for one number, and another port falls due: it must be noticed once, not looked at without end."""
    async with callers() as waiting:
        await waiting.manager.allocate("fast", owner="a", port=2001)
        await waiting.manager.hold("fast", 2000, hold_s=1)
        await waiting.start("w", "fast", port=2001, wait_s=100)
        clock.advance(2)
        with anyio.fail_after(30):
            await waiting.settled()
        assert waiting.manager.port("fast", 2000).state is PortState.FREE
        clock.advance(98)
        await waiting.arrived("w")
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
        await waiting.arrived("w")


async def _hold(manager, port):
    await manager.hold("wide", port, hold_s=1)


@pytest.mark.parametrize("wait_s", [0.5, 1, 9.9])
async def test_a_call_waits_longer_than_it_said(callers, clock, wait_s):
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="a"))
        await waiting.start("w", wait_s=wait_s)
        clock.advance(wait_s - 0.001)
        await waiting.settled()
        assert "w" not in waiting.got
        clock.advance(0.001)
        await waiting.arrived("w")
        assert isinstance(waiting.got["w"], PoolExhausted)
        assert waiting.got["w"].counts["QUARANTINED"] == 1
        clock.advance(10)
        assert (await waiting.manager.allocate("one", owner="next")).port == 1000


async def test_a_port_that_falls_due_at_the_deadline_is_refused(callers, clock):
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="a"))
        await waiting.start("w", wait_s=10)
        clock.advance(10)
        await waiting.arrived("w")
        assert waiting.got["w"].port == 1000


async def test_deadlines_come_in_the_order_of_the_queue(callers, clock):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        for name, wait_s in (("slow", 30), ("quick", 10), ("patient", None), ("middle", 20)):
            await waiting.start(name, wait_s=wait_s)
        for name in ("quick", "middle", "slow"):
            clock.advance(10)
            await waiting.arrived(name)
        assert waiting.order == ["quick", "middle", "slow"]


async def test_the_wall_clock_decides_how_long_a_call_waits(callers, clock):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("w", wait_s=60)
        clock.step_wall(3600)
        clock.advance(59)
        await waiting.settled()
        assert "w" not in waiting.got
        clock.step_wall(-7200)
        clock.advance(1)
        await waiting.arrived("w")


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
        await waiting.arrived("first")
        with pytest.raises(PoolExhausted):
            await waiting.manager.allocate("one", owner="c")


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
            await waiting.settled()
            if not crowd.waits:
                break
        assert crowd.waits == []
        await crowd.give_back(likely=1)
        clock.advance(3)
        await waiting.manager.sweep()
        assert waiting.manager.statistics("crowd").free == 5
        memory_log.check(waiting.manager)
