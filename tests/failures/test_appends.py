"""An append that fails or hangs, and a disk that fills up: everybody is told, and nothing is hidden."""

from functools import partial

import anyio
import pytest
import structlog
from anyio.lowlevel import checkpoint

from portfsm import (
    Fenced,
    FileJournal,
    JournalError,
    JournalFull,
    ManagerClosed,
    MemoryJournal,
    OutcomeUnknown,
    PoolSpec,
    open_manager,
    replay,
)
from portfsm.testing import GatedJournal, SimulatedDisk
from tests.tasks import a_few_ticks, writers

pytestmark = pytest.mark.anyio


class Panic(BaseException):
    """What a driver in another language raises when it gives up."""


ERRORS = {
    "OutcomeUnknown": (OutcomeUnknown("sync failed", path="x", errno=5), OutcomeUnknown),
    "Fenced": (Fenced("superseded", path="x", epoch=1, current=2), Fenced),
    "JournalFull": (JournalFull("no room", path="x"), JournalFull),
    "OSError": (OSError(5, "I/O error"), OutcomeUnknown),
    "a driver's": (LookupError("a driver's"), OutcomeUnknown),
    "a panic": (Panic("at the disco"), OutcomeUnknown),
}


@pytest.fixture(params=ERRORS)
def failing(request):
    return ERRORS[request.param]


# ---------------------------------------------------------------------- an append that fails


@pytest.mark.parametrize("kept", [False, True], ids=["lost", "kept"])
async def test_a_failed_append_leaves_a_caller_in_silence(gated, log, failing, kept):
    journal, context = gated
    error, kind = failing
    told = {}

    async def call(name, function):
        try:
            await function()
        except Exception as raised:
            told[name] = raised

    async with context as manager:
        lease = await manager.allocate("http", owner="before")
        digest, seq = manager.digest(), manager.seq
        watch = manager.watch()
        calls = {
            "in flight": partial(manager.allocate, "http", owner="r1"),
            "behind it": partial(manager.release, lease),
            "its repeat": partial(manager.allocate, "http", owner="r1"),
            "a waiter": partial(manager.allocate, "http", owner="r2", port=30000, wait_s=None),
            "a watcher": watch.__anext__,
        }
        journal.hold()
        journal.fail(error, kept=kept)
        async with anyio.create_task_group() as tasks:
            for name, function in calls.items():
                tasks.start_soon(call, name, function)
                await a_few_ticks()
            await journal.held()
            journal.let_go()
        assert {name: type(raised) for name, raised in told.items()} == dict.fromkeys(calls, kind)
        assert len(set(map(id, told.values()))) == 1
        if not isinstance(error, JournalError):
            assert told["in flight"].__cause__ is error
        for later in (partial(manager.allocate, "http", owner="r3"), partial(manager.release, lease), manager.sweep):
            with pytest.raises(kind):
                await later()
        with pytest.raises(kind):
            await anext(manager.watch(after=seq))
        assert (manager.digest(), manager.seq) == (digest, seq)  # what is shown is what was durable
    journal.heal()
    async with open_manager(journal, clock=manager._engine.clock) as again:
        assert again.find("before") == (lease,)
        assert bool(again.find("r1")) is kept  # nobody was told that it has it: either is right, and its owner asks again
        log.check(again)


async def test_callers_pile_up_tracebacks_on_one_error(gated):
    """The error is one object for all who are told. A caller that tries again and again must not make it grow."""
    journal, context = gated
    journal_error = OutcomeUnknown("sync failed", path="x", errno=5)
    async with context as manager:
        journal.fail(journal_error)
        lengths = []
        for _ in range(5):
            with pytest.raises(OutcomeUnknown) as caught:
                await manager.allocate("http", owner="r1")
            lengths.append(len(caught.traceback))
        assert lengths[1] == lengths[-1]


async def test_a_failed_closing_is_hidden_or_hides_what_the_block_raised(log, clock, pool):
    for raised, expected in ((None, OutcomeUnknown), (ZeroDivisionError(), ZeroDivisionError), (anyio.ClosedResourceError(), None)):
        journal = log.gated()
        with pytest.raises(expected or anyio.ClosedResourceError):
            async with open_manager(journal, pools=[pool], clock=clock) as manager:
                lease = await manager.allocate("http", owner="r1")
                journal.fail(OutcomeUnknown("sync failed", path="x", errno=5))
                if raised is not None:
                    raise raised
        assert journal.closed == 1
        assert writers() == []
        async with open_manager(log.handle(), clock=clock) as manager:
            assert manager.find("r1") == (lease,)
            log.check(manager)


async def test_a_broken_log_handler_stops_the_ports(gated, log):
    def broken(_logger, _name, _line):
        raise RuntimeError("the log handler is broken")

    structlog.configure(processors=[broken])
    journal, context = gated
    async with context as manager:
        lease = await manager.allocate("http", owner="r1")
        await manager.release(lease)
        log.check(manager)
        journal.fail(OSError("x"))
        with pytest.raises(OutcomeUnknown):
            await manager.allocate("http", owner="r2")


async def test_a_snapshot_that_cannot_be_kept_stops_the_ports(clock):
    class NoRoom(MemoryJournal):
        asked = 0

        def save_snapshot(self, seq, lines):
            type(self).asked += 1
            raise Panic("no room")

    journal = NoRoom()
    spec = PoolSpec("p", ports="1-10000", hold_s=0)
    async with open_manager(journal, pools=[spec], clock=clock) as manager, anyio.create_task_group() as tasks:
        for number in range(3400):
            tasks.start_soon(_use, manager, number)
    assert NoRoom.asked == 1
    assert replay(journal.read()).digest() == manager.digest()
    NoRoom.asked = 0


