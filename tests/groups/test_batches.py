"""Groups through the manager: one batch on disk, and nothing half given whoever is cancelled or killed."""

import anyio
import pytest

from portfsm import OutcomeUnknown, PoolSpec, Request, open_manager, read_journal, replay
from tests.groups.callers import BOTH, GRPC, HTTP, Callers, release_after, release_and
from tests.tasks import Call, a_few_ticks, at_each_step, stepped

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- one batch


async def test_a_group_that_reaches_the_disk_in_two_batches(log, opened):
    journal = log.gated()
    async with opened(journal) as manager:
        leases = await manager.allocate_group(BOTH)
        assert [(lease.pool, lease.port, lease.owner, lease.service) for lease in leases] == [
            ("http", 1000, "r1", "s"), ("grpc", 2000, "r1", "s"), ("grpc", 2001, "r1", "s"),
        ]  # fmt: skip
        assert [event.token for event in journal.appends[-1]] == [lease.token for lease in leases]
        assert set(manager.find("r1")) == set(leases)
        log.check(manager)


async def test_a_group_seen_before_it_is_durable(log, opened):
    journal = log.gated()
    async with opened(journal) as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        journal.hold()
        await callers.start("group", *BOTH)
        await journal.held()
        await callers.start("repeat", *BOTH)
        assert callers.got == {}
        assert manager.find("r1") == ()
        journal.let_go()
        await callers.settled()
        assert callers.got["group"] == callers.got["repeat"]
        assert len(callers.got["group"]) == 3
        assert log.kinds() == ["allocated"] * 3


async def test_a_group_cut_in_two_where_the_writer_cuts_its_batches(memory_log, clock):
    """More wait for the disk than one append takes: the cut falls between two groups, and a crash there halves none."""
    journal = memory_log.gated()
    pools = [PoolSpec("big", ports="10000-19999", hold_s=10)]
    async with open_manager(journal, pools=pools, clock=clock, close_s=5) as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await manager.allocate("big", owner="first")
        journal.hold()
        await callers.single("second", "big")
        await journal.held()
        before = len(journal.appends) + 1
        for number in range(9):
            await callers.start(f"g{number}", Request("big", f"g{number}", count=1000))
        journal.let_go()
        await callers.settled()
        appends = [sorted({event.owner for event in events}) for events in journal.appends[before:] if events]
        assert appends == [["g0", "g1", "g2", "g3"], ["g4", "g5", "g6", "g7"], ["g8"]]


async def test_a_group_that_a_crash_leaves_in_part(file_log, clock):
    """The log is cut off at each place of its last write: there are all of the leases or none, and the repeat is the same group."""
    async with open_manager(file_log.handle(), pools=[HTTP, GRPC], clock=clock) as manager:
        await manager.allocate("http", owner="before")
    segments = set(file_log.path.glob("*.jsonl"))
    async with open_manager(file_log.handle(), pools=[HTTP, GRPC], clock=clock) as manager:
        (segment,) = set(file_log.path.glob("*.jsonl")) - segments
        start = segment.stat().st_size
        leases = await manager.allocate_group(BOTH)
        whole = segment.read_bytes()
    assert whole.count(b"\n", start) == 3
    for end in range(start, len(whole) + 1):
        segment.write_bytes(whole[:end])
        found = replay(read_journal(file_log.path)).find("r1")
        assert set(found) == (set(leases) if end >= len(whole) - 1 else set()), end  # a newline is no loss
    async with open_manager(file_log.handle(), pools=[HTTP, GRPC], clock=clock) as manager:
        assert await manager.allocate_group(BOTH) == leases


async def test_a_group_that_the_disk_refuses_and_that_is_there_all_the_same(log, opened):
    """Nobody knows what became of it: the caller is told so, and asks again after the next opening."""
    for kept in (True, False):
        journal = log.gated()
        with pytest.raises(OutcomeUnknown):
            async with opened(journal) as manager:
                journal.fail(OSError(5, "no"), kept=kept)
                await manager.allocate_group(BOTH)
        log.lose(journal.inner)
        async with opened() as manager:
            leases = await manager.allocate_group(BOTH)
            assert set(manager.find("r1")) == set(leases)
            await manager.release_owner("r1")


# ---------------------------------------------------------------------- repeats and ends


