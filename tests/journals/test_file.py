"""The journal in a directory: its layout, its head, its clocks, and batches of any length."""

import os
import subprocess
import sys
import textwrap

import pytest

from portfsm.errors import InvalidValue, JournalError, JournalFull
from portfsm.journals import FileJournal
from portfsm.journals._inspect import head_at
from portfsm.testing import ManualClock
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk

from .logs import events_in, lines, segments, tree, write

# ---- layout -----------------------------------------------------------------------------------------------------------


def test_others_can_read_or_write_the_log(tmp_path):
    """The directory is 0700 and every file 0600, whatever the umask of the process."""
    before = os.umask(0)
    try:
        journal = write(tmp_path / "a" / "log", 1, 2, close=False)
        journal.save_snapshot(3, [b"x"])
        journal.close()
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "log").stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "a" / "log").iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"LOCK", "reserve", "00000000000000000001.jsonl", "00000000000000000003.snap.jsonl"} == set(modes)


def test_plain_tools_cannot_read_the_log(tmp_path):
    """Each line of each segment is a JSON object; events have a seq, marks have none."""
    write(tmp_path, 1, 3, 1, segment_bytes=200)
    assert len(segments(tmp_path)) == 3
    seqs = []
    for name in segments(tmp_path):
        first, *events, last = lines(tmp_path, name)
        assert first["kind"] == "segment"
        assert last["kind"] == "seal"
        assert "seq" not in first and "seq" not in last
        assert name == f"{first['base'] + 1:020d}.jsonl"
        seqs += [event["seq"] for event in events]
    assert seqs == [1, 2, 3, 4, 5]


def test_segments_are_not_linked(tmp_path):
    """Numbers, bases and links follow on each other over rotations and openings; epochs grow; the log id stays."""
    write(tmp_path, *[2] * 6, segment_bytes=700)
    write(tmp_path, *[2] * 6, after=12, segment_bytes=700)
    headers = [lines(tmp_path, name)[0] for name in segments(tmp_path)]
    seals = [lines(tmp_path, name)[-1] for name in segments(tmp_path)]
    assert [header["no"] for header in headers] == list(range(1, len(headers) + 1))
    assert [header["base"] for header in headers] == [0] + [seal["last"] for seal in seals[:-1]]
    assert [header.get("prev", "") for header in headers] == [""] + [seal["sha256"] for seal in seals[:-1]]
    assert {header["log"] for header in headers} == {headers[0]["log"]}
    assert [header["epoch"] for header in headers] == sorted(header["epoch"] for header in headers)
    assert {header["epoch"] for header in headers} == {1, 2}


def test_a_batch_takes_several_syncs():
    """One append is one write and one sync."""
    disk = SimulatedDisk()
    journal = write("log", 1, disk=disk, close=False)
    before = len(disk.trace)
    journal.append(sample_events(50, after=1))
    names = [call.name for call in disk.trace[before:]]
    assert names.count("pwrite") == 1
    assert [name for name in names if "sync" in name] == ["fdatasync"]


def test_opening_writes_into_the_log(tmp_path):
    """Opening, reading and closing without an append changes nothing but LOCK, also after a crash."""
    journal = write(tmp_path / "live", 3, 2, close=False)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name, data in tree(tmp_path / "live").items():
        (crashed / name).write_bytes(data)
    journal.close()
    for path in (tmp_path / "live", crashed):
        before = tree(path)
        assert events_in(path) == sample_events(5)
        assert tree(path) == before


# ---- the head ---------------------------------------------------------------------------------------------------------


def test_the_head_changes_without_a_new_event(tmp_path):
    """The head at each seq is the same while writing, after a seal, a rotation, a crash and a mended tail."""
    heads = {}
    journal = write(tmp_path, segment_bytes=900)
    journal.open("writer")
    heads[0] = journal.head()
    for event in sample_events(20):
        journal.append([event])
        heads[event.seq] = journal.head()
    journal._lock.release()  # crash
    with (tmp_path / segments(tmp_path)[-1]).open("ab") as file:
        file.write(b'{"seq":21,')
    for _ in range(2):
        journal = FileJournal(tmp_path)
        journal.open("again")
        assert journal.head() == heads[20]
        journal.close()
    journal = FileJournal(tmp_path)
    journal.open("mends")
    journal.append(sample_events(1, after=20))
    journal.close()
    for seq in range(1, 21):
        assert head_at(str(tmp_path), seq) == heads[seq]
    assert head_at(str(tmp_path)) == journal.head()
    with pytest.raises(InvalidValue, match="ends at seq 21"):
        head_at(str(tmp_path), 22)


