"""What every journal must do, as tests to inherit. For whoever brings a journal of their own.

    class TestMyJournal(JournalContract):
        def handle(self, place: Path) -> Journal:
            return MyJournal(place)              # not yet open; each call: one more handle on the same log

        def usurp(self, journal: Journal) -> None:
            ...                                  # let the open journal lose its place without telling it

The name of each test is the failure it prevents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from portfsm.errors import Fenced, InternalError, JournalError, JournalLocked
from portfsm.events import Event
from portfsm.protocols import CachingJournal, Journal
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["JournalContract", "sample_events"]

_START_NS = 1_760_000_000_000_000_000


def sample_events(count: int, *, after: int = 0) -> list[Event]:
    """`count` events that follow `after`: every field is used by some of them, and every kind of character."""
    return [_sample(seq) for seq in range(after + 1, after + count + 1)]


def _sample(seq: int) -> Event:
    ts = _START_NS + seq * 1_000_000
    port = 30_000 + seq // 3 % 1000
    owner = f"replica-{seq // 3}"
    if seq % 41 == 0:
        return Event(
            seq, ts, EventKind.OPENED, data={"epoch": 1, "b": [1, 2], "c": "00000000", "ünï": '"\\\n\u2028', "list": [1.5, None, True]}
        )
    if seq % 3 == 0:
        return Event(seq, ts, EventKind.ALLOCATED, "nöde-a", "http", port, owner, "checkout", seq)
    if seq % 3 == 1:
        return Event(
            seq, ts, EventKind.RELEASED, "", "http", port, owner, "", seq - 1, 10_000, ts + 10_000_000_000, "released", 'said "stop"\n'
        )
    return Event(seq, ts, EventKind.FREED, "", "http", port, cause="elapsed")


class JournalContract:
    """Inherit, name the class `Test...`, implement `handle` and `usurp`."""

    def handle(self, place: Path) -> Journal:
        """A journal, not yet open. Each call with the same `place` (an empty directory at first) means the same log."""
        raise NotImplementedError

    def usurp(self, journal: Journal) -> None:
        """Let another writer get hold of the log that `journal` has open, as a failed lock service or a long pause would."""
        raise NotImplementedError

    def write(self, place: Path, *batches: Sequence[Event]) -> Journal:
        """Open, append each batch, close. Returns the closed journal."""
        journal = self.handle(place)
        journal.open("writer")
        for batch in batches:
            journal.append(batch)
        journal.close()
        return journal

    def events(self, place: Path, after: int = 0) -> list[Event]:
        """What a new writer reads."""
        journal = self.handle(place)
        journal.open("reader")
        found = list(journal.read(after))
        journal.close()
        return found

    def test_an_event_is_lost_or_changed_by_reopening(self, tmp_path: Path) -> None:
        """Whatever was appended, in batches of any size and with any text, is read back equal and in order."""
        events = sample_events(130)
        self.write(tmp_path, events[:1], events[1:2], events[2:66])
        self.write(tmp_path, events[66:])
        assert self.events(tmp_path) == events

    def test_reading_on_from_a_seq_skips_or_repeats_events(self, tmp_path: Path) -> None:
        """`read(after)` gives exactly the later ones, also in the middle of a batch and beyond the end."""
        events = sample_events(90)
        self.write(tmp_path, events[:1], events[1:40])
        self.write(tmp_path, events[40:41], events[41:])
        for after in (0, 1, 2, 39, 40, 41, 60, 89, 90, 1000):
            assert self.events(tmp_path, after) == events[after:]

    def test_a_large_batch_is_cut_short(self, tmp_path: Path) -> None:
        """A batch of several megabytes is one batch like any other, and the log goes on after it."""
        events = sample_events(20_003)
        self.write(tmp_path, events[:2], events[2:20_002], events[20_002:])
        assert self.events(tmp_path, 19_990) == events[19_990:]
        assert len(self.events(tmp_path)) == len(events)

    def test_two_openings_have_the_same_epoch(self, tmp_path: Path) -> None:
        """Each opening has a larger epoch, whether or not anything was appended in between."""
        epochs = []
        for number in range(4):
            journal = self.handle(tmp_path)
            epochs.append(journal.open("writer"))
            if number % 2:
                journal.append(sample_events(1, after=number // 2))
            journal.close()
        assert epochs == sorted(set(epochs))

    def test_the_log_gets_another_name(self, tmp_path: Path) -> None:
        """`log_id` stays with the log."""
        events = sample_events(2)
        first = self.write(tmp_path, events[:1]).log_id
        assert first
        assert self.write(tmp_path, events[1:]).log_id == first

    def test_a_second_writer_is_let_in(self, tmp_path: Path) -> None:
        """While one has the log open, another opening is refused and told who has it; afterwards it succeeds."""
        first, second = self.handle(tmp_path), self.handle(tmp_path)
        first.open("the first one")
        with pytest.raises(JournalLocked) as refused:
            second.open("the second one")
        assert refused.value.holder == "the first one"
        assert refused.value.pid
        first.append(sample_events(1))
        first.close()
        second.open("the second one")
        assert list(second.read()) == sample_events(1)
        second.close()

    def test_an_open_journal_is_opened_twice(self, tmp_path: Path) -> None:
        """Opening the same object again is refused too, and does not break it."""
        journal = self.handle(tmp_path)
        journal.open("one")
        with pytest.raises(JournalLocked):
            journal.open("two")
        journal.append(sample_events(1))
        journal.close()
        assert self.events(tmp_path) == sample_events(1)

    def test_a_zombie_appends(self, tmp_path: Path) -> None:
        """Once another writer has the log, the former one's appends are refused, for ever, and leave no trace."""
        events = sample_events(4)
        zombie = self.handle(tmp_path)
        zombie.open("zombie")
        zombie.append(events[:2])
        self.usurp(zombie)
        for _ in range(2):
            with pytest.raises(Fenced) as fenced:
                zombie.append(events[2:3])
            assert fenced.value.epoch
        zombie.close()
        assert self.events(tmp_path) == events[:2]

    def test_a_closed_journal_takes_events(self, tmp_path: Path) -> None:
        """Before `open` and after `close` an append raises `JournalError`; closing twice is no error."""
        journal = self.handle(tmp_path)
        with pytest.raises(JournalError):
            journal.append(sample_events(1))
        journal.open("writer")
        journal.close()
        journal.close()
        with pytest.raises(JournalError):
            journal.append(sample_events(1))

    def test_a_gap_is_written(self, tmp_path: Path) -> None:
        """Events that do not follow the last one are refused, and nothing of them is written."""
        events = sample_events(5)
        journal = self.handle(tmp_path)
        journal.open("writer")
        journal.append(events[:2])
        for wrong in (events[3:4], events[1:2], [events[2], events[4]]):
            with pytest.raises(InternalError):
                journal.append(wrong)
        journal.append([])
        journal.append(events[2:])
        journal.close()
        assert self.events(tmp_path) == events

    def test_the_head_of_an_unchanged_history_changes(self, tmp_path: Path) -> None:
        """The head is the same before closing, after it, and after any number of openings that append nothing."""
        journal = self.handle(tmp_path)
        journal.open("writer")
        journal.append(sample_events(3))
        head = journal.head()
        assert head.seq == 3
        journal.close()
        for _ in range(2):
            journal = self.handle(tmp_path)
            journal.open("writer")
            assert journal.head() == head
            journal.close()

    def test_two_histories_have_the_same_head(self, tmp_path: Path) -> None:
        """Every appended event changes the head, and so does another history of the same length."""
        heads = set()
        for place in ("one", "two"):
            (tmp_path / place).mkdir()
            journal = self.handle(tmp_path / place)
            journal.open("writer")
            for event in sample_events(5):
                journal.append([event])
                heads.add(journal.head())
            journal.close()
        assert len(heads) == 10

    def test_a_snapshot_is_not_what_was_saved(self, tmp_path: Path) -> None:
        """A journal that keeps snapshots gives back the newest one, as it was, also after reopening."""
        journal = self.handle(tmp_path)
        journal.open("writer")
        if isinstance(journal, CachingJournal):
            assert journal.load_snapshot() is None
            journal.append(sample_events(9))
            for seq in (3, 6, 9):
                journal.save_snapshot(seq, [b"state", b"as of %d" % seq])
            assert journal.load_snapshot() == (9, [b"state", b"as of 9"])
            journal.close()
            journal = self.handle(tmp_path)
            journal.open("writer")
            assert isinstance(journal, CachingJournal)
            assert journal.load_snapshot() == (9, [b"state", b"as of 9"])
        journal.close()
