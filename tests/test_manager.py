"""Every call of `PortManager`, on every kind of journal and every event loop. A test's name is the failure it prevents."""

from collections.abc import Iterator

import anyio
import pytest

from portfsm import (
    EventKind,
    IllegalTransition,
    InvalidValue,
    JournalFull,
    JournalLocked,
    ManagerClosed,
    OwnerConflict,
    PoolExhausted,
    PoolSpec,
    PortOutOfRange,
    PortState,
    PortUnavailable,
    StaleLease,
    UnknownPool,
    open_manager,
    replay,
)

pytestmark = pytest.mark.anyio

GRPC = PoolSpec("grpc", ports="40000-40003", hold_s=10.0)


@pytest.fixture
def opened(log, clock, pool):
    """A manager on the log, as an async context."""

    def make(*pools, **options):
        return open_manager(log.handle(), pools=pools or [pool, GRPC], clock=clock, **options)

    return make


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


# ---------------------------------------------------------------------- sweep, lease


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


async def test_views_free_a_due_port(opened, clock):
    """Time alone changes nothing: a due port shows an `until` in the past until somebody notices."""
    async with opened() as manager:
        await manager.release(await manager.allocate("http", owner="a"))
        clock.advance(100)
        seq = manager.seq
        view = manager.port("http", 30000)
        assert view.state is PortState.QUARANTINED
        assert view.until < clock.wall_ns()
        manager.statistics()
        manager.explain("http", 30000)
        assert list(manager.ports()) == [view]
        assert manager.seq == seq


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


# ---------------------------------------------------------------------- views


async def test_views_disagree(opened, log):
    async with opened() as manager:
        assert manager.ports() == ()
        assert manager.statistics("http").free == 4
        a = await manager.allocate("http", owner="a", node="n2")
        await manager.block("grpc", 40001, node="n1", reason="x")
        await manager.release(await manager.allocate("http", owner="c", node="n1"))
        assert [(view.node, view.pool, view.port) for view in manager.ports()] == [
            ("n1", "grpc", 40001),
            ("n1", "http", 30000),
            ("n2", "http", 30000),
        ]
        assert [view.port for view in manager.ports("http", node="n2")] == [a.port]
        assert [view.pool for view in manager.ports(state=PortState.BLOCKED)] == ["grpc"]
        assert manager.port("http", 30003, node="never") == manager.port("http", 30003, node="never")
        total = manager.statistics()
        assert (total.size, total.free, total.allocated, total.quarantined, total.blocked) == (12, 9, 1, 1, 1)
        assert set(manager.pools) == {"http", "grpc"}
        log.check(manager)


async def test_an_unknown_pool_or_port_is_answered(opened):
    async with opened() as manager:
        with pytest.raises(UnknownPool) as caught:
            manager.port("nope", 1)
        assert caught.value.known == ("grpc", "http")
        for call in (manager.ports, manager.statistics):
            with pytest.raises(UnknownPool):
                call("nope")
        with pytest.raises(UnknownPool):
            await manager.allocate("nope", owner="x")
        for port in (29999, 30004):
            with pytest.raises(PortOutOfRange):
                manager.port("http", port)
            with pytest.raises(PortOutOfRange):
                await manager.allocate("http", owner="x", port=port)


async def test_head_or_epoch_stands_still(opened, log):
    heads = []
    for epoch in (1, 2, 3):
        async with opened() as manager:
            assert manager.epoch == epoch
            heads.append(manager.head)
            await manager.allocate("http", owner=f"r{epoch}")
            heads.append(manager.head)
            assert heads[-1].seq == manager.seq == manager.durable_seq
    assert len({head.log_id for head in heads}) == 1
    assert len({(head.seq, head.digest) for head in heads}) == 6
    assert manager.head.seq == log.events()[-1].seq


# ---------------------------------------------------------------------- opening again


async def test_state_is_lost_between_two_openings(opened, log):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1", service="s")
        await manager.release(await manager.allocate("http", owner="r2"))
        await manager.block("http", 30002, reason="x", for_s=100)
        views = manager.ports()
    async with opened() as manager:
        assert manager.ports() == views
        assert await manager.allocate("http", owner="r1", service="s") == lease
        log.check(manager)
    assert [event.kind for event in log.events()][-1] is EventKind.CLOSED
    assert log.replayed().digest() == manager.digest()


