"""Groups through the manager: one batch on disk, first come first served, nothing half given whoever is cancelled or killed."""

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
    OutcomeUnknown,
    OwnerConflict,
    PoolExhausted,
    PoolSpec,
    PortfsmError,
    PortUnavailable,
    Request,
    UnknownPool,
    open_manager,
    read_journal,
    replay,
)
from tests.test_cancellation import Call, at_each_step, stepped

pytestmark = pytest.mark.anyio

TICKS = 10
HTTP = PoolSpec("http", ports="1000-1003", hold_s=0)
GRPC = PoolSpec("grpc", ports="2000-2003", hold_s=10.0)
BOTH = [Request("http", "r1", service="s"), Request("grpc", "r1", service="s", count=2)]


async def a_few_ticks():
    for _ in range(TICKS):
        await checkpoint()


async def release_and(manager, lease, then):
    """Release, and do something before anybody that this wakes gets a turn."""
    await stepped(manager.release(lease), 1, then)


async def release_after(manager, lease, first):
    """Do something and release in one step: whoever hears of the first has by then been given what the second frees."""
    first()
    await manager.release(lease)


@pytest.fixture
def opened(log, clock):
    def make(journal=None, pools=(HTTP, GRPC)):
        return open_manager(journal or log.handle(), pools=pools, clock=clock, close_s=5)

    return make


class Callers:
    """Calls beside the test, and what came of each, in the order in which they were served."""

    def __init__(self, manager, tasks):
        self.manager, self.tasks = manager, tasks
        self.got, self.scopes = {}, {}

    async def start(self, name, *requests, wait_s=None):
        """A group, or with one plain request an `allocate`; it gets as far as it can."""
        self.tasks.start_soon(self._call, name, requests, wait_s)
        await a_few_ticks()

    async def single(self, name, pool, *, wait_s=None, **options):
        self.tasks.start_soon(self._single, name, pool, wait_s, options)
        await a_few_ticks()

    async def _call(self, name, requests, wait_s):
        with anyio.CancelScope() as self.scopes[name]:
            try:
                self.got[name] = await self.manager.allocate_group(requests, wait_s=wait_s)
            except PortfsmError as error:
                self.got[name] = error

    async def _single(self, name, pool, wait_s, options):
        with anyio.CancelScope() as self.scopes[name]:
            try:
                self.got[name] = (await self.manager.allocate(pool, owner=name, wait_s=wait_s, **options),)
            except PortfsmError as error:
                self.got[name] = error

    async def settled(self):
        """Everything that can run has run, and everything decided is durable."""
        for _ in range(3):
            await a_few_ticks()
            await self.manager.release_owner("nobody")
        await a_few_ticks()

    def ports(self, name):
        return [lease.port for lease in self.got[name]]


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
