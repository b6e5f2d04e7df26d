"""Opening a log that is there, twice at once, or with a snapshot that lies."""

from collections.abc import Iterator

import anyio
import pytest

from portfsm import EventKind, InvalidValue, JournalLocked, PoolExhausted, PoolSpec, open_manager, replay

pytestmark = pytest.mark.anyio


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
