"""Readers: beside a live writer, at every state a writer can leave, without a lock and without a trace. And the inspector."""

import random
import threading

import pytest

from portfsm.errors import InvalidValue, JournalCorrupt, JournalUnreadable
from portfsm.journals import FileJournal, MemoryJournal, read_journal
from portfsm.journals._inspect import head_at, inspect
from portfsm.journals._reader import open_directory, read_directory
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk

from .logs import segment_files, write


def test_a_reader_needs_the_lock(tmp_path):
    """Reading works while a writer has the log, and changes nothing."""
    journal = write(tmp_path, 2, 3, close=False)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert list(read_journal(tmp_path)) == sample_events(5)
    assert list(read_journal(str(tmp_path), after=3)) == sample_events(2, after=3)
    assert list(read_journal(journal)) == sample_events(5)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    journal.close()


def test_a_log_without_events_is_no_log(tmp_path):
    """Opened and left again: a log of no events."""
    write(tmp_path)
    assert list(read_journal(tmp_path)) == []
    assert inspect(str(tmp_path)).segments == ()
    assert head_at(str(tmp_path)).seq == 0
    memory = MemoryJournal()
    memory.open("me")
    memory.append(sample_events(3))
    assert list(read_journal(memory, after=1)) == sample_events(2, after=1)


def test_a_reader_gives_up_at_a_write_in_progress(tmp_path):
    """Whatever part of a write is there yet: the reader ends quietly before its batch."""
    write(tmp_path, 2, 3, close=False)
    (segment,) = segment_files(tmp_path)
    data = segment.read_bytes()
    batch = data.index(b'{"seq":3')
    for cut in range(batch, len(data) - 1, 7):  # lacking only its line end, a line proves itself
        segment.write_bytes(data[:cut])
        assert list(read_journal(tmp_path)) == sample_events(2)
        segment.write_bytes(data[:cut] + bytes(200))
        assert list(read_journal(tmp_path)) == sample_events(2)


def test_a_reader_beside_a_busy_writer_sees_nonsense(tmp_path):
    """Readers while a writer appends, rotates, crashes, mends and seals: always a prefix of the log, and no error."""
    events = sample_events(3000)
    sent, problems, stop = [0], [], threading.Event()

    def work():
        try:
            write_and_crash()
        finally:
            stop.set()

    def write_and_crash():
        chance, done = random.Random(2), 0
        while done < len(events) and not stop.is_set():
            journal = FileJournal(tmp_path, segment_bytes=3000)
            journal.open("me")
            for _ in range(chance.randint(1, 40)):
                size = chance.randint(1, 9)
                sent[0] = done + size
                if events[done : done + size]:
                    journal.append(events[done : done + size])
                    done = min(done + size, len(events))
            if chance.random() < 0.5:
                journal.close()
            else:
                journal._lock.release()
                journal._directory.let_go()
                journal._writer.close()
                with max(segment_files(tmp_path)).open("ab") as file:
                    file.write(b'{"seq":%d,"ts":17' % (done + 1))

    writer = threading.Thread(target=work)
    write(tmp_path)
    writer.start()
    rounds, longest = 0, 0
    while not stop.is_set():
        rounds += 1
        found = list(read_journal(tmp_path))
        if found != events[: len(found)] or len(found) > sent[0] or len(found) < longest:
            problems.append(len(found))
            stop.set()
        longest = max(longest, len(found))
    writer.join()
    assert problems == []
    assert rounds > 3
    assert list(read_journal(tmp_path)) == events


def test_a_write_that_was_cut_back_is_taken_for_damage():
    """A reader that met a write which was then cut back and written anew, differently, reads again instead of refusing."""
    disk = SimulatedDisk()
    journal = write("/log", 3, disk=disk, close=False)
    name = "/log/00000000000000000001.jsonl"
    journal.append(sample_events(3, after=3))
    journal.append(sample_events(30, after=6))
    good = disk.contents(name)
    torn = bytearray(good)
    torn[good.index(b'{"seq":4') + 30] ^= 1
    reads = iter([bytes(torn), bytes(torn)])
    real = disk.pread

    def pread(fd, size, offset):
        data = next(reads, None) if size > 1000 and offset == 0 and disk._handles[fd].path == name else None
        return real(fd, size, offset) if data is None else data[offset : offset + size]

    disk.pread = pread
    assert list(read_directory(open_directory("/log", disk))) == sample_events(36)
    disk.overwrite(name, bytes(torn))
    with pytest.raises(JournalCorrupt):
        list(read_directory(open_directory("/log", disk)))


