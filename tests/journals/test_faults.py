"""The disk fails: at every call, in every way, once and for ever; then the process dies or the power goes. On a simulated disk.

What must hold each time: errors have our types, what was acknowledged is read back, what was not attempted is not there, and the log
opens again.
"""

import errno
import os

import pytest

from portfsm.errors import JournalCorrupt, JournalError, JournalUnreadable, OutcomeUnknown, PortfsmError
from portfsm.testing.disk import SimulatedDisk
from tests.journals.failing import BATCHES, CALLS, EVENTS, OLD, Run, open_journal, read_all, unclean_disk

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.EACCES, "short"]


def test_the_run_is_too_short_to_prove_anything():
    """The run without faults mends, rotates, keeps a snapshot and seals."""
    run = Run(unclean_disk()).run()
    assert run.acknowledged == OLD + sum(BATCHES)
    names = [call.name for call in run.disk.trace]
    assert names.count("rename") >= 5
    assert {
        "open",
        "close",
        "pread",
        "pwrite",
        "fsync",
        "fdatasync",
        "fstat",
        "stat",
        "flock",
        "listdir",
        "mkdir",
        "unlink",
        "allocate",
    } <= set(names)
    run.check(run.disk)


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind if kind == "short" else errno.errorcode[kind])
def test_a_failing_call_loses_events_or_blocks_the_log(kind, persistent):
    """Every call of the run fails once, or with all that follow; afterwards the process is killed, or the power goes."""
    for at in range(CALLS + 1):
        disk = unclean_disk()
        disk.fail(at=at, kind=kind, persistent=persistent)
        run = Run(disk).run()
        run.check(disk.killed())
        for seed in range(2):
            run.check(disk.crashed(seed))


def test_a_power_cut_at_any_call_loses_events_or_blocks_the_log():
    """The power goes at each call of the run, with many fates of what was not synced."""
    for at in range(CALLS + 1):
        disk = unclean_disk()
        disk.fail(at=at, kind=errno.EIO, persistent=True)
        run = Run(disk).run()
        for seed in range(100, 140):
            run.check(disk.crashed(seed))


def test_two_crashes_in_a_row_lose_events_or_block_the_log():
    """The power goes, and goes again at any call of the mending that follows."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append(EVENTS[:OLD])
    disk.fail(at=disk.calls + 1, kind=errno.EIO, persistent=True)  # in the middle of the next write
    with pytest.raises(OutcomeUnknown):
        journal.append(EVENTS[OLD : OLD + 4])
    disk.heal()
    for first in range(4):
        once = disk.crashed(first)
        for at in range(60):
            twice = once.killed()
            twice.trace.clear()
            twice.calls = 0
            twice.fail(at=at, kind=errno.EIO, persistent=True)
            try:
                journal = open_journal(twice)
                found = list(journal.read())
                journal.append(EVENTS[len(found) : len(found) + 2])
                sure = len(found) + 2
            except JournalError:
                sure = OLD
            twice.heal()
            for second in range(3):
                found = read_all(twice.crashed(second))
                assert found == EVENTS[: len(found)]
                assert len(found) >= sure


def test_a_misdirected_write_is_not_noticed():
    """A write that lands elsewhere, while all later ones are right: the log is refused, or complete; never short in silence."""
    refused = 0
    for at in range(CALLS + 1):
        disk = unclean_disk()
        disk.misdirect(at=at)
        run = Run(disk).run()
        try:
            found = read_all(disk.killed())
        except PortfsmError as error:
            assert isinstance(error, JournalCorrupt)
            refused += 1
            continue
        last_write = max(number for number, call in enumerate(disk.trace) if call.name == "pwrite")
        assert found == EVENTS[: len(found)]
        assert len(found) >= run.acknowledged or at > last_write - 25
    assert refused > 10


def test_a_read_error_is_taken_for_the_end_of_the_log():
    """EIO at any read while opening and reading: a typed error, and the log as it was."""
    for at in range(40):
        disk = unclean_disk()
        journal = open_journal(disk)
        journal.append(EVENTS[OLD:10])
        journal.append(EVENTS[10:12])
        journal.close()
        disk.fail(at=at, kind=errno.EIO, only=["pread"])
        try:
            found = read_all(disk)
        except JournalUnreadable as error:
            assert error.errno == errno.EIO
        else:
            assert found == EVENTS[:12]
        disk.heal()
        assert read_all(disk.killed()) == EVENTS[:12]


def test_the_simulated_disk_is_kinder_than_a_real_one():
    """The disk itself: what was not synced can be lost, what was synced cannot, and directories forget names."""
    disk = SimulatedDisk()
    disk.mkdir("/d")
    fd = disk.open("/d/file", os.O_RDWR | os.O_CREAT)
    disk.pwrite(fd, b"a" * 2000, 0)
    directory = disk.open("/d", os.O_RDONLY | os.O_DIRECTORY)
    assert any(disk.crashed(seed).listdir("/d") == [] for seed in range(9)), "a name is durable without a sync of its directory"
    disk.fsync(fd)
    disk.fsync(directory)
    disk.pwrite(fd, b"b" * 1000, 1500)
    disk.rename("/d/file", "/d/other")
    names, lengths, contents = set(), set(), set()
    for seed in range(200):
        after = disk.crashed(seed)
        (name,) = after.listdir("/d")
        data = after.contents(f"/d/{name}")
        assert data[:1500] == b"a" * 1500
        names.add(name)
        lengths.add(len(data))
        contents.add(data)
    assert names == {"file", "other"}
    assert {2000, 2500} < lengths
    assert len(contents) > 30
    assert any(data == b"a" * 1500 + b"b" * 1000 for data in contents)
    disk.fail(at=0, kind=errno.EIO, only=["fsync"])
    with pytest.raises(OSError):
        disk.fsync(fd)
    disk.fsync(fd)
    assert disk.contents("/d/other")[1500:2500] == b"b" * 1000
    lost = disk.crashed(1)
    (name,) = lost.listdir("/d")
    assert b"b" not in lost.contents(f"/d/{name}")
    disk.evict()
    assert b"b" not in disk.contents("/d/other")


def test_a_replayed_trace_is_another_disk():
    """What a trace records is enough to make the disk again, up to any call."""
    disk = unclean_disk()
    fresh = SimulatedDisk()
    journal = open_journal(fresh)
    journal.append(EVENTS[:2])
    again = SimulatedDisk.replayed(fresh.trace)
    for name in fresh.listdir("/log"):
        assert again.contents(f"/log/{name}") == fresh.contents(f"/log/{name}")
    assert disk.calls == 0
