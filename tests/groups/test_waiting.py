"""Groups that wait: first come first served in every pool, and what is refused or recorded by the way."""

import random
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import (
    FileJournal,
    GroupUnavailable,
    InvalidValue,
    JournalFull,
    ManagerClosed,
    OwnerConflict,
    PoolExhausted,
    PoolSpec,
    PortUnavailable,
    Request,
    UnknownPool,
    open_manager,
)
from tests.groups.callers import BOTH, GRPC, HTTP, Callers
from tests.tasks import a_few_ticks

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- waiting


async def test_a_group_starved_by_single_requests(log, opened):
    """Claims that waited on an empty pool were never served (cluster-api-ipam-provider-in-cluster#179).

    Single ports come and go, each taken at once by whoever asks: the group that came first is served before them.
    """
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        held = [await manager.allocate("http", owner=f"h{number}") for number in range(4)]
        await callers.start("group", Request("http", "g", count=2, contiguous=True, align=2))
        for number in range(8):
            await callers.single(f"s{number}", "http")
        for lease in (held[1], held[3]):
            await manager.release(lease)
            await callers.settled()
            assert callers.got == {}, "free ports wait for the group that waits for them"
        await manager.release(held[0])
        await callers.settled()
        assert callers.ports("group") == [1000, 1001]
        assert callers.ports("s0") == [1003]
        assert len(callers.got) == 2
        tasks.cancel_scope.cancel()


async def test_a_single_request_that_passes_a_waiting_group(opened):
    """By its number, by asking anew, by another pool of the same group: none of these."""
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await manager.allocate("http", owner="x", port=1001)
        mine = await manager.allocate("grpc", owner="mine")
        await callers.start("group", Request("http", "g", count=3, contiguous=True), Request("grpc", "g"))
        with pytest.raises(PoolExhausted, match="others wait for pool 'grpc'"):
            await manager.allocate("grpc", owner="s")
        with pytest.raises(PoolExhausted, match="others wait"):
            await manager.allocate("http", owner="s", port=1003)
        with pytest.raises(PoolExhausted, match="others wait"):
            await manager.allocate_group([Request("grpc", "t"), Request("http", "t", node="elsewhere")])
        await callers.single("number", "http", port=1003)
        assert callers.got == {}
        assert (await manager.allocate("http", owner="free", node="elsewhere")).port == 1000, "where it needs nothing it is in nobody's way"
        assert await manager.allocate("grpc", owner="mine") == mine, "nor in the way of a repeat"
        assert await manager.allocate_group([Request("grpc", "mine")]) == (mine,)
        await manager.release_owner("x")
        await callers.settled()
        assert callers.ports("group") == [1000, 1001, 1002, 2001]
        assert callers.ports("number") == [1003]


async def test_a_group_that_passes_those_before_it_in_another_pool(opened):
    """It is first in one queue and second in the other: it waits there, and is served as soon as it is first in both."""
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        for number in range(4):
            await manager.allocate("http", owner=f"h{number}")
            await manager.allocate("grpc", owner=f"g{number}")
        await callers.start("pair", Request("grpc", "pair", count=2))
        await callers.start("group", Request("http", "group"), Request("grpc", "group"))
        await callers.single("after", "http")
        await manager.free("grpc", (await manager.release_owner("g0"))[0].port, reason="test")
        await manager.release_owner("h0")
        await callers.settled()
        assert callers.got == {}, "both pools have a port, and the pair comes first"
        callers.scopes["pair"].cancel()
        await callers.settled()
        assert callers.ports("group") == [1000, 2000]
        assert "after" not in callers.got
        await manager.release_owner("h1")
        await callers.settled()
        assert callers.ports("after") == [1001]


async def test_those_behind_a_served_group_forgotten_in_its_other_pools(opened):
    """What it needed last came free in one pool; in the other there was room all the time, behind it."""
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        for number in range(4):
            await manager.allocate("grpc", owner=f"g{number}")
        await callers.start("group", Request("http", "group"), Request("grpc", "group"))
        await callers.single("behind", "http")
        assert callers.got == {}
        await manager.free("grpc", (await manager.release_owner("g0"))[0].port, reason="test")
        await callers.settled()
        assert (callers.ports("group"), callers.ports("behind")) == ([1000, 2000], [1001])