async def test_a_repeat_after_a_restart_that_takes_new_ports(log, opened):
    wanted = [*BOTH, Request("grpc", "r2", node="n", contiguous=True, count=2, align=2)]
    async with opened() as manager:
        leases = await manager.allocate_group(wanted)
        assert await manager.allocate_group(wanted) == leases
    async with opened() as manager:
        before = manager.seq
        assert await manager.allocate_group(wanted) == leases
        assert await manager.allocate("grpc", owner="r1", service="s") == leases[1]
        assert manager.seq == before
        await manager.release(leases[1])
        again = await manager.allocate_group(wanted)
        assert [old == new for old, new in zip(leases, again, strict=True)] == [True, False, True, True, True]
        assert again[1].port == leases[1].port, "its own quarantined port"
        log.check(manager)


async def test_a_release_of_an_owner_that_forgets_its_further_ports(log, opened):
    async with opened() as manager:
        leases = await manager.allocate_group(BOTH)
        assert set(await manager.release_owner("r1")) == set(leases)
        assert manager.find("r1") == ()
        assert manager.statistics("grpc").quarantined == 2
        log.check(manager)


# ---------------------------------------------------------------------- cancellation


async def test_a_cancelled_group_leaks_a_port(log, opened):
    journals = []

    async def attempt(step):
        journal = log.gated()
        journals.append(journal)
        async with opened(journal) as manager:
            with anyio.CancelScope() as scope:
                leases = await stepped(manager.allocate_group(BOTH), step, scope.cancel)
            await manager.release_owner("nobody")
            if not scope.cancelled_caught:
                assert set(manager.find("r1")) == set(leases)
                await manager.release_owner("r1")
            else:
                assert manager.find("r1") == ()
                ended = [event.cause for event in journal.appends[-1] if event.kind == "released"]
                assert ended in ([], ["cancelled"] * 3), "undone in one batch"
            assert manager.statistics("http").free == 4
            return scope.cancel_called

    await at_each_step(attempt)


@pytest.mark.parametrize("also", ["the group", "a part of it"])
async def test_a_cancelled_group_takes_what_another_call_awaits(log, opened, also):
    journal = log.gated()
    async with opened(journal) as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        journal.hold()
        await callers.start("first", *BOTH)
        await journal.held()
        await (callers.start("second", *BOTH) if also == "the group" else callers.start("second", BOTH[1]))
        callers.scopes["first"].cancel()
        await a_few_ticks()
        journal.let_go()
        await callers.settled()
        assert set(manager.find("r1")) == set(callers.got["second"])
        assert len(callers.got["second"]) == (3 if also == "the group" else 2)
        assert manager.statistics("http").allocated == (1 if also == "the group" else 0)


async def test_a_cancelled_wait_that_keeps_its_place(opened):
    """Those behind it are served at once: it stood in their way alone."""
    async with opened() as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        await manager.allocate("http", owner="x", port=1001)
        await callers.start("group", Request("http", "g", count=3, contiguous=True), Request("grpc", "g"))
        await callers.single("behind", "grpc")
        await callers.single("also", "http")
        assert callers.got == {}
        callers.scopes["group"].cancel()
        await callers.settled()
        assert (callers.ports("behind"), callers.ports("also")) == ([2000], [1000])


@pytest.mark.parametrize("when", ["just before", "before it wakes", "while it awaits the disk"])
async def test_a_granted_group_lost_with_its_cancelled_waiter(log, opened, when):
    """It is granted while it waits, and cancelled: all of it goes to the next one."""
    journal = log.gated()
    async with opened(journal) as manager, anyio.create_task_group() as tasks:
        callers = Callers(manager, tasks)
        blocker = await manager.allocate("http", owner="x", port=1001)
        wanted = [Request("http", "g", count=3, contiguous=True)]
        await callers.start("group", *wanted)
        await callers.start("next", Request("http", "n", count=4))
        journal.hold()
        await callers.start("nobody", Request("grpc", "other"))
        await journal.held()
        if when == "just before":
            tasks.start_soon(release_after, manager, blocker, callers.scopes["group"].cancel)
            await a_few_ticks()
        elif when == "before it wakes":
            tasks.start_soon(release_and, manager, blocker, callers.scopes["group"].cancel)
            await a_few_ticks()
        else:
            Call(tasks, manager.release(blocker))
            await a_few_ticks()
            callers.scopes["group"].cancel()
        await a_few_ticks()
        journal.let_go()
        await callers.settled()
        assert "group" not in callers.got
        assert callers.ports("next") == [1000, 1001, 1002, 1003]
        assert manager.find("g") == ()
