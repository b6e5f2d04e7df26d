"""A lease from its beginning to its end, on every kind of journal and every event loop. A test's name is the failure it prevents."""

import pytest

from portfsm import OwnerConflict, PoolExhausted, PoolSpec, PortOutOfRange, PortState, PortUnavailable, StaleLease, open_manager

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- allocate


async def test_lease_lacks_a_field(opened, log, clock):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1", node="node-a", service="checkout")
        assert (lease.pool, lease.node, lease.port, lease.owner, lease.service) == ("http", "node-a", 30000, "r1", "checkout")
        assert lease.token == manager.seq
        assert lease.since_ns == clock.wall_ns()
        assert lease.expires_ns is None
        view = manager.port("http", 30000, node="node-a")
        assert (view.state, view.owner, view.service, view.token) == (PortState.ALLOCATED, "r1", "checkout", lease.token)
        log.check(manager)


async def test_same_owner_takes_a_second_port(opened, log):
    async with opened() as manager:
        first = await manager.allocate("http", owner="r1", service="s")
        seq = manager.seq
        assert await manager.allocate("http", owner="r1", service="s") == first
        assert await manager.allocate("http", owner="r1", service="s", port=first.port) == first
        assert manager.seq == seq
        with pytest.raises(OwnerConflict):
            await manager.allocate("http", owner="r1", service="other")
        with pytest.raises(OwnerConflict):
            await manager.allocate("http", owner="r1", service="s", port=30003)
        assert manager.seq == seq


async def test_an_owner_is_refused_a_port_in_another_pool_or_node(opened):
    async with opened() as manager:
        leases = {await manager.allocate(pool, owner="r1", node=node) for pool in ("http", "grpc") for node in ("", "a", "b")}
        assert len(leases) == 6
        assert manager.find("r1") == tuple(sorted(leases, key=lambda lease: (lease.node, lease.pool)))


async def test_own_quarantined_port_is_not_preferred(opened):
    async with opened() as manager:
        leases = [await manager.allocate("http", owner=f"r{n}", service=f"s{n}") for n in range(3)]
        for lease in leases:
            await manager.release(lease)
        assert (await manager.allocate("http", owner="r1", service="new")).port == 30001  # its own
        assert (await manager.allocate("http", owner="x", service="s2")).port == 30002  # its service's
        assert (await manager.allocate("http", owner="y", service="new")).port == 30003  # the pool's order
        with pytest.raises(PoolExhausted):
            await manager.allocate("http", owner="z")


async def test_a_port_goes_to_another_service_within_its_hold(opened, clock):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1", service="s1")
        await manager.release(lease)
        clock.advance(9.999)
        with pytest.raises(PortUnavailable) as caught:
            await manager.allocate("http", owner="r2", service="s2", port=lease.port)
        assert (caught.value.state, caught.value.owner, caught.value.port) == (PortState.QUARANTINED, "r1", lease.port)
        clock.advance(0.001)
        assert (await manager.allocate("http", owner="r2", service="s2", port=lease.port)).port == lease.port


async def test_exhaustion_does_not_say_when_to_come_back(opened, clock):
    async with opened() as manager:
        leases = [await manager.allocate("http", owner=f"r{n}") for n in range(3)]
        await manager.release(leases[0])
        await manager.block("http", 30003, reason="in use")
        with pytest.raises(PoolExhausted) as caught:
            await manager.allocate("http", owner="late")
        assert caught.value.counts == {"FREE": 0, "ALLOCATED": 2, "QUARANTINED": 1, "BLOCKED": 1}
        assert caught.value.next_free_at == clock.wall_ns() + 10_000_000_000
        assert caught.value.short_by >= 1


async def test_an_order_is_ignored(log, clock):
    pools = [
        PoolSpec("low", ports="1000-1009", hold_s=0),
        PoolSpec("idle", ports="2000-2002", hold_s=0, order="longest-idle"),
        PoolSpec("any", ports="3000-3999", hold_s=0, order="random"),
    ]
    async with open_manager(log.handle(), pools=pools, clock=clock) as manager:
        ports = []
        for turn in range(4):
            lease = await manager.allocate("idle", owner=f"r{turn}")
            clock.advance(1)
            await manager.release(lease)
            ports.append(lease.port)
        assert ports == [2000, 2001, 2002, 2000]
        low = [await manager.allocate("low", owner=f"r{turn}") for turn in range(3)]
        await manager.release(low[1])
        assert (await manager.allocate("low", owner="x")).port == 1001
        drawn = {(await manager.allocate("any", owner=f"r{turn}")).port for turn in range(8)}
        assert len(drawn) == 8
        assert drawn != set(range(3000, 3008))
        log.check(manager)


# ---------------------------------------------------------------------- release, withdraw


async def test_released_port_is_free_at_once(opened, log, clock):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1")
        await manager.release(lease)
        view = manager.port("http", lease.port)
        assert (view.state, view.until, view.owner) == (PortState.QUARANTINED, clock.wall_ns() + 10_000_000_000, "r1")
        assert log.kinds() == ["allocated", "released"]


