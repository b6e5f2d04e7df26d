"""Calls that wait, or are made to wait, because too much of a pool is held back."""

import anyio
import pytest

from portfsm import PoolSpec, open_manager
from portfsm.errors import PoolExhausted, PortUnavailable
from portfsm.testing import FakeWitness
from tests.waiting.conftest import Callers

pytestmark = pytest.mark.anyio

PATIENT = PoolSpec("p", ports="100", hold_s=10.0, on_pressure="wait")


async def test_one_who_waits_sleeps_past_the_floor(memory_log, clock):
    """The port may be freed early when its floor is over, and nobody else calls."""
    spec = PoolSpec("p", ports="100-101", hold_s=10.0, floor_s=2.0, on_pressure="free-earliest")
    async with open_manager(memory_log.handle(), pools=[spec], clock=clock) as manager:
        for owner in "ab":
            await manager.release(await manager.allocate("p", owner=owner))
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("x", "p")
            clock.advance(1.9)
            await callers.settled()
            assert callers.got == {}
            clock.advance(0.1)
        assert callers.got["x"].port == 100
        assert memory_log.kinds()[-2:] == ["freed", "allocated"]
        memory_log.check(manager)


async def test_an_impatient_call_refused_where_the_policy_says_wait(memory_log, clock):
    spec = PoolSpec("p", ports="100-101", hold_s=10.0, held_max=0.5, on_pressure="wait")
    async with open_manager(memory_log.handle(), pools=[spec], clock=clock) as manager:
        first, second = [await manager.allocate("p", owner=owner) for owner in "ab"]
        await manager.release(first)
        with pytest.raises(PoolExhausted):
            await manager.allocate("p", owner="x")  # one of two is no more than half
        await manager.release(second)
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            for owner in "xy":
                await callers.start(owner, "p", wait_s=0)
            await callers.settled()
            assert callers.got == {}
            with pytest.raises(PortUnavailable):
                await manager.allocate("p", owner="z", port=100)
            clock.advance(10)
        assert [(callers.got[owner].owner, callers.got[owner].port) for owner in "xy"] == [("x", 100), ("y", 101)], (
            "first come, first served"
        )
        memory_log.check(manager)


async def test_a_call_that_waits_for_ever_although_nobody_asked_it_to(memory_log, clock):
    """At most one hold: an operator's may be longer."""
    async with open_manager(memory_log.handle(), pools=[PATIENT], clock=clock) as manager:
        await manager.hold("p", 100, hold_s=3600)
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("x", "p", wait_s=0)
            clock.advance(9.9)
            await callers.settled()
            assert callers.got == {}
            clock.advance(0.1)
        assert isinstance(callers.got["x"], PoolExhausted)
        assert callers.got["x"].counts["QUARANTINED"] == 1


async def test_a_call_that_gives_up_on_the_proxies(memory_log, clock):
    """In a pool that waits for proxies, too, the next port may come at any moment."""
    async with open_manager(memory_log.handle(), pools=[PATIENT], clock=clock, witnesses=[FakeWitness("edge")]) as manager:
        await manager.release(await manager.allocate("p", owner="a"))
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("x", "p", wait_s=0)
            await callers.settled()
            assert callers.got == {}
            await manager.free("p", 100, reason="edge was seen to have let go")
        assert callers.got["x"].port == 100
