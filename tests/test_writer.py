"""Durable before seen, many calls in one sync, and the order of decisions on disk. The gate of the journal is the disk."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import pytest

from portfsm import EventKind, MemoryJournal, OutcomeUnknown, PoolSpec, PortState, open_manager, replay
from portfsm.testing import GatedJournal, ManualClock
from tests.tasks import a_few_ticks

pytestmark = pytest.mark.anyio

BATCH = 4096


class Running:
    """Calls beside the test, and which of them have returned."""

    def __init__(self, tasks):
        self.tasks = tasks
        self.done = {}

    async def start(self, name, call):
        self.tasks.start_soon(self._run, name, call)
        await a_few_ticks()

    async def _run(self, name, call):
        self.done[name] = await call()


async def test_a_lease_is_seen_before_it_is_durable(gated, log):
    journal, context = gated
    async with context as manager, anyio.create_task_group() as tasks:
        calls = Running(tasks)
        watch = manager.watch()
        before = manager.digest(), manager.seq, manager.head, log.events()
        journal.hold()
        await calls.start("allocate", lambda: manager.allocate("http", owner="r1"))
        await journal.held()
        await a_few_ticks()
        assert calls.done == {}
        assert (manager.digest(), manager.seq, log.events()) == (before[0], before[1], before[3])
        assert manager.find("r1") == ()
        assert manager.port("http", 30000).state is PortState.FREE
        assert manager.statistics("http").free == 4
        assert manager.ports() == ()
        assert "FREE" in manager.explain("http", 30000)
        await calls.start("watch", watch.__anext__)
        assert calls.done == {}
        journal.let_go()
        await manager.release_owner("nobody")
        await a_few_ticks()
        lease = calls.done["allocate"]
        assert manager.find("r1") == (lease,)
        assert calls.done["watch"].token == lease.token
        assert manager.head != before[2]


CALLS = {
    "allocate": lambda manager, lease: manager.allocate("http", owner="r2"),
    "release": lambda manager, lease: manager.release(lease),
    "withdraw": lambda manager, lease: manager.withdraw(lease),
    "release_owner": lambda manager, lease: manager.release_owner("r1"),
    "adopt": lambda manager, lease: manager.adopt("http", 30003, owner="r3"),
    "block": lambda manager, lease: manager.block("http", 30003, reason="x"),
    "hold": lambda manager, lease: manager.hold("http", 30003, hold_s=1),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_repeated_call_returns_before_what_it_repeats_is_durable(gated, name):
    journal, context = gated
    async with context as manager, anyio.create_task_group() as tasks:
        lease = await manager.allocate("http", owner="r1")
        calls = Running(tasks)
        journal.hold()
        await calls.start("first", partial(CALLS[name], manager, lease))
        await journal.held()
        await calls.start("repeat", partial(CALLS[name], manager, lease))
        await a_few_ticks()
        assert calls.done == {}
        journal.let_go()
        await manager.release_owner("nobody")
        await a_few_ticks()
        assert set(calls.done) == {"first", "repeat"}
        assert len(journal.appends) == 3  # the opening, the lease, the call: the repeat recorded nothing


async def test_a_decision_looks_at_what_is_durable_alone(gated):
    """Two calls while the disk is busy: the second must know of the first."""
    journal, context = gated
    async with context as manager, anyio.create_task_group() as tasks:
        calls = Running(tasks)
        journal.hold()
        for owner in ("a", "b", "c", "d"):
            await calls.start(owner, partial(manager.allocate, "http", owner=owner))
        journal.let_go()
        await manager.release_owner("nobody")
        await a_few_ticks()
        assert sorted(lease.port for lease in calls.done.values()) == [30000, 30001, 30002, 30003]


async def test_each_call_pays_for_a_sync_of_its_own(log, clock):
    journal = log.gated()
    async with open_manager(journal, pools=[PoolSpec("http", ports="1-64", hold_s=10)], clock=clock) as manager:
        for turn in range(5):
            before = len(journal.appends)
            async with anyio.create_task_group() as tasks:
                for number in range(64):
                    tasks.start_soon(partial(manager.allocate, "http", owner=f"r{number}"))
            async with anyio.create_task_group() as tasks:
                for number in range(64):
                    tasks.start_soon(manager.release_owner, f"r{number}")
            assert len(journal.appends) - before <= 4, turn
        assert len(log.events()) == 2 + 5 * 128
        log.check(manager)


async def test_a_lone_call_waits_for_company(gated):
    journal, context = gated
    async with context as manager:
        for number in range(4):
            await manager.allocate("http", owner=f"r{number}")
            assert len(journal.appends) == 2 + number


async def test_what_collects_behind_a_slow_sync_is_more_than_one_batch(gated):
    journal, context = gated
    async with context as manager, anyio.create_task_group() as tasks:
        calls = Running(tasks)
        journal.hold()
        await calls.start("first", partial(manager.allocate, "http", owner="a"))
        await journal.held()
        for owner in ("b", "c", "d"):
            await calls.start(owner, partial(manager.allocate, "http", owner=owner))
        assert len(journal.appends) == 1
        journal.let_go(1)
        await journal.held()
        await a_few_ticks()
        assert set(calls.done) == {"first"}
        journal.let_go()
        await manager.release_owner("nobody")
        assert [len(events) for events in journal.appends[1:]] == [1, 3]


async def test_events_are_written_in_another_order_than_they_were_decided(log, clock):
    journal = log.gated()
    async with open_manager(journal, pools=[PoolSpec("http", ports="1-99", hold_s=0)], clock=clock) as manager:

        async def churn(name):
            for _ in range(10):
                await manager.release(await manager.allocate("http", owner=name))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(churn, f"r{number}")
        written = [event.seq for events in journal.appends for event in events]
        assert written == list(range(1, manager.seq + 1))
        for batch in journal.appends:  # a decision is never divided: each release with its freeing
            kinds = [event.kind for event in batch]
            assert kinds.count(EventKind.RELEASED) == kinds.count(EventKind.FREED)
        log.check(manager)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_huge_decision_is_one_endless_write(memory_log, clock):
    journal = memory_log.gated()
    spec = PoolSpec("wide", ports="10000-14599", hold_s=1)
    async with open_manager(journal, pools=[spec], clock=clock) as manager:
        async with anyio.create_task_group() as tasks:
            for port in range(10000, 14600):
                tasks.start_soon(partial(manager.hold, "wide", port, hold_s=1))
        clock.advance(1)
        assert len(await manager.sweep()) == 4600
        assert max(map(len, journal.appends)) == BATCH
        memory_log.check(manager)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_crash_in_a_huge_opening_shortens_a_hold(memory_log, clock):
    """After a reboot every hold starts over. The opening takes several writes, and the machine dies after the first."""
    spec = PoolSpec("wide", ports="10000-14599", hold_s=100)
    async with open_manager(memory_log.handle(), pools=[spec], clock=clock) as manager, anyio.create_task_group() as tasks:
        for port in range(10000, 14600):
            tasks.start_soon(partial(manager.hold, "wide", port, hold_s=100))
    for writes in (1, 1, 2, 9):
        clock.reboot(down_s=1)
        journal = memory_log.gated()
        journal.fail(OutcomeUnknown("the machine died", path="", errno=None), after=writes)
        try:
            async with open_manager(journal, pools=[spec], clock=clock) as manager:
                due = clock.wall_ns() + 100_000_000_000
                assert min(view.until for view in manager.ports()) >= due
                return
        except OutcomeUnknown:
            clock.advance(1)
            # The same boot again: whatever the first write named done must be done.
            async with open_manager(memory_log.handle(), pools=[spec], clock=clock) as manager:
                assert min(view.until for view in manager.ports()) >= clock.wall_ns() + 98_000_000_000


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_second_thread_touches_the_journal(clock, pool):
    """One thread calls the journal, from opening to closing, and no two calls are under way at once."""

    class Watched(MemoryJournal):
        def __init__(self):
            super().__init__()
            self.threads, self.busy = set(), threading.Lock()

        def __getattribute__(self, name):
            found = super().__getattribute__(name)
            if name not in {"open", "read", "append", "close", "load_snapshot", "save_snapshot"}:
                return found

            def call(*arguments):
                assert self.busy.acquire(blocking=False), f"{name} while another call is under way"
                try:
                    self.threads.add(threading.current_thread().name)
                    return found(*arguments)
                finally:
                    self.busy.release()

            return call

    journal = Watched()
    async with open_manager(journal, pools=[pool], clock=clock) as manager, anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(partial(manager.hold, "http", 30000 + number % 4, hold_s=number))
    assert journal.threads == {"portfsm-writer"}


async def test_a_head_taken_during_a_sync_lies(gated, log):
    """`head` waits for the sync that is under way, so that it names what is durable and nothing else."""
    journal, context = gated
    async with context as manager, anyio.create_task_group() as tasks:
        calls = Running(tasks)
        journal.hold()
        await calls.start("allocate", lambda: manager.allocate("http", owner="r1"))
        await journal.held()
        with ThreadPoolExecutor(1) as pool:
            head = pool.submit(lambda: manager.head)
            await a_few_ticks()
            assert not head.done()
            journal.let_go()
            await manager.release_owner("nobody")
            assert head.result(30) == manager.head
        assert manager.head.seq == log.events()[-1].seq


async def test_the_live_state_drifts_from_the_log(log, clock):
    """After every single call, on every kind of call: what the views show is what the log leads to."""
    pools = [PoolSpec("a", ports="1-3", hold_s=5), PoolSpec("b", ports="11-13", hold_s=0, order="longest-idle")]
    async with open_manager(log.handle(), pools=pools, clock=clock) as manager:
        leases = {}
        for turn in range(16):
            for name in ("a", "b"):
                owner = f"r{turn % 2}"
                leases[name] = await manager.allocate(name, owner=owner, service="s", wait_s=None)
                log.check(manager)
                await [manager.withdraw, manager.release][turn % 2](leases[name])
                log.check(manager)
            await [manager.block, manager.unblock][turn // 2 % 2]("a", 3, **({"reason": "x"} if turn // 2 % 2 == 0 else {}))
            log.check(manager)
            await manager.release_owner(f"r{turn % 2}")
            clock.advance(3)
            await manager.sweep()
            log.check(manager)


async def test_reopening_reads_another_state_than_was_shown():
    """The state at each seq that was ever shown is the state that replay gives for it."""
    journal, clock = GatedJournal(), ManualClock()
    shown = {}
    async with open_manager(journal, pools=[PoolSpec("a", ports="1-5", hold_s=2)], clock=clock) as manager:
        for number in range(30):
            lease = await manager.allocate("a", owner=f"r{number}", wait_s=0)
            shown[manager.seq] = manager.digest()
            await manager.release(lease)
            shown[manager.seq] = manager.digest()
            clock.advance(1)
    for seq, digest in shown.items():
        assert replay(journal.read(), until=seq).digest() == digest
