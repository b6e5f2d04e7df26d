"""The disk fails: at every call, in every way, once and for ever; then the process dies or the power goes. On a simulated disk.

What must hold each time: errors have our types, what was acknowledged is read back, what was not attempted is not there, and the log
opens again.
"""

import errno
import os
from contextlib import suppress

import pytest

from portfsm.errors import Fenced, JournalCorrupt, JournalError, JournalFull, JournalUnreadable, OutcomeUnknown, PortfsmError
from portfsm.journals import FileJournal
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk

SEGMENT_BYTES = 700
OLD = 3
BATCHES = (2, 1, 4, 1, 3)
EVENTS = sample_events(OLD + sum(BATCHES) + 5)


def open_journal(disk, **options):
    journal = FileJournal("/log", disk=disk, **{"segment_bytes": SEGMENT_BYTES, "reserve_bytes": 2000} | options)
    journal.open("me")
    return journal


def read_all(disk):
    journal = open_journal(disk)
    events = list(journal.read())
    journal.close()
    return events


def unclean_disk(**options):
    """A log with three events whose writer was killed in the middle of a write."""
    disk = SimulatedDisk(**options)
    journal = open_journal(disk)
    journal.append(EVENTS[:OLD])
    after = disk.killed()
    name = "/log/00000000000000000001.jsonl"
    after.overwrite(name, after.contents(name) + b'{"seq":4,"ts":17600')
    after.unlink("/log/reserve")
    after.close(after.open("/log/00000000000000000001.jsonl.tmp", os.O_RDWR | os.O_CREAT))
    directory = after.open("/log", os.O_RDONLY | os.O_DIRECTORY)
    after.fsync(directory)
    after.close(directory)
    after.trace.clear()
    after.calls = 0
    return after


class Run:
    """Open, read, append over several segments, keep a snapshot, close; and note what was promised."""

    def __init__(self, disk):
        self.disk, self.acknowledged, self.attempted, self.unknown, self.journal = disk, OLD, OLD, False, None

    def run(self):
        try:
            self.journal = open_journal(self.disk)
            assert list(self.journal.read()) == EVENTS[:OLD]
        except JournalError:
            return self.finish()
        for number, size in enumerate(BATCHES):
            self.append(size)
            if number == 2:
                self.snapshot()
        return self.finish()

    def append(self, size):
        batch = EVENTS[self.acknowledged : self.acknowledged + size]
        for _ in range(3):
            try:
                self.journal.append(batch)
            except JournalFull:
                assert not self.unknown
                continue
            except (OutcomeUnknown, Fenced, JournalCorrupt):
                self.unknown = True
                self.attempted = max(self.attempted, self.acknowledged + size)
                return
            assert not self.unknown, "an append succeeded after nobody knew what the disk holds"
            self.acknowledged += size
            self.attempted = self.acknowledged
            return

    def snapshot(self):
        self.journal.save_snapshot(self.acknowledged, [b"state"])

    def finish(self):
        if self.journal is not None:
            self.journal.close()
        self.disk.heal()
        return self

    def check(self, disk):
        """After whatever happened, a new writer finds what was promised, and can go on."""
        found = read_all(disk)
        assert self.acknowledged <= len(found) <= self.attempted, (self.acknowledged, len(found), self.attempted)
        assert found == EVENTS[: len(found)]
        journal = open_journal(disk)
        snapshot = journal.load_snapshot()
        assert snapshot is None or (snapshot[0] <= len(found) and snapshot[1] == [b"state"])
        journal.append(EVENTS[len(found) : len(found) + 1])
        journal.close()
        assert read_all(disk) == EVENTS[: len(found) + 1]


CALLS = Run(unclean_disk()).run().disk.calls
SYNCS = sum("sync" in call.name for call in Run(unclean_disk()).run().disk.trace)
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


# ---- syncs that fail ------------------------------------------------------------------------------------------------------


def test_a_failed_sync_is_tried_again():
    """After a failed sync there is no other sync on that file, no acknowledgement, and every later append says so."""
    disk = unclean_disk()
    journal = open_journal(disk)
    journal.append(EVENTS[OLD : OLD + 1])
    disk.fail(at=0, kind=errno.EIO, only=["fdatasync"])
    before = len(disk.trace)
    for _ in range(3):
        with pytest.raises(OutcomeUnknown) as failed:
            journal.append(EVENTS[OLD + 1 : OLD + 2])
    assert failed.value.errno == errno.EIO
    assert "open the log again" in str(failed.value)
    assert journal.head().seq == OLD + 1
    journal.close()
    assert [call.name for call in disk.trace[before:]].count("fdatasync") == 1