async def _use(manager, number):
    await manager.release(await manager.allocate("p", owner=f"r{number}"))


# ---------------------------------------------------------------------- a disk that hangs


async def test_leaving_a_hung_disk_takes_for_ever(gated):
    journal, _ = gated
    told = []

    async def call(function):
        with pytest.raises(OutcomeUnknown) as caught:
            await function()
        told.append(caught.value)

    async with anyio.create_task_group() as tasks:
        with pytest.raises(OutcomeUnknown, match="hang"):
            async with open_manager(journal, pools=[PoolSpec("p", ports="1-3")], close_s=0.01) as manager:
                watch = manager.watch()
                journal.hold()
                tasks.start_soon(call, partial(manager.allocate, "p", owner="r1"))
                tasks.start_soon(call, watch.__anext__)
                await journal.held()
    assert len(told) == 2
    with pytest.raises(OutcomeUnknown):
        await manager.allocate("p", owner="r2")
    thread = writers()[0]
    journal.let_go()
    await anyio.to_thread.run_sync(partial(thread.join, 60))
    assert not thread.is_alive()
    assert journal.closed == 1  # the log is free again, although nobody waited for it
    async with open_manager(journal):
        pass


@pytest.mark.parametrize("error", [ZeroDivisionError, None])
async def test_a_hung_disk_hides_what_the_block_raised(log, error):
    journal = log.gated()
    with pytest.raises(error or OutcomeUnknown):
        async with open_manager(journal, close_s=0.01):
            journal.hold()
            if error:
                raise error
    thread = writers()[0]
    journal.let_go()
    await anyio.to_thread.run_sync(partial(thread.join, 60))
    assert not thread.is_alive()


def test_a_disk_that_wakes_up_after_its_loop_has_ended_loses_its_thread(anyio_backend, clock):
    """The thread's word finds nobody; it must still close the journal and end."""
    journal = GatedJournal()

    async def main():
        with pytest.raises(OutcomeUnknown):
            async with open_manager(journal, clock=clock, close_s=0.01):
                journal.hold()

    name, options = anyio_backend
    anyio.run(main, backend=name, backend_options=options)
    thread = writers()[0]
    assert journal.closed == 0
    journal.let_go()
    thread.join(60)
    assert not thread.is_alive()
    assert journal.closed == 1


async def test_a_lease_block_on_a_hung_disk_never_ends(log, clock, pool):
    journal = log.gated()
    with pytest.raises(OutcomeUnknown):
        async with open_manager(journal, pools=[pool], clock=clock, close_s=0.01) as manager, manager.lease("http", owner="r1"):
            journal.hold()
    thread = writers()[0]
    journal.let_go()
    await anyio.to_thread.run_sync(partial(thread.join, 60))


# ---------------------------------------------------------------------- real journals on bad disks


async def test_a_full_disk_loses_a_release(clock):
    """A small disk fills up with leases; releasing and closing go on in the reserve; once there is room, so does allocating."""
    disk = SimulatedDisk(capacity=200_000)
    spec = PoolSpec("wide", ports="10000-19999", hold_s=0)
    leases = []
    async with open_manager(FileJournal("/log", disk=disk, reserve_bytes=150_000), pools=[spec], clock=clock) as manager:
        with pytest.raises(JournalFull):
            for number in range(10_000):
                leases.append(await manager.allocate("wide", owner=f"r{number}"))  # noqa: PERF401
        assert len(leases) > 20
        for lease in leases[1:]:
            await manager.release(lease)
        assert manager.find("r0") == (leases[0],)
        assert manager.statistics().allocated == 1
        disk.capacity = 10_000_000
        with anyio.fail_after(30):
            while not manager.find("late"):
                try:
                    await manager.allocate("wide", owner="late")
                except JournalFull:
                    await checkpoint()
    async with open_manager(FileJournal("/log", disk=disk.killed(), reserve_bytes=1), pools=[spec], clock=clock) as manager:
        assert [view.owner for view in manager.ports()] == ["r0", "late"]


async def test_a_failed_sync_loses_what_was_acknowledged(clock, pool):
    for kind in ("fsync", "fdatasync", "pwrite"):
        disk = SimulatedDisk()
        journal = FileJournal("/log", disk=disk, reserve_bytes=100)
        async with open_manager(journal, pools=[pool], clock=clock) as manager:
            kept = await manager.allocate("http", owner="kept")
            disk.fail(at=1, kind=5, only=[kind])
            with pytest.raises(OutcomeUnknown):
                for number in range(3):
                    await manager.release(await manager.allocate("http", owner=f"r{number}"))
                raise OutcomeUnknown("no call of this kind", path="", errno=None)
        again = FileJournal("/log", disk=disk.killed(), reserve_bytes=100)
        async with open_manager(again, pools=[pool], clock=clock) as manager:
            assert manager.find("kept") == (kept,)


async def test_calls_go_on_in_a_manager_that_was_left_by_an_error(gated):
    journal, context = gated
    with pytest.raises(ZeroDivisionError):
        async with context as manager:
            raise ZeroDivisionError
    with pytest.raises(ManagerClosed):
        await manager.allocate("http", owner="r1")
    assert journal.closed == 1
