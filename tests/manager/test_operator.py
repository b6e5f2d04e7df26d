"""The operator's hand and the sweep, on every kind of journal and every event loop."""

import pytest

from portfsm import EventKind, IllegalTransition, PortState

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- the operator's hand


async def test_the_table_of_operator_calls_is_not_kept(opened, clock):
    """Contract section 2, calls x states."""
    async with opened() as manager:
        free, allocated, quarantined, blocked = 30000, 30001, 30002, 30003
        await manager.allocate("http", owner="a", port=allocated)
        await manager.release(await manager.allocate("http", owner="q", port=quarantined))
        await manager.block("http", blocked, reason="first", for_s=60)
        seq = manager.seq
        for call in (manager.unblock("http", free), manager.unblock("http", quarantined), manager.free("http", free, reason="x")):
            await call
        view = await manager.block("http", blocked, reason="second", for_s=6000)
        assert (view.reason, view.until) == ("first", clock.wall_ns() + 60_000_000_000)
        await manager.hold("http", quarantined, hold_s=1)  # not longer
        assert manager.seq == seq
        for illegal in (
            manager.unblock("http", allocated),
            manager.hold("http", allocated, hold_s=100),
            manager.hold("http", blocked, hold_s=100),
            manager.free("http", allocated, reason="x"),
            manager.free("http", blocked, reason="x"),
        ):
            with pytest.raises(IllegalTransition):
                await illegal
        assert manager.seq == seq
        assert (await manager.hold("http", quarantined, hold_s=100)).until == clock.wall_ns() + 100_000_000_000
        assert (await manager.hold("http", free, hold_s=5)).state is PortState.QUARANTINED
        assert (await manager.free("http", free, reason="mistake")).state is PortState.FREE
        assert (await manager.block("http", allocated, reason="broken")).state is PortState.BLOCKED
        assert manager.find("a") == ()


async def test_a_block_ends_without_a_hold(opened, clock):
    async with opened() as manager:
        await manager.block("http", 30000, reason="x")
        view = await manager.unblock("http", 30000)
        assert (view.state, view.until) == (PortState.QUARANTINED, clock.wall_ns() + 10_000_000_000)


async def test_a_late_release_of_a_blocked_lease_fails(opened):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1")
        await manager.block("http", lease.port, reason="operator")
        seq = manager.seq
        await manager.release(lease)
        await manager.release(lease, block="holder says so too")
        assert manager.seq == seq
        assert manager.port("http", lease.port).reason == "operator"


async def test_a_hold_longer_than_the_blocks_is_shortened_by_it(opened, clock):
    async with opened() as manager:
        await manager.hold("http", 30000, hold_s=1000)
        until = manager.port("http", 30000).until
        await manager.block("http", 30000, reason="x")
        assert (await manager.unblock("http", 30000)).until == until
        assert clock.wall_ns() < until


# ---------------------------------------------------------------------- sweep


async def test_sweep_frees_early_or_misses_one(opened, clock, log):
    async with opened() as manager:
        for owner in ("a", "b"):
            await manager.release(await manager.allocate("http", owner=owner))
            clock.advance(1)
        await manager.block("grpc", 40000, reason="x", for_s=8)
        assert await manager.sweep() == ()
        clock.advance(8)
        swept = await manager.sweep()
        assert {(event.kind, event.port) for event in swept} == {(EventKind.FREED, 30000), (EventKind.UNBLOCKED, 40000)}
        assert manager.port("grpc", 40000).state is PortState.QUARANTINED
        clock.advance(1)
        assert [event.port for event in await manager.sweep()] == [30001]
        log.check(manager)