async def test_a_shrunk_pool_gives_out_a_port_it_lost(opened, log, clock):
    async with opened() as manager:
        stay, go = [await manager.allocate("http", owner=owner) for owner in ("a", "b")]
    small = PoolSpec("http", ports="30000", hold_s=10.0)
    async with opened(small) as manager:
        assert (manager.statistics("http").size, manager.statistics("http").retired) == (1, 1)
        assert manager.find("b") == (go,)
        await manager.release(go)
        clock.advance(10)
        await manager.sweep()
        await manager.release(stay)
        clock.advance(10)
        assert (await manager.allocate("http", owner="c")).port == 30000
        with pytest.raises(PoolExhausted):
            await manager.allocate("http", owner="d")
        log.check(manager)
    async with opened(PoolSpec("http", ports="30000-30001", hold_s=10.0)) as manager:
        assert (await manager.allocate("http", owner="d")).port == 30001
        log.check(manager)


async def test_reopening_with_the_same_pools_records_them_again(opened, log):
    for _ in range(3):
        async with opened():
            pass
    assert [event.kind.value for event in log.events()].count("pool_defined") == 2


async def test_pools_that_the_log_knows_and_the_list_does_not_are_gone(opened, log, clock, pool):
    async with opened() as manager:
        await manager.allocate("grpc", owner="a")
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        assert set(manager.pools) == {"http", "grpc"}
        assert (await manager.allocate("grpc", owner="b")).port == 40001
    overlapping = PoolSpec("wide", ports="39999-40000")
    before = log.events()
    with pytest.raises(InvalidValue, match="40000"):
        async with open_manager(log.handle(), pools=[overlapping], clock=clock):
            pass
    assert log.events() == before
    async with opened():
        pass


# ---------------------------------------------------------------------- leaving


async def test_calls_after_leaving_hang_or_work(opened):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1")
    for call in (
        manager.allocate("http", owner="r2"),
        manager.allocate("http", owner="r2", wait_s=None),
        manager.release(lease),
        manager.withdraw(lease),
        manager.release_owner("r1"),
        manager.adopt("http", 30001, owner="r3"),
        manager.block("http", 30001, reason="x"),
        manager.unblock("http", 30001),
        manager.hold("http", 30001, hold_s=1),
        manager.free("http", 30001, reason="x"),
        manager.sweep(),
    ):
        with pytest.raises(ManagerClosed):
            await call
    assert manager.find("r1") == (lease,)  # what was durable can still be read


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), ExceptionGroup("mine", [ValueError()])])
async def test_what_the_block_raises_comes_out_wrapped(opened, error):
    caught = None
    try:
        async with opened() as manager:
            await manager.allocate("http", owner="r1")
            raise error
    except BaseException as raised:
        caught = raised
    assert caught is error


async def test_what_the_block_raises_is_lost_when_it_is_cancelled_too(opened):
    with pytest.raises(ZeroDivisionError):
        with anyio.CancelScope() as scope:
            async with opened() as manager:
                await manager.allocate("http", owner="r1")
                scope.cancel()
                raise ZeroDivisionError


async def test_cancelling_the_block_leaves_the_log_open(opened, log):
    with anyio.CancelScope() as scope:
        async with opened() as manager:
            await manager.allocate("http", owner="r1")
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert log.events()[-1].kind is EventKind.CLOSED
    async with opened() as manager:
        assert manager.find("r1")


# ---------------------------------------------------------------------- two openers


async def test_second_opener_gets_in_or_breaks_the_first(opened, log):
    async with opened(holder="the first") as manager:
        with pytest.raises(JournalLocked) as caught:
            async with opened():
                pass
        assert caught.value.holder == "the first"
        assert caught.value.pid is not None
        await manager.allocate("http", owner="r1")
        log.check(manager)


async def test_second_opener_with_the_same_object_closes_the_first_ones_log(log, clock, pool):
    journal = log.handle()
    async with open_manager(journal, pools=[pool], clock=clock) as manager:
        with pytest.raises(JournalLocked):
            async with open_manager(journal, pools=[pool], clock=clock):
                pass
        await manager.allocate("http", owner="r1")
        log.check(manager)


