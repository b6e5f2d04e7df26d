"""Syncs that fail: what was never written is not believed, whatever the system says of it later. On a simulated disk."""

import errno
from contextlib import suppress

import pytest

from portfsm.errors import JournalCorrupt, JournalError, OutcomeUnknown
from portfsm.testing.disk import SimulatedDisk
from tests.journals.failing import EVENTS, OLD, SYNCS, Run, open_journal, read_all, unclean_disk


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
