"""A journal on a simulated disk, and a run over several segments that notes what was promised."""

import os

from portfsm.errors import Fenced, JournalCorrupt, JournalError, JournalFull, OutcomeUnknown
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