# ---------------------------------------------------------------------- a full disk


async def test_a_full_journal_takes_growing_calls(log, clock, pool):
    journal = log.gated()
    async with open_manager(journal, pools=[pool], clock=clock) as manager:
        lease = await manager.allocate("http", owner="r1")
        gone = await manager.allocate("http", owner="r2")
        journal.full = True
        seq = manager.seq
        for call in (
            manager.allocate("http", owner="r3"),
            manager.allocate("http", owner="r3", wait_s=None),
            manager.adopt("http", 30002, owner="r4"),
            manager.hold("http", 30002, hold_s=1),
        ):
            with pytest.raises(JournalFull):
                await call
        assert manager.seq == seq
        assert await manager.allocate("http", owner="r1") == lease  # a repeat records nothing and needs no room
        await manager.release(gone)
        assert (await manager.free("http", gone.port, reason="room")).state is PortState.FREE
        await manager.block("http", 30003, reason="x")
        await manager.unblock("http", 30003)
        await manager.withdraw(lease)
        await manager.release_owner("r1")
        clock.advance(100)
        assert await manager.sweep()
        assert manager.statistics("http").allocated == 0
    assert log.events()[-1].kind is EventKind.CLOSED


async def test_a_journal_that_was_full_once_refuses_for_ever(memory_log, clock, pool):
    """Nobody releases anything; an operator makes room; growing calls must work again."""
    journal = memory_log.gated()
    async with open_manager(journal, pools=[pool], clock=clock) as manager:
        journal.full = True
        with pytest.raises(JournalFull):
            await manager.allocate("http", owner="r1")
        journal.room = True
        with anyio.fail_after(30):
            while True:
                try:
                    lease = await manager.allocate("http", owner="r1")
                except JournalFull:
                    await anyio.lowlevel.checkpoint()
                else:
                    break
        assert manager.find("r1") == (lease,)


# ---------------------------------------------------------------------- seams


async def test_a_snapshot_differs_from_a_replay(memory_log, clock):
    """A log long enough for a snapshot at its end is opened from it, and from its events alone, with the same result."""
    spec = PoolSpec("http", ports="10000-12999", hold_s=10.0)
    async with open_manager(memory_log.handle(), pools=[spec], clock=clock) as manager:

        async def churn(first: int) -> None:
            for number in range(first, first + 300):
                lease = await manager.allocate("http", owner=f"r{number}", service="s" if number % 2 else "")
                if number % 3:
                    await manager.release(lease)
                    await manager.release(await manager.allocate("http", owner=f"r{number}", service=lease.service))

        async with anyio.create_task_group() as tasks:
            for turn in range(13):
                tasks.start_soon(churn, turn * 300)
        digest = manager.digest()
        assert manager.seq > 10_000
    snapshot = memory_log.handle().load_snapshot()
    assert snapshot is not None
    assert snapshot[0] == len(memory_log.events())
    async with open_manager(memory_log.handle(), clock=clock) as manager:
        await manager.allocate("http", owner="last")
        memory_log.check(manager)
    assert replay(memory_log.events(), until=snapshot[0]).digest() != digest  # `closed` moved the time on


@pytest.mark.parametrize("lines", [[b"junk\n"], [b"[]\n"], [b"[9,1,1,1,{},{},{}]\n"], [], [b'[1,1,1,1,{},{"http":5},{}]\n']], ids=repr)
async def test_a_damaged_snapshot_keeps_the_log_from_opening(memory_log, clock, pool, lines):
    async with open_manager(memory_log.handle(), pools=[pool], clock=clock) as manager:
        lease = await manager.allocate("http", owner="r1")
    memory_log.memory.save_snapshot(manager.seq, lines)
    async with open_manager(memory_log.handle(), pools=[pool], clock=clock) as manager:
        assert manager.find("r1") == (lease,)
        memory_log.check(manager)


async def test_a_generator_of_pools_is_read_twice(log, clock):
    def pools() -> Iterator[PoolSpec]:
        yield PoolSpec("a", ports="1")
        yield PoolSpec("b", ports="2")

    async with open_manager(log.handle(), pools=pools(), clock=clock) as manager:
        assert {(await manager.allocate(name, owner="x")).port for name in ("a", "b")} == {1, 2}
