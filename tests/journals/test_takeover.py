"""A writer that is superseded at the worst moment: before it writes, and between its write and its sync. On a simulated disk."""

import pytest

from portfsm.errors import Fenced
from portfsm.journals import FileJournal
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk

from .crash_states import RecordedDisk, crash_states, disk_of

EVENTS = sample_events(4)
SEGMENT = "/log/00000000000000000001.jsonl"


@pytest.fixture
def writer():
    disk = SimulatedDisk()
    journal = FileJournal("/log", disk=disk)
    journal.open("zombie")
    journal.append(EVENTS[:1])
    return disk, journal


def supersede(disk):
    disk.overwrite("/log/LOCK", b'{"epoch":99}'.ljust(512))


def test_a_superseded_writer_writes_before_it_looks(writer):
    """Whoever took over may have sealed this very file in place: not a byte may be written, not even to be taken back."""
    disk, journal = writer
    supersede(disk)
    before, calls = disk.contents(SEGMENT), len(disk.trace)
    with pytest.raises(Fenced):
        journal.append(EVENTS[1:2])
    assert {"pwrite", "ftruncate"}.isdisjoint(call.name for call in disk.trace[calls:])
    journal.close()
    assert disk.contents(SEGMENT) == before


def test_a_writer_superseded_during_its_write_acknowledges_it(writer):
    """Whoever took over before the sync has perhaps read the file already: the write is taken back and refused."""
    disk, journal = writer
    before, pwrite = disk.contents(SEGMENT), disk.pwrite

    def late(fd, data, offset):
        written = pwrite(fd, data, offset)
        supersede(disk)
        return written

    disk.pwrite = late
    with pytest.raises(Fenced):
        journal.append(EVENTS[1:2])
    del disk.pwrite
    assert journal.head().seq == 1
    journal.close()
    assert disk.contents(SEGMENT) == before


def test_an_epoch_is_given_twice_after_a_power_cut():
    """An opening that appended nothing stands in LOCK alone: the next one after any power cut still gets a higher epoch."""
    disk, count = RecordedDisk(), 0
    for _ in range(3):
        journal = FileJournal("/log", disk=disk)
        epoch = journal.open("me")
        journal.close()
        for *_, state in crash_states(disk.ops, len(disk.ops) - 1):
            count += 1
            assert FileJournal("/log", disk=disk_of(state)).open("me") > epoch
    assert count >= 3
