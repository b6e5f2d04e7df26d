"""After a crash: what is cut, what is kept, and what is refused."""

import pytest

from portfsm.errors import JournalCorrupt
from portfsm.journals import FileJournal, read_journal
from portfsm.journals._inspect import head_at, inspect
from portfsm.testing.contract import sample_events

from .logs import events_in, lines, segments, tree, write


def crashed(tmp_path, tail=b"", sizes=(2, 3)):
    write(tmp_path, *sizes, close=False)._lock.release()
    name = segments(tmp_path)[-1]
    with (tmp_path / name).open("ab") as file:
        file.write(tail)
    return name


def test_a_torn_tail_is_lost_without_a_trace(tmp_path):
    """It is cut, kept in torn/, and said; the log goes on in a new segment."""
    name = crashed(tmp_path, b'{"seq":6,"ts":17600')
    size = (tmp_path / name).stat().st_size
    journal = FileJournal(tmp_path)
    journal.open("me")
    assert "19 bytes of a torn write were cut" in journal.recovered
    assert list(journal.read()) == sample_events(5)
    assert (tmp_path / name).stat().st_size == size, "not before the first append"
    journal.append(sample_events(1, after=5))
    journal.close()
    assert [file.read_bytes() for file in (tmp_path / "torn").iterdir()] == [b'{"seq":6,"ts":17600']
    assert len(segments(tmp_path)) == 2
    assert events_in(tmp_path) == sample_events(6)
    journal = FileJournal(tmp_path)
    journal.open("me")
    assert journal.recovered == ""
    journal.close()


def test_a_crash_before_the_first_event_blocks_the_log(tmp_path):
    """A segment that holds no event, with or without a torn write, is replaced, and its number is used again."""
    write(tmp_path, 2)
    for tail in (b"", b'{"seq":3,"ts"', b"\0" * 300):
        journal = FileJournal(tmp_path)
        journal.open("crashes")
        journal._begin_segment(journal._lock, 1 << 20)
        journal._lock.release()
        with (tmp_path / segments(tmp_path)[-1]).open("ab") as file:
            file.write(tail)
    head = write(tmp_path, 1, after=2).head()
    assert len(segments(tmp_path)) == 2
    assert [lines(tmp_path, name)[0]["no"] for name in segments(tmp_path)] == [1, 2]
    assert events_in(tmp_path) == sample_events(3)
    assert head.seq == 3


def test_a_crash_while_mending_loses_events(tmp_path):
    """Half-made files of an earlier attempt are removed, and mending starts again."""
    name = crashed(tmp_path, b"torn")
    (tmp_path / f"{name}.tmp").write_bytes(b"half a segment")
    (tmp_path / "00000000000000000006.jsonl.tmp").write_bytes(b"")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / f"{name}.tmp").write_bytes(b"half")
    write(tmp_path, 1, after=5)
    assert events_in(tmp_path) == sample_events(6)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_line_that_lacks_only_its_line_end_is_cut(tmp_path):
    """The last line proves itself; mending adds the line end. The head is the one the writer had."""
    head = write(tmp_path, 2, 1, close=False).head()
    name = segments(tmp_path)[0]
    path = tmp_path / "copy"
    path.mkdir()
    (path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    journal = FileJournal(path)
    journal.open("me")
    assert journal.head() == head
    assert list(journal.read()) == sample_events(3)
    assert list(read_journal(path)) == sample_events(3)
    journal.append(sample_events(1, after=3))
    journal.close()
    assert events_in(path) == sample_events(4)
    assert (path / name).read_bytes().count(b"\n") == 5


@pytest.mark.parametrize("rest", [b"\0", b"\xff", b"x\n"])
def test_a_power_cut_while_a_log_is_closed_blocks_it(tmp_path, rest):
    """The seal was written and not yet synced: at any of its bytes, its line end included, something else begins."""
    head = write(tmp_path / "log", 2, 3).head()
    (name,) = segments(tmp_path / "log")
    whole = (tmp_path / "log" / name).read_bytes()
    for cut in range(whole.index(b'{"kind":"seal"'), len(whole)):
        path = tmp_path / str(cut)
        path.mkdir()
        (path / name).write_bytes(whole[:cut] + (rest * len(whole))[: len(whole) - cut])
        assert list(read_journal(path)) == sample_events(5)
        assert write(path, 1, after=5).head().seq == 6
        assert events_in(path) == sample_events(6)
        report = inspect(str(path))
        assert not report.damage
        assert all(segment.sealed and segment.sha256_ok for segment in report.segments)
        assert head_at(str(path), 5) == head
        assert sum(file.stat().st_size for file in (path / "torn").iterdir()) == len(whole) - whole.index(b'{"kind":"seal"')


def test_a_log_with_a_damaged_seal_is_written_on_and_refused_afterwards(tmp_path):
    """Every bit of the last seal: refused before anything is written, or what is acknowledged then is there again."""
    write(tmp_path / "log", 2, 3)
    (name,) = segments(tmp_path / "log")
    whole = (tmp_path / "log" / name).read_bytes()
    start = whole.index(b'{"kind":"seal"')
    refused = 0
    for bit in range(8 * start, 8 * len(whole)):
        path = tmp_path / str(bit)
        path.mkdir()
        (path / name).write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        journal = FileJournal(path)
        try:
            journal.open("me")
            assert list(journal.read()) == sample_events(5), bit
            journal.append(sample_events(1, after=5))
        except JournalCorrupt:
            refused += 1
            assert segments(path) == [name]
            journal.close()
        else:
            journal.close()
            assert events_in(path) == sample_events(6), bit
    assert 0 < refused < 8 * (len(whole) - start)


def test_damage_is_taken_for_a_torn_tail(tmp_path):
    """A damaged batch with a later one behind it: refused by writer and reader, with the place; nothing is changed."""
    name = crashed(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    place = data.index(b'"seq":2')
    data[place + 20] ^= 4
    (tmp_path / name).write_bytes(data)
    before = tree(tmp_path)
    for attempt in (lambda: FileJournal(tmp_path).open("me"), lambda: list(read_journal(tmp_path))):
        with pytest.raises(JournalCorrupt) as refused:
            attempt()
        error = refused.value
        assert (error.path, error.segment, error.seq) == (str(tmp_path), name, 1)
        assert error.offset == data.index(b'{"seq":1')
    assert tree(tmp_path) == before