async def test_pool_without_hold_keeps_a_released_port(log, clock):
    async with open_manager(log.handle(), pools=[PoolSpec("http", ports="1000", hold_s=0)], clock=clock) as manager:
        for owner in ("r1", "r2"):
            lease = await manager.allocate("http", owner=owner)
            await manager.release(lease)
        assert log.kinds() == ["allocated", "released", "freed"] * 2


async def test_repeated_release_is_recorded_twice(opened, clock):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1")
        await manager.release(lease)
        seq = manager.seq
        await manager.release(lease)  # QUARANTINED
        assert manager.seq == seq
        clock.advance(10)
        await manager.sweep()
        await manager.release(lease)  # FREE, and no newer lease
        newer = await manager.allocate("http", owner="r2")
        assert newer.port == lease.port
        with pytest.raises(StaleLease) as caught:
            await manager.release(lease)
        assert (caught.value.token, caught.value.current) == (lease.token, newer.token)
        assert manager.port("http", lease.port).state is PortState.ALLOCATED


async def test_a_finding_is_lost_when_the_port_is_released_already(opened):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1")
        await manager.release(lease)
        await manager.release(lease, block="EADDRINUSE", for_s=60)
        view = manager.port("http", lease.port)
        assert (view.state, view.reason) == (PortState.BLOCKED, "EADDRINUSE")
        await manager.release(lease)
        assert manager.port("http", lease.port).state is PortState.BLOCKED


async def test_withdrawing_ends_the_lease(opened, log):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1")
        await manager.withdraw(lease)
        await manager.withdraw(lease)
        assert manager.find("r1") == (lease,)
        await manager.release(lease)
        assert log.kinds() == ["allocated", "withdrawn", "released"]


async def test_an_owner_keeps_something_after_release_owner(opened, log):
    async with opened() as manager:
        held = [await manager.allocate(pool, owner="r1", node=node) for node in ("", "b") for pool in ("grpc", "http")]
        other = await manager.allocate("http", owner="r2")
        assert await manager.release_owner("r1", node="b") == tuple(held[2:])
        assert await manager.release_owner("r1") == tuple(held[:2])
        assert await manager.release_owner("r1") == ()
        assert manager.find("r1") == ()
        assert manager.find("r2") == (other,)
        log.check(manager)


# ---------------------------------------------------------------------- adopt


async def test_an_adopted_port_is_given_to_another(opened, log):
    async with opened() as manager:
        lease = await manager.adopt("http", 30000, owner="live", service="s")
        assert await manager.adopt("http", 30000, owner="live", service="s") == lease
        assert await manager.allocate("http", owner="live", service="s") == lease
        assert (await manager.allocate("http", owner="new")).port == 30001
        assert log.kinds() == ["adopted", "allocated"]
        with pytest.raises(OwnerConflict) as caught:
            await manager.adopt("http", 30000, owner="pretender")
        assert (caught.value.holder, caught.value.claimant) == ("live", "pretender")
        with pytest.raises(OwnerConflict):
            await manager.adopt("http", 30002, owner="live", service="s")


async def test_adopting_a_foreign_quarantine_leaves_no_flag(opened):
    async with opened() as manager:
        await manager.release(await manager.allocate("http", owner="r1", service="s1"))
        await manager.adopt("http", 30000, owner="r2", service="s2")
        assert "quarantined for s1" in manager.port("http", 30000).reason
        assert "quarantined for s1" in manager.explain("http", 30000)


async def test_a_port_outside_the_range_joins_the_pool(opened, log, clock):
    async with opened() as manager:
        lease = await manager.adopt("http", 49999, owner="live")
        assert (manager.statistics("http").size, manager.statistics("http").retired) == (4, 1)
        await manager.release(lease)
        assert manager.statistics("http").retired == 1
        clock.advance(10)
        await manager.sweep()
        assert manager.statistics("http").retired == 0
        with pytest.raises(PortOutOfRange):
            manager.port("http", 49999)
        with pytest.raises(PortOutOfRange):
            await manager.allocate("http", owner="x", port=49999)
        log.check(manager)


# ---------------------------------------------------------------------- the lease as a block


async def test_lease_block_keeps_its_port(opened, log):
    async with opened() as manager:
        async with manager.lease("http", owner="r1", service="s") as lease:
            assert manager.find("r1") == (lease,)
        assert log.kinds() == ["allocated", "released"]
        with pytest.raises(ZeroDivisionError):
            async with manager.lease("http", owner="r2"):
                _ = 1 // 0
        assert manager.statistics("http").allocated == 0


async def test_lease_block_hides_what_it_raised(opened, clock):
    """The lease was ended and given to another: the release fails, and the block's own error still comes out."""
    async with opened() as manager:
        for error in (ZeroDivisionError, None):
            clock.advance(100)
            with pytest.raises(error or StaleLease):
                async with manager.lease("http", owner="r1", port=30000) as lease:
                    await manager.block("http", lease.port, reason="x")
                    await manager.unblock("http", lease.port)
                    await manager.free("http", lease.port, reason="x")
                    await manager.allocate("http", owner="r2", port=lease.port)
                    if error is not None:
                        raise error
            await manager.release_owner("r2")
