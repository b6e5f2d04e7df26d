"""A full disk: said early, survived on the reserve, and forgotten once there is room again. On a simulated disk."""

import errno
from contextlib import suppress

import pytest

from portfsm.errors import JournalFull, OutcomeUnknown
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk
from tests.journals.failing import open_journal, read_all


def fill(journal, events):
    done = 0
    for event in events:
        try:
            journal.append([event])
        except JournalFull:
            break
        done += 1
    return done


@pytest.mark.parametrize("capacity", range(4000, 6500, 37))
def test_a_full_disk_stops_releases_at_once_or_for_ever(capacity):
    """`full` is said while the reserve still takes events; then `JournalFull` with nothing written; with room again it goes on."""
    disk = SimulatedDisk(capacity=capacity)
    journal = open_journal(disk, reserve_bytes=1500)
    events = sample_events(100)
    said_at = None
    done = 0
    for event in events:
        try:
            journal.append([event])
        except JournalFull as error:
            assert error.path == "/log"
            break
        done += 1
        if journal.full and said_at is None:
            said_at = done
    assert said_at is not None
    assert done - said_at >= 3, "the reserve was worth nothing"
    for _ in range(2):
        with pytest.raises(JournalFull):
            journal.append(events[done : done + 1])
    assert journal.head().seq == done
    journal.save_snapshot(done, [b"x"])
    assert journal.load_snapshot() is None, "the room is for events"
    journal.append([])
    assert journal.full
    disk.capacity = 100_000
    journal.append([])
    assert not journal.full
    journal.append(events[done : done + 3])
    journal.close()
    for after in (disk.killed(), disk.crashed(1)):
        assert read_all(after) == events[: done + 3]


@pytest.mark.parametrize("room", [*range(0, 40, 13), *range(100, 3000, 230)])
@pytest.mark.parametrize("clean", [False, True])
def test_a_log_on_a_full_disk_cannot_be_opened(room, clean):
    """With no room left it opens, reads, and takes releases on the reserve: also when the last segment needs mending."""
    disk = SimulatedDisk()
    journal = open_journal(disk, segment_bytes=1 << 20)
    events = sample_events(60)
    for event in events[:40]:
        journal.append([event])
    if clean:
        journal.close()
    disk = disk.killed()
    disk.capacity = sum(len(file.cache) for file in disk._files.values()) + room
    journal = open_journal(disk, segment_bytes=1 << 20)
    assert list(journal.read()) == events[:40]
    done = 40 + fill(journal, events[40:])
    assert done - 40 >= 5
    assert journal.full or done == 60
    journal.close()
    for after in (disk.killed(), disk.crashed(7)):
        after.capacity = None
        assert read_all(after) == events[:done]


def leaves_unsynced_events(events):
    """A full disk whose last log ended with a failed sync: the cache shows what the platter never had."""
    disk = SimulatedDisk()
    journal = open_journal(disk, segment_bytes=1 << 20)
    for event in events[:20]:
        journal.append([event])
    disk.fail(at=0, kind=errno.EIO, only=["fdatasync"])
    with pytest.raises(OutcomeUnknown):
        journal.append(events[20:30])
    disk = disk.killed()
    disk.capacity = sum(len(file.cache) for file in disk._files.values())
    return disk


def test_pages_that_were_never_written_are_believed_on_a_full_disk():
    """No room to write the last segment anew elsewhere: it is written over itself, all of it, so that a lost page is written after all."""
    events = sample_events(40)
    disk = leaves_unsynced_events(events)
    journal = open_journal(disk, segment_bytes=1 << 20)
    assert list(journal.read()) == events[:30]
    journal.append(events[30:31])
    assert [call.name for call in disk.trace].count("rename") > 0
    disk.evict()
    for after in (disk.killed(), disk.crashed(1), disk.crashed(2)):
        after.capacity = None
        assert read_all(after) == events[:31]


@pytest.mark.parametrize("at", range(5))
def test_a_second_failed_sync_makes_a_seal_that_vouches_for_lost_pages(at):
    """The disk fails again while the segment is written over itself: what is sealed by then is on the platter, and the rest is mended again."""
    events = sample_events(40)
    disk = leaves_unsynced_events(events)
    journal = open_journal(disk, segment_bytes=1 << 20)
    disk.fail(at=at, kind=errno.EIO, only=["fsync"])
    with suppress(OutcomeUnknown):
        journal.append(events[30:31])
    disk = disk.killed()
    journal = open_journal(disk, segment_bytes=1 << 20)
    count = len(list(journal.read()))
    journal.append(events[count : count + 1])
    disk.evict()
    for after in (disk.killed(), disk.crashed(1), disk.crashed(2)):
        after.capacity = None
        assert read_all(after) == events[: count + 1]


def test_the_reserve_is_never_taken_back():
    """Without any probe, appends themselves find out now and then that there is room again."""
    disk = SimulatedDisk(capacity=5000)
    journal = open_journal(disk, reserve_bytes=1500)
    events = sample_events(300)
    done = fill(journal, events)
    assert journal.full
    disk.capacity = 1 << 20
    for event in events[done : done + 70]:
        journal.append([event])
    assert not journal.full
    assert "reserve" in disk.listdir("/log")


def test_a_full_disk_breaks_a_new_log():
    """No room for a single file: typed, and it works as soon as there is room."""
    for capacity in (0, 1, 100, 513, 600):
        disk = SimulatedDisk(capacity=capacity)
        with pytest.raises(JournalFull):
            journal = open_journal(disk)
            journal.append(sample_events(1))
        disk = disk.killed()
        disk.capacity = None
        assert read_all(disk) == []


def test_states_of_the_past_take_the_room_of_events(monkeypatch):
    """They are a cache: on a full disk all but the newest two go before an event is refused."""
    monkeypatch.setattr("portfsm.journals._snapshots._SHARE", 0.001)
    disk = SimulatedDisk(capacity=14_000)
    journal = open_journal(disk, reserve_bytes=500)
    events = sample_events(200)
    for event in events[:5]:
        journal.append([event])
        journal.save_snapshot(event.seq, [b"x" * 1_000])
    kept = [name for name in disk.listdir("/log") if name.endswith(".snap.jsonl")]
    assert len(kept) == 5
    done = 5 + fill(journal, events[5:])
    left = [name for name in disk.listdir("/log") if name.endswith(".snap.jsonl")]
    assert left == kept[-2:]
    assert journal.load_snapshot() == (5, [b"x" * 1_000])
    assert done > 30
    journal.close()
    assert len(read_all(disk)) == done