# ---- clocks -----------------------------------------------------------------------------------------------------------


def test_a_stepped_wall_clock_leaves_no_trace(tmp_path):
    """Headers pair the clocks; a step of more than 100 ms is marked once, with the batch that follows it."""
    clock = ManualClock()
    journal = FileJournal(tmp_path, clock=clock)
    journal.open("me")
    events = sample_events(6)
    journal.append(events[:1])
    clock.advance(3600)
    journal.append(events[1:2])
    clock.step_wall(0.09)
    journal.append(events[2:3])
    clock.step_wall(-3.0)
    journal.append(events[3:5])
    journal.append(events[5:])
    head = journal.head()
    journal.close()
    kinds = [line["kind"] if "seq" not in line else line["seq"] for line in lines(tmp_path, segments(tmp_path)[0])]
    assert kinds == ["segment", 1, 2, 3, "clock", 4, 5, 6, "seal"]
    header, mark = lines(tmp_path, segments(tmp_path)[0])[0], lines(tmp_path, segments(tmp_path)[0])[4]
    assert header["boot_id"] == clock.boot_id()
    assert mark["wall"] - mark["boot"] - (header["wall_ns"] - header.get("boot_ns", 0)) == -2_910_000_000
    assert mark["ts"] == events[3].ts
    assert events_in(tmp_path) == events
    again = FileJournal(tmp_path)
    again.open("me")
    assert again.head() == head
    again.close()


# ---- lengths ----------------------------------------------------------------------------------------------------------


def test_a_batch_longer_than_a_torn_write_may_be_refuses_to_open(tmp_path):
    """A batch over 1 MiB gets a segment whose header allows for it, so that it can be torn and mended like any other."""
    events = sample_events(12_003)
    journal = FileJournal(tmp_path)
    journal.open("me")
    for batch in (events[:1], events[1:12_001], events[12_001:12_002], events[12_002:]):
        journal.append(batch)
    journal._lock.release()
    names = segments(tmp_path)
    assert len(names) == 2
    big = tmp_path / names[1]
    allowed = lines(tmp_path, names[1])[0]["batch"]
    assert 1 << 20 < allowed < 3 << 20
    big.write_bytes(big.read_bytes()[: big.stat().st_size // 2])
    journal = FileJournal(tmp_path)
    journal.open("me")
    assert list(journal.read()) == events[:1]
    assert journal.recovered
    for batch in (events[1:12_001], events[12_001:]):
        journal.append(batch)
    journal.close()
    assert events_in(tmp_path) == events


def test_a_first_batch_that_is_too_long_leaves_an_empty_segment(tmp_path):
    """The segment that was begun for it is replaced: no segment without events stays behind."""
    write(tmp_path, 12_000, 1)
    assert len(segments(tmp_path)) == 1
    assert len(events_in(tmp_path)) == 12_001


def test_replaying_a_million_events_needs_the_memory_of_a_million(tmp_path):
    """Reading a log of 30 MB adds less than 8 MB to the process, whatever its length."""
    write(tmp_path, *[2000] * 100)
    script = textwrap.dedent("""
        import pathlib, sys
        from portfsm.journals import FileJournal
        def peak_kib():  # not getrusage, which counts what the parent had before exec
            return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        journal = FileJournal(sys.argv[1])
        before = peak_kib()
        journal.open("me")
        print(sum(1 for _ in journal.read()), peak_kib() - before)
    """)
    count, grown_kib = map(
        int, subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True).stdout.split()
    )
    assert count == 200_000
    assert grown_kib < 8 << 10


def test_a_full_file_system_fails_with_a_bare_oserror(tmp_path):
    """A real limit of the system (no file longer than 3000 bytes): `JournalFull`, nothing written, and it goes on when it is lifted."""
    script = textwrap.dedent("""
        import resource, sys
        from portfsm.errors import JournalFull
        from portfsm.journals import FileJournal
        from portfsm.testing.contract import sample_events
        journal = FileJournal(sys.argv[1])
        journal.open("me")
        events = sample_events(100)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
        done = 0
        for event in events:
            try:
                journal.append([event])
            except JournalFull as error:
                assert "free some space" in str(error)
                break
            done += 1
        assert 5 < done < 50, done
        assert journal.full
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        journal.append([])
        assert not journal.full
        journal.append(events[done:])
        journal.close()
    """)
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert events_in(tmp_path) == sample_events(100)


def test_a_full_journal_is_only_an_error():
    """Full means `JournalFull`, which is a JournalError: callers that know no more still know that."""
    assert issubclass(JournalFull, JournalError)
