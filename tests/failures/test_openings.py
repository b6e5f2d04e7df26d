"""An opening that fails, many openings, and two writers: nothing is left behind, and opening again is right."""

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

import portfsm
from portfsm import (
    Event,
    EventKind,
    Fenced,
    InvalidValue,
    JournalCorrupt,
    JournalLocked,
    MemoryJournal,
    OutcomeUnknown,
    PoolSpec,
    open_manager,
    read_journal,
)
from tests.tasks import writers

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- an opening that fails


class Faulty(MemoryJournal):
    """Raises in one method."""

    def __init__(self, method, error):
        super().__init__()
        self.method, self.error = method, error
        self.closings = 0

    def __getattribute__(self, name):
        if name in {"open", "read", "append", "load_snapshot"} and name == self.method:
            return self.refuse
        return super().__getattribute__(name)

    def refuse(self, *_):
        raise self.error

    def close(self):
        self.closings += 1
        super().close()


@pytest.mark.parametrize("method", ["open", "read", "append", "load_snapshot"])
async def test_an_opening_that_fails_keeps_the_lock_or_the_thread(clock, pool, method):
    for error, kind in ((LookupError("x"), (LookupError, OutcomeUnknown)), (JournalCorrupt("x", path="x"), JournalCorrupt)):
        journal = Faulty(method, error)
        with pytest.raises(kind):
            async with open_manager(journal, pools=[pool], clock=clock):
                pytest.fail("it opened")
        assert writers() == []
        assert journal.closings == (0 if method == "open" else 1)
        journal.method = ""
        async with open_manager(journal, pools=[pool], clock=clock) as manager:
            await manager.allocate("http", owner="r1")


async def test_an_opening_that_fails_half_way_through_the_log_keeps_the_lock(clock, pool):
    def events():
        yield from list(good.read())[:2]
        raise JournalCorrupt("bad sector", path="x", seq=3)

    class Damaged(MemoryJournal):
        def read(self, after=0):
            return events()

    good, journal = MemoryJournal(), Damaged()
    async with open_manager(good, pools=[pool], clock=clock):
        pass
    with pytest.raises(JournalCorrupt, match="bad sector"):
        async with open_manager(journal, pools=[pool], clock=clock):
            pass
    assert journal._store.holder is None
    assert writers() == []


async def test_a_log_that_contradicts_itself_is_opened(clock, pool):
    """Each line proves, and yet two owners hold one port: faulty software wrote it, or somebody forged it."""
    journal = MemoryJournal()
    async with open_manager(journal, pools=[pool], clock=clock) as manager:
        lease = await manager.allocate("http", owner="r1")
    last = journal._store.events[-1]
    forged = Event(last.seq + 1, last.ts, EventKind.ALLOCATED, "", "http", lease.port, "r2", "", last.seq + 1)
    journal._store.events.append(forged)
    with pytest.raises(JournalCorrupt) as caught:
        async with open_manager(journal, pools=[pool], clock=clock):
            pass
    assert caught.value.seq == forged.seq
    assert journal._store.holder is None
    assert writers() == []


async def test_pools_that_overlap_leave_something_behind(log, clock):
    specs = [PoolSpec("a", ports="1-10"), PoolSpec("b", ports="10-20")]
    with pytest.raises(InvalidValue, match="port 10"):
        async with open_manager(log.handle(), pools=specs, clock=clock):
            pass
    assert writers() == []
    assert log.path is None or not log.path.exists()


@pytest.mark.parametrize(
    "options", [{"holder": "a\nb"}, {"holder": ""}, {"close_s": -1}, {"close_s": float("nan")}, {"after_reboot": "maybe"}]
)
async def test_a_bad_option_leaves_a_thread_behind(log, clock, options):
    with pytest.raises(InvalidValue):
        async with open_manager(log.handle(), clock=clock, **options):
            pass
    assert writers() == []
    assert log.path is None or not log.path.exists()


async def test_a_journal_whose_closing_raises_hides_what_came_before(clock, pool):
    class Rude(MemoryJournal):
        def close(self):
            super().close()
            raise LookupError("on the way out")

    async with open_manager(Rude(), pools=[pool], clock=clock) as manager:
        await manager.allocate("http", owner="r1")
    with pytest.raises(ZeroDivisionError):
        async with open_manager(Rude(), pools=[pool], clock=clock):
            raise ZeroDivisionError
    assert writers() == []


# ---------------------------------------------------------------------- many openings


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def test_openings_leak_threads(clock, pool):
    """334 on each of three kinds of loop."""
    journal = MemoryJournal()
    before, files = threading.active_count(), descriptors()
    for _ in range(334):
        async with open_manager(journal, pools=[pool], clock=clock):
            pass
    assert threading.active_count() <= before + 1  # the loop's own helper, at most
    assert writers() == []
    assert descriptors() <= files + 3


async def test_openings_leak_files(file_log, clock, pool):
    for turn in range(30):
        if turn == 5:
            before = descriptors()
        async with open_manager(file_log.handle(), pools=[pool], clock=clock) as manager:
            await manager.release_owner("nobody")
    assert descriptors() == before
    assert writers() == []
    assert manager.epoch == 30


# ---------------------------------------------------------------------- two writers


async def test_a_zombie_writes_on(log, clock, pool):
    """Two controllers gave the same port (kubernetes/kubernetes#43233).

    The first manager loses the log without noticing. What it does next is refused, and nothing of it is recorded.
    """
    first = log.handle()
    with pytest.raises(ZeroDivisionError):  # what the block raises, not what the zombie's closing meets
        async with open_manager(first, pools=[pool], clock=clock) as zombie:
            lease = await zombie.allocate("http", owner="r1")
            log.lose(first)
            async with open_manager(log.handle(), pools=[pool], clock=clock) as successor:
                assert successor.find("r1") == (lease,)
                await successor.release(lease)
                for call in (partial(zombie.allocate, "http", owner="late"), partial(zombie.release, lease), zombie.sweep):
                    with pytest.raises(Fenced):
                        await call()
                assert zombie.find("r1") == (lease,)
                await successor.allocate("http", owner="r2", port=30003)
                log.check(successor)
            raise ZeroDivisionError
    assert "late" not in {event.owner for event in log.events()}
    assert successor.epoch == zombie.epoch + 1
    async with open_manager(log.handle(), pools=[pool], clock=clock) as third:
        log.check(third)


OTHER_PROCESS = """
import sys, anyio, portfsm
async def main():
    async with portfsm.open_manager(sys.argv[1], pools=[portfsm.PoolSpec("http", ports="30000-30003")], holder="the other one") as manager:
        await manager.allocate("http", owner="theirs")
        print("open", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)
anyio.run(main)
"""


def other_process(path):
    environment = {**os.environ, "PYTHONPATH": str(Path(portfsm.__file__).parents[1])}
    command = [sys.executable, "-c", OTHER_PROCESS, str(path)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_two_processes_write_one_log(file_log, pool):
    with other_process(file_log.path) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(JournalLocked) as caught:
            async with open_manager(file_log.path, pools=[pool]):
                pass
        assert (caught.value.pid, caught.value.holder) == (other.pid, "the other one")
        assert str(other.pid) in str(caught.value)
        assert [event.owner for event in read_journal(file_log.path)][-1] == "theirs"  # readers need no lock
        other.kill()
        other.stdin.close()
    async with open_manager(file_log.path, pools=[pool]) as manager:  # its lock fell with it
        assert manager.find("theirs")
    assert writers() == []
