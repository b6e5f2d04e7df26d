"""Who stands before and behind a group that waits: nobody is kept back by one who could not take the port anyway, or whose time is up.

Each of these was found by the simulation, in which pools change and have quotas while everything goes on.
"""

from __future__ import annotations

import anyio
import pytest

from portfsm import PoolSpec, Quota, Request, open_manager
from portfsm.errors import GroupUnavailable
from tests.tasks import Callers

pytestmark = pytest.mark.anyio


async def test_a_group_kept_back_by_one_who_waits_for_his_quota_alone(memory_log, clock):
    """He stands before it in one of its pools, and no port would help him; when his quota has room he comes first again."""
    pools = [PoolSpec("p", ports="100-103", hold_s=0.0, quotas=[Quota("a", hard=1)]), PoolSpec("q", ports="200", hold_s=0.0)]
    async with open_manager(memory_log.handle(), pools=pools, clock=clock) as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        first = await manager.allocate("p", owner="a0", service="a")
        taken = await manager.allocate("q", owner="x")
        await callers.begin("a1", manager.allocate("p", owner="a1", service="a", wait_s=None))
        await callers.begin("group", manager.allocate_group([Request("p", "g"), Request("q", "g")], wait_s=None))
        await callers.begin("behind", manager.allocate("q", owner="y", wait_s=None))
        assert callers.got == {}
        await manager.release(taken)
        await callers.settled()
        assert callers.served == ["group"]
        await manager.release(first)
        await callers.settled()
        assert callers.served == ["group", "a1"]
        tasks.cancel_scope.cancel()


async def test_a_group_that_overtakes_one_whose_quota_has_room_again(memory_log, clock):
    """One release makes room for both at once: he stands before it."""
    pools = [PoolSpec("p", ports="100", hold_s=0.0, quotas=[Quota("a", hard=1)]), PoolSpec("q", ports="200", hold_s=0.0)]
    async with open_manager(memory_log.handle(), pools=pools, clock=clock) as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await manager.allocate("p", owner="a0", service="a")
        await callers.begin("a1", manager.allocate("p", owner="a1", service="a", wait_s=None))
        await callers.begin("group", manager.allocate_group([Request("q", "g"), Request("p", "g")], wait_s=None))
        await manager.release_owner("a0")
        await callers.settled()
        assert callers.served == ["a1"]
        tasks.cancel_scope.cancel()


async def test_one_overtaken_in_the_very_step_that_makes_room_in_his_share(memory_log, clock):
    """What was kept for `a` is free for anybody once `a` has what it is owed: for him who came first, not for the next in line."""
    spec = PoolSpec("p", ports="100-102", hold_s=10.0, quotas=[Quota("a", soft=1)])
    async with open_manager(memory_log.handle(), pools=[spec], clock=clock) as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        mine = await manager.allocate("p", owner="a0", service="a")
        other, third = await manager.allocate("p", owner="x"), await manager.allocate("p", owner="w")
        await manager.block("p", third.port, reason="test")
        await manager.release(mine)
        await callers.begin("first", manager.allocate("p", owner="y", wait_s=None))
        await callers.begin("a0", manager.allocate("p", owner="a0", service="a", wait_s=None))
        await callers.begin("last", manager.allocate("p", owner="z", wait_s=None))
        assert callers.got == {}
        await manager.release(other)
        await manager.free("p", other.port, reason="test")
        await callers.settled()
        assert set(callers.served) == {"first", "a0"}
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("behind", ["single", "group"])
async def test_one_refused_a_port_since_the_group_before_him_gave_up_at_the_same_moment(memory_log, clock, behind):
    """Both have waited long enough when the timer runs: the group gets nothing, and what it kept from him is there for him."""
    pools = [PoolSpec("p", ports="100-101", hold_s=10.0), PoolSpec("q", ports="200", hold_s=10.0)]
    async with open_manager(memory_log.handle(), pools=pools, clock=clock) as manager:
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await manager.allocate("q", owner="x")
            await callers.begin("first", manager.allocate_group([Request("p", "g"), Request("q", "g")], wait_s=5))
            call = (
                manager.allocate("p", owner="y", wait_s=5) if behind == "single" else manager.allocate_group([Request("p", "y")], wait_s=5)
            )
            await callers.begin("second", call)
            clock.advance(5)
            await callers.arrived("first", "second")
        assert isinstance(callers.got["first"], GroupUnavailable)
        assert [lease.owner for lease in manager.find("y")] == ["y"]
