"""Calls that wait in a pool with quotas: for a share of it, or for what others were kept."""

import anyio
import attrs
import pytest

from portfsm import PoolSpec, Quota, open_manager
from portfsm.errors import QuotaExceeded
from tests.waiting.conftest import Callers

pytestmark = pytest.mark.anyio

ONE_FOR_A = PoolSpec("p", ports="100-105", hold_s=10.0, quotas=[Quota("a", hard=1)])


async def test_one_at_its_quota_that_keeps_everybody_waiting(memory_log, clock):
    """It waits for its own service's lease; those behind it take what is free."""
    async with open_manager(memory_log.handle(), pools=[ONE_FOR_A], clock=clock) as manager:
        held = await manager.allocate("p", owner="a0", service="a")
        with pytest.raises(QuotaExceeded):
            await manager.allocate("p", owner="a1", service="a")
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("a1", "p", service="a")
            await callers.start("b0", "p", service="b")
            assert (await manager.allocate("p", owner="b1", service="b")).port == 102
            await callers.settled()
            assert callers.served == ["b0"], "its lease was durable before that of the next"
            await manager.release(held)
        assert callers.served == ["b0", "a1"]
        memory_log.check(manager)


async def test_one_whose_time_is_up_that_is_told_something_else(memory_log, clock):
    async with open_manager(memory_log.handle(), pools=[ONE_FOR_A], clock=clock) as manager:
        await manager.allocate("p", owner="a0", service="a")
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("a1", "p", service="a", wait_s=5)
            clock.advance(5)
        assert isinstance(callers.got["a1"], QuotaExceeded)
        assert callers.got["a1"].held == 1


async def test_one_above_its_share_that_is_forgotten(memory_log, clock):
    """`b` waits for what is kept for `a`. Once `a` has its share from what it held before, nothing is kept any more."""
    pool = attrs.evolve(ONE_FOR_A, quotas=[Quota("a", soft=1)], ports="100-101")
    async with open_manager(memory_log.handle(), pools=[pool], clock=clock) as manager:
        await manager.release(await manager.allocate("p", owner="a0", service="a"))
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("b0", "p", service="b")
            assert callers.served == []
            await callers.start("a1", "p", service="a")
        assert sorted(callers.served) == ["a1", "b0"]
        assert manager.find("a1")[0].port == 100
        memory_log.check(manager)


async def test_a_quota_raised_that_nobody_hears_of(memory_log, clock):
    async with open_manager(memory_log.handle(), pools=[ONE_FOR_A], clock=clock) as manager:
        await manager.allocate("p", owner="a0", service="a")
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("a1", "p", service="a")
            await manager.define(attrs.evolve(ONE_FOR_A, quotas=[Quota("a", hard=2)]))
        assert callers.served == ["a1"]


async def test_a_call_at_its_quota_that_waits_for_the_pools_sake(memory_log, clock):
    """`on_pressure="wait"` is about ports, not about shares."""
    pool = attrs.evolve(ONE_FOR_A, ports="100-102", on_pressure="wait", held_max=0.0)
    async with open_manager(memory_log.handle(), pools=[pool], clock=clock) as manager:
        await manager.release(await manager.allocate("p", owner="b"))
        await manager.allocate("p", owner="a0", service="a")
        with pytest.raises(QuotaExceeded):
            await manager.allocate("p", owner="a1", service="a")
