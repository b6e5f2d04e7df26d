"""Pools that change while the manager is open: grown, shrunk, with holes, under another policy; a number is never in two of them.

k3s-io/k3s#5904, #11690: a range that cannot be changed without a restart, and never to one with gaps, is the oldest complaint about NodePorts.
ray-project/ray#64623: a port outside the range joined the pool when it was released.
"""

from __future__ import annotations

import anyio
import attrs
import pytest

from portfsm import FileJournal, PoolSpec, Request, Verdict, open_manager
from portfsm.commands import DefinePool
from portfsm.errors import InvalidValue, ManagerClosed, PoolExhausted, PortOutOfRange
from portfsm.testing import FakeWitness
from tests.tasks import Callers

SECOND = 1_000_000_000


@pytest.fixture
async def manager(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        yield manager
        log.check(manager)


def spec(ports="30000-30003", **options):
    return PoolSpec("http", ports=ports, hold_s=10.0, **options)


# ---------------------------------------------------------------------- growing and shrinking


@pytest.mark.anyio
async def test_those_who_wait_for_a_pool_that_grows(manager, log):
    """On every node, in their order, in the step in which it grows."""
    for node in ("", "n"):
        for number in range(4):
            await manager.allocate("http", owner=f"r{number}", node=node)
    async with anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        for owner, node in (("x", ""), ("y", ""), ("z", "n")):
            await callers.begin(owner, manager.allocate("http", owner=owner, node=node, wait_s=None))
        counts = await manager.define(spec("29999-30003,40000"))
    found = [(lease.owner, lease.node, lease.port) for lease in callers.got.values()]
    assert sorted(found) == [("x", "", 29999), ("y", "", 40000), ("z", "n", 29999)]
    assert (counts.size, manager.pools["http"].ranges) == (12, "29999-30003,40000")
    assert [event.kind for event in log.events()][-4:] == ["pool_defined", "allocated", "allocated", "allocated"]


@pytest.mark.anyio
async def test_a_port_that_drains_and_is_given_again(manager, clock):
    leases = [await manager.allocate("http", owner=owner) for owner in "abcd"]
    await manager.release(leases[2])
    counts = await manager.define(spec("30000-30001"))
    assert (counts.size, counts.free, counts.allocated, counts.retired) == (2, 0, 2, 2)
    assert await manager.allocate("http", owner="d") == leases[3], "its owner keeps it"
    await manager.release(leases[3])
    clock.advance(10)
    await manager.sweep()
    counts = manager.statistics("http")
    assert (counts.size, counts.free, counts.retired) == (2, 0, 0)
    with pytest.raises(PoolExhausted):
        await manager.allocate("http", owner="x")
    with pytest.raises(PortOutOfRange):
        await manager.allocate("http", owner="x", port=30003)


@pytest.mark.anyio
async def test_an_operator_who_frees_a_port_that_left_its_pool_is_told_that_there_is_none(manager):
    """It was freed, and retired by that: an error would make him try again."""
    lease = await manager.allocate("http", owner="a", port=30003)
    await manager.define(spec("30000-30001"))
    await manager.release(lease)
    view = await manager.free("http", 30003, reason="tests")
    assert (view.port, view.state.value) == (30003, "FREE")
    with pytest.raises(PortOutOfRange):
        manager.port("http", 30003)


@pytest.mark.anyio
async def test_a_hole_that_is_given(manager):
    await manager.define(spec("30000,30002-30003"))
    assert [(await manager.allocate("http", owner=owner)).port for owner in "abc"] == [30000, 30002, 30003]


@pytest.mark.anyio
async def test_one_who_waits_for_a_number_that_has_left(manager):
    """Nobody who waits is left in silence."""
    await manager.allocate("http", owner="a", port=30003)
    async with anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await callers.begin("x", manager.allocate("http", owner="x", port=30003, wait_s=None))
        await manager.define(spec("30000-30002"))
    assert isinstance(callers.got["x"], PortOutOfRange)
    assert callers.got["x"].port == 30003


@pytest.mark.anyio
async def test_a_waiting_group_that_a_shrunken_pool_can_never_serve(memory_log, clock):
    """It is told so, instead of keeping for ever all those who wait behind it, here and in its other pools."""
    other = PoolSpec("other", ports="40000-40001", hold_s=0.0)
    async with open_manager(memory_log.handle(), pools=[spec(), other], clock=clock) as manager:
        await manager.allocate("http", owner="x")
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.begin("group", manager.allocate_group([Request("http", "g", count=4), Request("other", "g")], wait_s=None))
            for pool in ("other", "http"):
                await callers.begin(pool, manager.allocate(pool, owner="single", wait_s=None))
            assert callers.got == {}
            await manager.define(spec("30000-30002"))
            await callers.arrived("group", "other", "http")
        assert sorted(callers.served) == ["http", "other"]
        assert isinstance(callers.got["group"], InvalidValue)
        assert "which has 3: ask for fewer" in str(callers.got["group"])


@pytest.mark.anyio
async def test_a_pool_that_comes_back_without_its_holds(manager, clock):
    lease = await manager.allocate("http", owner="a")
    await manager.release(lease)
    await manager.define(spec("30001-30003"))
    await manager.define(spec())
    assert manager.port("http", 30000).until == clock.wall_ns() + 10 * SECOND
    assert (await manager.allocate("http", owner="b")).port == 30001


# ---------------------------------------------------------------------- another policy


@pytest.mark.anyio
async def test_a_running_hold_that_another_policy_shortens(manager, clock):
    first, second = [await manager.allocate("http", owner=owner) for owner in "ab"]
    await manager.release(first)
    await manager.define(attrs.evolve(spec(), hold_s=1.0))
    await manager.release(second)
    now = clock.wall_ns()
    assert [manager.port("http", port).until - now for port in (30000, 30001)] == [10 * SECOND, 1 * SECOND]


@pytest.mark.anyio
async def test_an_order_that_goes_on_as_before(manager, clock):
    for owner in "ab":
        await manager.release(await manager.allocate("http", owner=owner))
        clock.advance(11)
    await manager.sweep()
    await manager.define(spec(order="longest-idle"))
    assert [(await manager.allocate("http", owner=owner)).port for owner in "cdef"] == [30001, 30002, 30003, 30000]
    await manager.define(spec("30000-30999", order="random"))
    drawn = [(await manager.allocate("http", owner=f"r{number}")).port for number in range(15)]
    assert drawn != sorted(drawn)


@pytest.mark.anyio
async def test_one_who_waits_that_is_not_told_of_another_policy(manager, clock):
    """A pool that frees early serves those who waited under the old one."""
    for owner in "abcd":
        await manager.release(await manager.allocate("http", owner=owner))
    clock.advance(3)
    async with anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await callers.begin("x", manager.allocate("http", owner="x", wait_s=None))
        await manager.define(spec(floor_s=2.0, on_pressure="free-earliest"))
    assert callers.got["x"].port == 30000


@pytest.mark.anyio
async def test_evidence_that_waits_for_a_floor_that_was_shortened(memory_log, clock):
    witness = FakeWitness("edge", Verdict.CLEAR)
    async with open_manager(memory_log.handle(), pools=[spec(floor_s=8.0)], clock=clock, witnesses=[witness]) as manager:
        lease = await manager.allocate("http", owner="a")
        await manager.release(lease)
        assert await manager.wait_clear(lease)
        await anyio.wait_all_tasks_blocked()
        assert manager.port("http", 30000).state.value == "QUARANTINED"
        await manager.define(spec(floor_s=0.0))
        await anyio.wait_all_tasks_blocked()
        await manager.sweep()  # which waits for what is on its way to disk, and has no hold to end
        assert manager.port("http", 30000).state.value == "FREE"
        assert [event.cause for event in memory_log.events() if event.kind == "freed"] == ["evidence"]


@pytest.mark.anyio
async def test_a_change_that_a_crash_forgets_or_undoes(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        await manager.define(spec("30000,30005"))
        await manager.define(PoolSpec("new", ports="1-2"))
        await manager.allocate("new", owner="a")
    async with open_manager(log.handle(), clock=clock) as manager:
        assert [found.ranges for found in manager.pools.values()] == ["30000,30005", "1-2"]
        log.check(manager)


@pytest.mark.anyio
async def test_the_same_pool_recorded_twice(manager, log):
    before = len(log.events())
    await manager.define(spec(range(30000, 30004)))
    assert len(log.events()) == before


# ---------------------------------------------------------------------- no number in two pools


@pytest.mark.anyio
async def test_a_port_of_two_pools(manager, log):
    before = len(log.events())
    for ports in ("30003", "1-65535", "29990-30000"):
        with pytest.raises(InvalidValue, match="both have port") as caught:
            await manager.define(PoolSpec("grpc", ports=ports))
        assert "'grpc'" in str(caught.value)
        assert "'http'" in str(caught.value)
    assert len(log.events()) == before
    await manager.define(PoolSpec("grpc", ports="30004-30005"))
    with pytest.raises(InvalidValue):
        await manager.define(spec("30000-30004"))


@pytest.mark.anyio
async def test_a_port_that_drains_in_one_pool_and_is_given_by_another(manager, clock):
    """The number is on one node once: who shrinks a pool to grow another waits for those that still use it."""
    lease = await manager.allocate("http", owner="a", node="n", port=30003)
    await manager.define(spec("30000-30002"))
    grpc = PoolSpec("grpc", ports="30003-30004")
    with pytest.raises(InvalidValue, match=r"port 30003 left pool 'http', but is still ALLOCATED by 'a' there on node 'n'") as caught:
        await manager.define(grpc)
    assert str(caught.value).endswith("give it to pool 'grpc' once it is freed")
    await manager.release(lease)
    with pytest.raises(InvalidValue, match="QUARANTINED"):
        await manager.define(grpc)
    clock.advance(10)
    await manager.sweep()
    await manager.define(grpc)
    assert (await manager.allocate("grpc", owner="b", node="n")).port == 30003


@pytest.mark.anyio
async def test_a_port_that_drains_over_a_restart_and_is_given_by_another_pool(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        await manager.allocate("http", owner="a", port=30003)
        await manager.define(spec("30000-30002"))
    count = len(log.events())
    with pytest.raises(InvalidValue, match="port 30003 left pool 'http'"):
        async with open_manager(log.handle(), pools=[spec("30000-30002"), PoolSpec("grpc", ports="30003")], clock=clock):
            pass
    assert len(log.events()) == count, "refused, and something recorded"


@pytest.mark.anyio
async def test_a_pool_of_the_past_that_is_forgotten_or_stands_in_the_way_for_ever(log, clock, pool):
    """One that only the log remembers has its ports still, unless it was renamed: another has them, and it holds none."""
    async with open_manager(log.handle(), pools=[pool], clock=clock):
        pass
    async with open_manager(log.handle(), clock=clock) as manager:
        with pytest.raises(InvalidValue, match="both have port"):
            await manager.define(PoolSpec("web", ports="30000-30001"))
    async with open_manager(log.handle(), pools=[PoolSpec("web", ports="30000-30001")], clock=clock) as manager:
        await manager.define(PoolSpec("web", ports="30000-30002"))
        assert manager.pools["web"].size == 3


# ---------------------------------------------------------------------- bad input


@pytest.mark.anyio
@pytest.mark.parametrize("value", [None, "http", {"name": "http"}, PoolSpec])
async def test_a_pool_that_is_none(manager, log, value):
    before = len(log.events())
    with pytest.raises(InvalidValue, match="must be a PoolSpec") as caught:
        await manager.define(value)
    assert (caught.value.name, len(log.events())) == ("spec", before)


@pytest.mark.anyio
async def test_a_pool_defined_after_the_manager_was_left(memory_log, clock, pool):
    async with open_manager(memory_log.handle(), pools=[pool], clock=clock) as manager:
        pass
    with pytest.raises(ManagerClosed):
        await manager.define(spec("1"))


@pytest.mark.anyio
async def test_a_full_disk_that_takes_a_new_pool(file_log, clock, pool):
    """As with every call that makes the log grow."""
    async with open_manager(FileJournal(file_log.path), pools=[pool], clock=clock) as manager:
        await manager.define(PoolSpec("grpc", ports="1-2"))
        with pytest.raises(InvalidValue):
            await manager.define(PoolSpec("web", ports="2-3"))
        file_log.check(manager)


def test_a_decision_that_forgets_ports_below_the_old_range(world):
    """Rows move when a pool grows downwards; leases, holds and the one that waits for its number stay with their ports."""
    held = world.allocate("a", port=102)
    world.release(world.allocate("b", port=101))
    world.do(DefinePool(PoolSpec("p", ports="50-60,100-103")))
    assert world.ledger.find("a") == (held,)
    assert world.ledger.port("p", 101).owner == "b"
    assert world.allocate("b").port == 101
    assert world.allocate("c").port == 50
    assert world.replayed().digest() == world.ledger.digest()