async def test_two_groups_that_wait_for_each_other(opened):
    """Each is first where the other is second, if queues were joined in any order: they are joined in one step."""
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        for number in range(4):
            await manager.allocate("http", owner=f"h{number}")
        await callers.start("one", Request("http", "one"), Request("grpc", "one"))
        await callers.start("two", Request("grpc", "two"), Request("http", "two"))
        for number in range(2):
            await manager.release_owner(f"h{number}")
        await callers.settled()
        assert (callers.ports("one"), callers.ports("two")) == ([1000, 2000], [2001, 1001])


async def test_a_waiting_group_that_sleeps_through_the_end_of_a_hold(opened, clock):
    """Ports fall due one after another and nothing else happens: it is woken for the last one it needs."""
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        for number in range(4):
            await manager.allocate("grpc", owner=f"g{number}")
        for number in range(4):
            await manager.release_owner(f"g{number}")
            clock.advance(1)
        await callers.start("group", Request("grpc", "g", count=3, contiguous=True))
        for _ in range(2):
            clock.advance(3.5)  # 11 s after the first release, 9 after the third
            await callers.settled()
        assert callers.got == {}
        clock.advance(1)
        await callers.settled()
        assert callers.ports("group") == [2000, 2001, 2002]


async def test_a_wait_that_ends_without_saying_what_was_in_the_way(opened, clock):
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await manager.allocate("http", owner="x", port=1001)
        await callers.start("group", Request("http", "g", count=3, contiguous=True), wait_s=5)
        await callers.single("behind", "http")
        clock.advance(5)
        await callers.settled()
        error = callers.got["group"]
        assert isinstance(error, GroupUnavailable)
        assert [(view.port, view.owner) for view in error.in_the_way] == [(1001, "x")]
        assert callers.ports("behind") == [1000]


async def test_a_group_call_that_waits_behind_the_same_group(opened):
    """The first call is served and the second has its answer, though somebody waits between them."""
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        wanted = [Request("http", "g", count=2), Request("grpc", "g")]
        for number in range(3):
            await manager.allocate("http", owner=f"h{number}")
        await callers.start("first", *wanted)
        await callers.start("between", Request("http", "b", count=4))
        await callers.start("second", *wanted)
        await manager.release_owner("h0")
        await callers.settled()
        assert callers.got["first"] == callers.got["second"]
        assert "between" not in callers.got
        tasks.cancel_scope.cancel()


async def test_an_adoption_that_a_waiting_group_never_hears_of(opened):
    """Its owner proves a port of another number: the wait ends in the conflict, not in silence."""
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await manager.allocate("http", owner="x", port=1001)
        await callers.start("group", Request("http", "g", count=3, contiguous=True, align=1000))
        await manager.adopt("http", 1003, owner="g")
        await manager.release_owner("x")
        await callers.settled()
        assert isinstance(callers.got["group"], OwnerConflict)


async def test_a_waiting_group_left_in_silence_by_a_manager_that_is_left(opened):
    async with anyio.create_task_group() as tasks:
        async with opened() as manager:
            callers = Callers(manager, tasks)
            await manager.allocate("http", owner="x", port=1001)
            await callers.start("group", Request("http", "g", count=3, contiguous=True), Request("grpc", "g"))
        await a_few_ticks()
        assert isinstance(callers.got["group"], ManagerClosed)


async def test_a_crowd_of_groups_and_singles_that_breaks_a_promise(log, clock):
    """Many calls at random, some cancelled: each group whole or not there, no port twice, and in the end everything is free."""
    dice = random.Random("crowd")
    pools = [PoolSpec("http", ports="1000-1007", hold_s=0, order="random"), PoolSpec("grpc", ports="2000-2007", hold_s=0)]
    async with open_manager(log.handle(), pools=pools, clock=clock, close_s=5) as manager:
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(_live, manager, f"r{number}", random.Random(f"{number}"), dice.random() < 0.3)
        assert manager.statistics().allocated == 0
        log.check(manager)
    _check_whole(log.events())


