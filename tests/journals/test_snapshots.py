"""Snapshots are a cache: whatever is wrong with one, the log alone decides, and nothing fails."""

import errno

import pytest

from portfsm.errors import JournalError, JournalFull
from portfsm.journals import FileJournal, MemoryJournal
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk

LINES = {seq: [b'{"state":%d}' % seq, b"", b'{"port":30000}'] for seq in range(100)}


def open_log(path, **options):
    journal = FileJournal(path, **options)
    journal.open("me")
    return journal


@pytest.fixture
def log(tmp_path):
    """A closed log of nine events with snapshots as of 6 and 9."""
    journal = open_log(tmp_path)
    for start in (0, 3, 6):
        journal.append(sample_events(3, after=start))
        journal.save_snapshot(start + 3, iter(LINES[start + 3]))
    journal.close()
    return tmp_path


def loaded(path):
    journal = open_log(path)
    found = journal.load_snapshot()
    journal.close()
    return found


def test_old_snapshots_fill_the_disk(log):
    """Two are kept."""
    assert sorted(file.name for file in log.glob("*.snap.jsonl")) == ["00000000000000000006.snap.jsonl", "00000000000000000009.snap.jsonl"]
    assert loaded(log) == (9, LINES[9])


def test_a_damaged_snapshot_is_believed(log):
    """Every bit of the newest one flipped, and it cut at every byte: it is ignored, and the older one is taken."""
    file = log / "00000000000000000009.snap.jsonl"
    good = file.read_bytes()
    journal = open_log(log)
    for place in range(len(good)):
        for damaged in (good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :], good[:place]):
            file.write_bytes(damaged)
            assert journal.load_snapshot() == (6, LINES[6])
    file.unlink()
    assert journal.load_snapshot() == (6, LINES[6])
    (log / "00000000000000000006.snap.jsonl").write_bytes(b"")
    assert journal.load_snapshot() is None
    journal.close()


def test_a_snapshot_of_another_log_or_schema_is_believed(log, tmp_path):
    """Copied from elsewhere, renamed, or of another schema: ignored."""
    other = open_log(tmp_path / "other")
    other.append(sample_events(9))
    other.save_snapshot(9, [b"foreign"])
    other.close()
    newest = log / "00000000000000000009.snap.jsonl"
    good = newest.read_bytes()
    for wrong in (
        (tmp_path / "other" / newest.name).read_bytes(),
        (log / "00000000000000000006.snap.jsonl").read_bytes(),
        good.replace(b'"schema":1', b'"schema":2'),
        good.replace(b'"kind":"snapshot"', b'"kind":"other"'),
    ):
        newest.write_bytes(wrong)
        assert loaded(log) == (6, LINES[6])


def test_a_snapshot_of_a_history_that_was_cut_off_comes_back(log):
    """Newer than the log: ignored at once, and removed before the log can grow past it with other events."""
    name = log / "00000000000000000001.jsonl"
    lines = name.read_bytes().splitlines(keepends=True)
    name.write_bytes(b"".join(lines[:8]))  # up to event 7: the seal and two events are gone
    journal = open_log(log)
    assert journal.load_snapshot() is None or journal.load_snapshot() == (6, LINES[6])
    last = journal.head().seq
    assert last < 9
    journal.append(sample_events(5, after=last))
    assert journal.head().seq >= 9
    assert journal.load_snapshot() == (6, LINES[6])
    journal.close()


def test_a_snapshot_that_cannot_be_written_fails_the_caller():
    """Any call of saving may fail: the older snapshot stays, no half file remains in the way, and events can go on (unless a sync failed)."""
    for kind in (errno.EIO, errno.ENOSPC, "short"):
        for at in range(20):
            disk = SimulatedDisk()
            journal = open_log("/log", disk=disk)
            journal.append(sample_events(6))
            journal.save_snapshot(3, LINES[3])
            disk.fail(at=disk.calls + at, kind=kind)
            journal.save_snapshot(6, LINES[6])
            disk.heal()
            assert journal._directory.sync_failed or journal.load_snapshot() in ((3, LINES[3]), (6, LINES[6]))
            try:
                journal.append(sample_events(1, after=6))
            except JournalError as error:
                assert not isinstance(error, JournalFull)
                assert journal._directory.sync_failed
            journal.close()
            assert FileJournal("/log", disk=disk.killed()).open("me") == 2


def test_a_snapshot_is_half_written_after_a_crash():
    """Stale metadata after a restart (amazon-vpc-cni-k8s#3887). The power goes at any call of saving: the newest intact one is found."""
    for at in range(12):
        for seed in range(10):
            disk = SimulatedDisk()
            journal = open_log("/log", disk=disk)
            journal.append(sample_events(6))
            journal.save_snapshot(3, LINES[3])
            disk.fail(at=disk.calls + at, kind=errno.EIO, persistent=True)
            journal.save_snapshot(6, LINES[6])
            journal = open_log("/log", disk=disk.crashed(seed))
            assert journal.load_snapshot() in ((3, LINES[3]), (6, LINES[6]))
            assert len(list(journal.read(3))) == 3


def test_a_closed_journal_keeps_snapshots(log):
    """Snapshots too need an open journal."""
    journal = FileJournal(log)
    for attempt in (journal.load_snapshot, lambda: journal.save_snapshot(1, [])):
        with pytest.raises(JournalError):
            attempt()


def test_memory_gives_a_snapshot_it_should_not():
    """The journal in memory follows the same rules: newest not beyond the log, two kept, a copy."""
    journal = MemoryJournal()
    journal.open("me")
    journal.append(sample_events(9))
    lines = [b"x"]
    for seq in (3, 6, 9, 12):
        journal.save_snapshot(seq, lines)
    lines.append(b"y")
    assert journal.load_snapshot() == (9, [b"x"])
    assert set(journal._store.snapshots) == {9, 12}