def test_a_reader_goes_on_behind_damage(tmp_path):
    """Events before the damage are given out, then the error; never one from behind it."""
    write(tmp_path, *[3] * 12, segment_bytes=900)
    for segment in segment_files(tmp_path):
        good = segment.read_bytes()
        data = bytearray(good)
        data[data.index(b'{"seq":') + 40] ^= 8
        segment.write_bytes(data)
        seen = []
        with pytest.raises(JournalCorrupt) as refused:
            for event in read_journal(tmp_path):
                seen.append(event)  # noqa: PERF402  (what came before the error is the point)
        assert refused.value.segment == segment.name
        assert seen == sample_events(int(segment.name[:20]) - 1)
        segment.write_bytes(good)


# ---- the inspector --------------------------------------------------------------------------------------------------------


def test_a_healthy_log_is_complained_about(tmp_path):
    """Closed, live, crashed with and without a torn tail, of one segment and of many: no damage, every segment counted."""
    journal = write(tmp_path, *[3] * 12, segment_bytes=900, close=False)
    for tail in (b"", b'{"seq":37,'):
        with max(segment_files(tmp_path)).open("ab") as file:
            file.write(tail)
        report = inspect(str(tmp_path))
        assert report.damage == ()
        assert report.torn_bytes == len(tail)
        assert len(report.segments) == len(segment_files(tmp_path)) > 3
        assert sum(segment.count for segment in report.segments) == 36
        assert [segment.sealed for segment in report.segments] == [True] * (len(report.segments) - 1) + [False]
        assert report.sealed_upto == report.segments[-2].last_seq
        assert report.log_id == journal.log_id
        assert all(segment.link_ok and segment.sha256_ok is not False for segment in report.segments)


def test_a_part_of_the_log_is_never_looked_at(tmp_path):
    """One flipped bit in any line of any segment, seals and headers too, is reported, with its segment."""
    write(tmp_path, *[3] * 12, segment_bytes=900)
    assert inspect(str(tmp_path)).damage == ()
    for number, segment in enumerate(segment_files(tmp_path)):
        good = segment.read_bytes()
        start = 0
        for line in good.splitlines(keepends=True):
            data = bytearray(good)
            data[start + len(line) // 2] ^= 16
            segment.write_bytes(data)
            report = inspect(str(tmp_path))
            last_seal = number == len(segment_files(tmp_path)) - 1 and b'"kind":"seal"' in line
            assert report.damage or (last_seal and report.torn_bytes)
            assert all(error.segment for error in report.damage)
            start += len(line)
        segment.write_bytes(good)


def test_the_inspector_stops_at_the_first_damage(tmp_path):
    """Damage in several segments is all reported, missing segments too."""
    write(tmp_path, *[3] * 16, segment_bytes=900)
    names = segment_files(tmp_path)
    for segment in (names[0], names[3]):
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
    names[1].unlink()
    damage = inspect(str(tmp_path)).damage
    assert [error.segment for error in damage] == [names[0].name, names[2].name, names[3].name]


def test_a_head_is_quoted_from_damaged_bytes(tmp_path):
    """The head at a seq is recomputed only from bytes that prove; a seq beyond the log is an error; a missing path too."""
    journal = write(tmp_path, 2, 3, close=False)
    assert head_at(str(tmp_path)) == journal.head()
    for seq in (-1, 6):
        with pytest.raises(InvalidValue):
            head_at(str(tmp_path), seq)
    (segment,) = segment_files(tmp_path)
    data = bytearray(segment.read_bytes())
    data[data.index(b'{"seq":1') + 30] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalCorrupt):
        head_at(str(tmp_path), 5)
    with pytest.raises(JournalUnreadable):
        head_at(str(tmp_path / "nothing"))


def test_the_head_of_a_torn_log_counts_torn_bytes(tmp_path):
    """A torn tail, and a missing last line end, leave the head at the last event as it was."""
    journal = write(tmp_path, 2, 3, close=False)
    head = journal.head()
    (segment,) = segment_files(tmp_path)
    good = segment.read_bytes()
    for data in (good + b'{"seq":6', good[:-1], good + bytes(99)):
        segment.write_bytes(data)
        assert head_at(str(tmp_path)) == head