def test_pages_that_were_never_written_are_believed():
    """A sync fails and the kernel calls the pages clean: the next opening reads them, and must write them anew before it builds on them."""
    for syncs in range(SYNCS + 1):
        disk = unclean_disk()
        disk.fail(at=syncs, kind=errno.EIO, only=["fdatasync", "fsync"])
        Run(disk).run()
        after = disk.killed()
        journal = open_journal(after)
        believed = list(journal.read())
        journal.append(EVENTS[len(believed) : len(believed) + 1])
        for seed in range(4):
            assert read_all(after.crashed(seed)) == EVENTS[: len(believed) + 1]
        after.evict()
        assert read_all(after.killed()) == EVENTS[: len(believed) + 1]


def test_what_was_read_is_gone_before_it_was_written_anew():
    """The cache forgets a page that was never written between reading it and mending: noticed, not built upon."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append(EVENTS[:1])
    disk.fail(at=0, kind=errno.EIO, only=["fdatasync"])
    with pytest.raises(OutcomeUnknown):
        journal.append(EVENTS[1:3])
    after = disk.killed()
    journal = open_journal(after)
    assert list(journal.read()) == EVENTS[:3]
    after.evict()
    for _ in range(2):
        with pytest.raises(JournalError):
            journal.append(EVENTS[3:4])
    journal.close()
    assert read_all(after.killed()) == EVENTS[:1]


def test_a_seal_that_was_never_written_is_believed():
    """The seal's own sync fails, at closing or at a rotation: it is written anew before another segment follows, or refused if it is gone."""
    for rotation in (False, True):
        disk = SimulatedDisk()
        journal = open_journal(disk, segment_bytes=200 if rotation else 1 << 20)
        journal.append(EVENTS[:1])
        disk.fail(at=0, kind=errno.EIO, only=["fdatasync"])
        if rotation:
            with pytest.raises(OutcomeUnknown):
                journal.append(EVENTS[1:2])
        journal.close()
        after = disk.killed()
        journal = open_journal(after)
        assert journal.recovered == ""
        journal.append(EVENTS[1:2])
        after.evict()
        assert read_all(after.killed()) == EVENTS[:2]
        late = disk.killed()
        journal = open_journal(late)
        late.evict()
        with pytest.raises(JournalCorrupt, match="reads differently"):
            journal.append(EVENTS[1:2])
        assert read_all(late.killed()) == EVENTS[:1]


def test_a_failed_directory_sync_is_forgotten():
    """A snapshot whose directory sync fails poisons the log: the next such error would not be reported."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append(EVENTS[:1])
    disk.fail(at=1, kind=errno.EIO, only=["fsync"])
    journal.save_snapshot(1, [b"x"])
    with pytest.raises(OutcomeUnknown, match="directory"):
        journal.append(EVENTS[1:2])
    journal.close()


@pytest.mark.parametrize("earlier", range(6))
@pytest.mark.parametrize("later", range(6))
def test_a_rename_that_was_never_synced_is_believed(earlier, later):
    """A sync fails while the last segment is mended, and another at the next opening: the disk may know of a later rename alone."""
    disk = unclean_disk()
    for at in (earlier, later):
        journal = open_journal(disk)
        disk.fail(at=at, kind=errno.EIO, only=["fsync"])
        with suppress(OutcomeUnknown):
            journal.append(EVENTS[len(list(journal.read())) :][:1])
        disk = disk.killed()
    for seed in range(30):
        assert read_all(disk.crashed(seed))[:OLD] == EVENTS[:OLD]


def test_an_interrupted_append_is_taken_for_nothing():
    """A KeyboardInterrupt in the middle of an append leaves the journal unusable, not wrong."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append(EVENTS[:1])

    def interrupted(fd, data, offset):
        raise KeyboardInterrupt

    disk.pwrite = interrupted
    with pytest.raises(KeyboardInterrupt):
        journal.append(EVENTS[1:2])
    del disk.pwrite
    with pytest.raises(OutcomeUnknown, match="interrupted"):
        journal.append(EVENTS[1:2])
    journal.close()
    assert read_all(disk.killed()) == EVENTS[:1]


# ---- wrong places ---------------------------------------------------------------------------------------------------------


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
