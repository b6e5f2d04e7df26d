"""Who waits for a port or for proxies, and hears of it."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from portfsm import InvalidValue, OutcomeUnknown, PoolSpec, open_manager
from portfsm.testing import GatedJournal
from tests.tasks import Callers
from tests.warden.scene import Proxy, released, settle, state, until

pytestmark = pytest.mark.anyio


async def answer_after(seconds, clock, tasks, call):
    """What the call comes to, which it must do after so long and not before."""
    callers = Callers(None, tasks)
    await callers.begin("call", call)
    await settle()
    clock.advance(seconds - 0.1)
    await settle()
    assert not callers.got
    clock.advance(0.1)
    await callers.arrived("call")
    return callers.got["call"]


async def test_a_waiter_sleeps_on_when_evidence_frees_its_port(opened):
    proxy = Proxy()
    async with opened(proxy) as manager, anyio.create_task_group() as tasks:
        await manager.allocate("http", owner="b")
        await released(manager, owner="a")
        callers = Callers(manager, tasks)
        await callers.begin("c", manager.allocate("http", owner="c", wait_s=None))
        await settle()
        assert not callers.got
        proxy.let_go(30001)
        await callers.arrived("c")
        assert callers.got["c"].port == 30001


async def test_waiting_for_proxies_never_ends_or_ends_too_early(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager, anyio.create_task_group() as tasks:
        lease = await manager.allocate("http", owner="a", service="x")
        with pytest.raises(InvalidValue, match="withdraw"):
            await manager.wait_clear(lease)
        await manager.withdraw(lease)
        assert not await manager.wait_clear(lease, timeout_s=0)
        assert await answer_after(3, clock, tasks, manager.wait_clear(lease, timeout_s=3)) is False


async def test_a_cancelled_lease_pays_off_an_earlier_one_that_no_proxy_let_go_of(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await released(manager)
        clock.advance(100)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await manager.allocate("http", owner="a", service="x")
        await settle()
        assert state(manager) == "QUARANTINED"


async def test_nobody_is_told_of_a_manager_that_was_left(opened):
    proxy = Proxy()
    context = opened(proxy)
    manager = await context.__aenter__()
    lease = await manager.allocate("http", owner="a")
    await manager.release(lease)
    await context.__aexit__(None, None, None)
    with anyio.fail_after(5), pytest.raises(Exception, match="left"):
        await manager.wait_clear(lease)


async def test_a_caller_waits_for_proxies_though_the_hold_is_over_and_none_is_required(opened, clock):
    async with opened() as manager, anyio.create_task_group() as tasks:
        lease = await released(manager)
        assert await answer_after(10, clock, tasks, manager.wait_clear(lease)) is True
        assert not await manager.wait_clear(await released(manager, owner="b"), timeout_s=0)


async def test_a_caller_hears_that_a_hold_is_over_before_its_beginning_is_durable(clock):
    """Proxies are told of what is durable: a hold whose release still hangs on the disk may be news to all of them."""
    journal = GatedJournal()
    spec = PoolSpec("http", ports="30000-30001", hold_s=10)
    async with open_manager(journal, pools=[spec], clock=clock) as manager, anyio.create_task_group() as tasks:
        lease, callers = await manager.allocate("http", owner="a"), Callers(manager, tasks)
        journal.hold()
        tasks.start_soon(manager.release, lease)
        await settle()
        clock.advance(11)
        await callers.begin("wait", manager.wait_clear(lease))
        await settle()
        assert not callers.got
        journal.let_go()
        await callers.arrived("wait")
        assert callers.got["wait"] is True


async def test_a_caller_waits_for_proxies_though_the_journal_has_failed(clock):
    journal = GatedJournal()
    spec = PoolSpec("http", ports="30000-30001", hold_s=10)
    with pytest.raises(OutcomeUnknown):
        async with open_manager(journal, pools=[spec], clock=clock, witnesses=[Proxy()]) as manager:
            lease = await released(manager)
            async with anyio.create_task_group() as tasks:
                callers = Callers(manager, tasks)
                await callers.begin("wait", manager.wait_clear(lease))
                await settle()
                journal.fail(OutcomeUnknown("sync failed", path="x", errno=5))
                with pytest.raises(OutcomeUnknown):
                    await manager.allocate("http", owner="b")
                await callers.arrived("wait")
                assert isinstance(callers.got["wait"], OutcomeUnknown)
            await manager.allocate("http", owner="b")


async def test_a_waiter_sleeps_on_when_the_last_proxy_leaves(opened, clock):
    async with opened(Proxy()) as manager, anyio.create_task_group() as tasks:
        await released(manager, owner="a")
        await released(manager, owner="b")
        callers = Callers(manager, tasks)
        clock.advance(9)
        await manager.hold("http", 30001, hold_s=5)
        clock.advance(1)
        for owner in "cd":
            await callers.begin(owner, manager.allocate("http", owner=owner, wait_s=None))
        await settle()
        assert not callers.got
        await manager.leave("proxy", reason="scaled in")
        await until(lambda: len(callers.served) == 1)
        clock.advance(4)
        await until(lambda: len(callers.served) == 2)
