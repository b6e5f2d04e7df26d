"""Holds, floors, bounds and blocks beside evidence: which of them ends a quarantine."""

from __future__ import annotations

import pytest

from portfsm import PoolExhausted, Verdict
from tests.warden.scene import Proxy, held_until, released, settle, state, until

pytestmark = pytest.mark.anyio


async def test_a_port_waits_out_its_hold_though_every_proxy_has_let_go(opened, log):
    proxy, second = Proxy(), Proxy("second")
    async with opened(proxy, second) as manager:
        lease = await released(manager)
        proxy.let_go(30000)
        await settle()
        assert state(manager) == "QUARANTINED", "one of two is not all"
        second.let_go(30000)
        await until(lambda: state(manager) == "FREE")
    freed = next(event for event in log.events() if event.kind == "freed")
    assert (freed.cause, freed.port) == ("evidence", lease.port)
    assert freed.reason == "proxy: clear at generation 7; second: clear at generation 7"
    assert ("127.0.0.1", 30000, lease.token + 1) in proxy.asked


@pytest.mark.parametrize("word", [Verdict.HELD, Verdict.UNKNOWN])
async def test_a_hold_that_is_over_frees_what_a_proxy_still_has(opened, clock, word):
    proxy = Proxy(word=word)
    async with opened(proxy) as manager:
        await released(manager)
        await released(manager, owner="b", service="y")
        clock.advance(1000)
        await settle()
        assert await manager.sweep() == ()
        with pytest.raises(PoolExhausted):
            await manager.allocate("http", owner="c")
        await until(lambda: "worker 5 still has it" in manager.explain("http", 30000))
        text = manager.explain("http", 30000)
        assert f"proxy says {word.value}" in text
        assert "waits until every proxy has let go: proxy" in text
        assert "sweep() frees it" not in text
        assert (await manager.allocate("http", owner="a", service="x")).port == 30000, "its own service needs no evidence"
        proxy.let_go(30001)
        await until(lambda: state(manager, 30001) == "FREE")


async def test_evidence_ends_a_hold_before_its_floor(opened, clock):
    proxy = Proxy()
    async with opened(proxy, floor_s=2.0) as manager:
        await released(manager)
        proxy.let_go(30000)
        await held_until(manager, clock, seconds=2)


async def test_a_floor_is_skipped_by_draining_first(opened, clock):
    proxy = Proxy()
    async with opened(proxy, floor_s=2.0) as manager:
        lease = await manager.allocate("http", owner="a", service="x")
        await manager.withdraw(lease)
        proxy.let_go(30000)
        assert await manager.wait_clear(lease)
        await manager.release(lease)
        assert state(manager) == "QUARANTINED"
        clock.advance(2)
        await until(lambda: state(manager) == "FREE")


async def test_a_proxy_that_is_gone_for_good_holds_ports_for_ever(opened, clock):
    proxy, gone = Proxy(), Proxy("gone")
    async with opened(proxy, gone) as manager:
        await released(manager)
        proxy.let_go(30000)
        await settle()
        assert state(manager) == "QUARANTINED"
        await manager.leave("gone", reason="scaled in")
        await until(lambda: state(manager) == "FREE")
        await manager.leave("proxy", reason="scaled in")
        await manager.leave("proxy", reason="scaled in")
        await released(manager)
        await settle()
        assert state(manager) == "QUARANTINED", "an empty all is no evidence"
        clock.advance(10)
        assert [event.cause for event in await manager.sweep()] == ["elapsed"]


async def test_evidence_ends_what_an_operator_asked_for(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        proxy.let_go(30000)
        await manager.hold("http", 30000, hold_s=50)
        await held_until(manager, clock, seconds=50)


async def test_a_silent_proxy_with_a_bound_of_its_own_holds_ports_for_ever(opened, clock):
    proxy = Proxy(word=Verdict.UNKNOWN, fallback_s=30)
    async with opened(proxy) as manager:
        await released(manager)
        await held_until(manager, clock, seconds=30)


async def test_a_restart_of_the_machine_ends_what_an_operator_asked_for(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await manager.hold("http", 30000, hold_s=50)
    clock.reboot()
    proxy.let_go(30000)
    async with opened(proxy) as manager:
        await held_until(manager, clock, seconds=50)


async def test_a_floor_is_cut_short_by_a_wall_clock_that_was_set_over_a_restart(opened, clock):
    proxy = Proxy()
    async with opened(proxy, floor_s=5.0) as manager:
        await released(manager)
    clock.step_wall(3600)
    clock.reboot()
    proxy.let_go(30000)
    async with opened(proxy, floor_s=5.0) as manager:
        await held_until(manager, clock, seconds=5)


async def test_evidence_ends_a_hold_that_an_operator_found_long_enough(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await released(manager)
        await manager.hold("http", 30000, hold_s=5)
        seq = manager.seq
        await manager.hold("http", 30000, hold_s=5)
        assert manager.seq == seq
        proxy.let_go(30000)
        await held_until(manager, clock, seconds=10, step_s=5.1)


async def test_the_end_of_a_block_in_a_pool_without_holds_is_the_end_of_what_it_keeps(opened, clock):
    async with opened(Proxy(), hold_s=0.0) as manager:
        await manager.block("http", 30000, reason="tests", for_s=1)
        await manager.block("http", 30001, reason="tests", for_s=2)
        clock.advance(1)
        await manager.sweep()
        assert await manager.sweep() == ()
        assert state(manager) == "QUARANTINED"