async def _live(manager, owner, dice, cancelled):
    """One replica: it asks for a group or a port, holds it for a few ticks, lets go."""
    requests = [Request("http", owner, count=dice.randint(1, 3), contiguous=dice.random() < 0.5), Request("grpc", owner, count=2)]
    for _ in range(dice.randint(0, 20)):
        await checkpoint()
    with anyio.CancelScope() as scope:
        if cancelled:
            scope.deadline = anyio.current_time() + dice.random() * 0.02
        if dice.random() < 0.3:
            await manager.allocate("http", owner=owner, wait_s=None)
        else:
            leases = await manager.allocate_group(requests, wait_s=None)
            assert len({(lease.pool, lease.port) for lease in leases}) == requests[0].count + 2
        for _ in range(dice.randint(0, 10)):
            await checkpoint()
    with anyio.CancelScope(shield=True):
        await manager.release_owner(owner)


def _check_whole(events):
    """The leases that one owner began stand side by side in the log."""
    begun = {}
    for event in events:
        if event.kind == "allocated":
            begun.setdefault(event.owner, []).append(event.seq)
    assert all(seqs == [*range(seqs[0], seqs[0] + len(seqs))] for seqs in begun.values())


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("requests", "wait_s", "error"),
    [
        ([], 0, InvalidValue),
        (None, 0, InvalidValue),
        ([Request("http", "a"), Request("http", "a")], 0, InvalidValue),
        ([Request("http", "a", count=5)], None, InvalidValue),
        ([Request("http", "a", count=2, contiguous=True, align=1003)], None, InvalidValue),
        ([Request("http", "a"), Request("none", "a")], None, UnknownPool),
        ([Request("http", "a")], -1, InvalidValue),
        ([Request("http", "a")], float("nan"), InvalidValue),
        ([Request("http", "a"), Request("grpc", "b", port=2003)], 0, PortUnavailable),
        ([Request("http", "taker"), Request("grpc", "taker", service="other")], None, OwnerConflict),
    ],
)
async def test_a_bad_group_that_is_recorded_or_waits_for_ever(log, opened, requests, wait_s, error):
    async with opened() as manager:
        await manager.allocate("grpc", owner="taker", port=2003)
        before = manager.seq, manager.digest()
        with pytest.raises(error), anyio.fail_after(20):
            await manager.allocate_group(requests, wait_s=wait_s)
        await manager.release_owner("nobody")
        assert (manager.seq, manager.digest()) == before
        assert log.kinds() == ["allocated"]


async def test_an_impossible_group_that_queues_up_and_lets_nobody_pass(opened):
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await manager.allocate("http", owner="x", port=1001)
        await callers.start("group", Request("http", "g", count=3, contiguous=True))
        for requests, error in (
            ([Request("http", "a", count=5)], InvalidValue),
            ([Request("http", "x", service="other")], OwnerConflict),
            ([Request("http", "a"), Request("none", "a")], UnknownPool),
        ):
            with pytest.raises(error), anyio.fail_after(20):
                await manager.allocate_group(requests, wait_s=None)
        tasks.cancel_scope.cancel()


async def test_a_group_given_on_a_full_disk(memory_log, clock):
    journal = memory_log.gated()
    async with open_manager(journal, pools=[HTTP, GRPC], clock=clock) as manager:
        leases = await manager.allocate_group(BOTH)
        journal.full = True
        with pytest.raises(JournalFull):
            await manager.allocate_group([Request("http", "r2"), Request("grpc", "r2")])
        assert await manager.allocate_group(BOTH) == leases
        assert manager.find("r2") == ()


async def test_a_group_asked_of_a_manager_that_was_left(opened):
    async with opened() as manager:
        pass
    with pytest.raises(ManagerClosed):
        await manager.allocate_group(BOTH)


def test_a_log_with_groups_that_an_older_reader_refuses(tmp_path: Path):
    """What is new is one key inside `data`, and only where it says something."""

    async def main():
        async with open_manager(FileJournal(tmp_path / "log"), pools=[HTTP, GRPC]) as manager:
            await manager.allocate_group(BOTH)

    anyio.run(main)
    lines = b"".join(path.read_bytes() for path in (tmp_path / "log").glob("*.jsonl")).splitlines()
    begun = [line for line in lines if b'"kind":"allocated"' in line]
    assert [b'"data":{"index":1}' in line for line in begun] == [False, False, True]
    assert all(b'"data"' not in line for line in begun[:2])
