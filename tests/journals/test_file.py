"""The journal in a directory: its layout, who may write, what it refuses, and that refusing changes nothing."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from portfsm.errors import Fenced, InvalidValue, JournalCorrupt, JournalError, JournalFull, JournalLocked, JournalTooNew, JournalUnreadable, OutcomeUnknown
from portfsm.journals import FileJournal, MemoryJournal, open_journal, read_journal
from portfsm.journals._disk import network_type
from portfsm.testing import ManualClock
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk


def write(path, *batches, after=0, close=True, **options):
    journal = FileJournal(path, **options)
    journal.open("writer")
    events = iter(sample_events(sum(batches), after=after))
    for size in batches:
        journal.append([next(events) for _ in range(size)])
    if close:
        journal.close()
    return journal


def events_in(path, **options):
    journal = FileJournal(path, **options)
    journal.open("reader")
    found = list(journal.read())
    journal.close()
    return found


def segments(path):
    return sorted(file.name for file in Path(path).glob("0*.jsonl") if ".snap." not in file.name)


def tree(path):
    """Every file but LOCK, with its bytes."""
    return {str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file() and file.name != "LOCK"}


def lines(path, name):
    return [json.loads(line) for line in (Path(path) / name).read_bytes().split(b"\n")[:-1]]


# ---- layout -------------------------------------------------------------------------------------------------------------


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


# ---- the head -----------------------------------------------------------------------------------------------------------


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
    from portfsm.journals._inspect import head_at

    for seq in range(1, 21):
        assert head_at(str(tmp_path), seq) == heads[seq]
    assert head_at(str(tmp_path)) == journal.head()
    with pytest.raises(InvalidValue, match="ends at seq 21"):
        head_at(str(tmp_path), 22)


# ---- one writer -----------------------------------------------------------------------------------------------------------


def test_two_processes_write(tmp_path):
    """Another process is refused while one has the log open, is told which, and gets in when that one is killed."""
    script = textwrap.dedent("""
        import sys
        from portfsm.journals import FileJournal
        from portfsm.testing.contract import sample_events
        journal = FileJournal(sys.argv[1])
        journal.open("the other process")
        journal.append(sample_events(2))
        print("open", flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(JournalLocked) as refused:
            FileJournal(tmp_path).open("me")
        assert (refused.value.pid, refused.value.holder) == (other.pid, "the other process")
        assert str(other.pid) in str(refused.value)
        other.kill()
        other.wait()
        journal = FileJournal(tmp_path)
        assert journal.open("me") == 2
        assert list(journal.read()) == sample_events(2)
        assert "unsealed" in journal.recovered
        journal.close()


def test_a_forked_child_writes_or_keeps_the_lock(tmp_path):
    """In a forked child the handle is dead, its close harms nothing, and the lock does not live on with the child."""
    journal = write(tmp_path, 1, close=False)
    context = multiprocessing.get_context("fork")
    results, go_on = context.SimpleQueue(), context.Event()

    def child():
        try:
            journal.append(sample_events(1, after=1))
        except JournalError as error:
            results.put(type(error).__name__ + str(error))
        journal.close()
        results.put("closed")
        go_on.wait(60)

    process = context.Process(target=child)
    process.start()
    assert "JournalError" in (said := results.get())
    assert "forked" in said
    assert results.get() == "closed"
    journal.append(sample_events(1, after=1))
    with pytest.raises(JournalLocked):
        FileJournal(tmp_path).open("me")
    journal.close()
    assert events_in(tmp_path) == sample_events(2)
    go_on.set()
    process.join()


def test_the_lock_follows_a_link(tmp_path):
    """A LOCK that is a symbolic link, a directory or a pipe is refused, and what it names is not touched."""
    (tmp_path / "victim").write_text("precious")
    for number, make in enumerate((lambda lock: lock.symlink_to(tmp_path / "victim"), Path.mkdir, os.mkfifo)):
        path = tmp_path / str(number)
        path.mkdir()
        make(path / "LOCK")
        with pytest.raises(JournalUnreadable) as refused:
            FileJournal(path).open("me")
        assert "LOCK" in str(refused.value)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_segment_follows_a_link(tmp_path):
    """A segment that is a symbolic link is refused."""
    write(tmp_path / "log", 2)
    name = segments(tmp_path / "log")[0]
    (tmp_path / "log" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "log" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalUnreadable):
        FileJournal(tmp_path / "log").open("me")


def test_a_damaged_lock_file_lets_the_epoch_go_back(tmp_path):
    """Rubbish in LOCK, or none at all: the epochs in the segments count."""
    write(tmp_path, 1)
    write(tmp_path, 1, after=1)
    for content in (b"", b"rubbish" * 100, b'{"epoch":-5}', b'{"epoch":"x"}'):
        (tmp_path / "LOCK").write_bytes(content)
        journal = FileJournal(tmp_path)
        assert journal.open("me") == 3
        journal.close()
    (tmp_path / "LOCK").unlink()
    assert FileJournal(tmp_path).open("me") == 3


def test_a_writer_goes_on_in_a_deleted_segment(tmp_path):
    """Deleting the segment under a writer stops it: what it appends would be lost."""
    journal = write(tmp_path, 1, close=False)
    (tmp_path / segments(tmp_path)[0]).unlink()
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="deleted"):
            journal.append(sample_events(1, after=1))
    journal.close()


def test_a_superseded_writer_mends_what_another_writes(tmp_path):
    """A zombie that has not yet appended must not rewrite the last segment either."""
    write(tmp_path, 2, close=False)._lock.release()
    zombie = FileJournal(tmp_path)
    zombie.open("zombie")
    (tmp_path / "LOCK").write_bytes(b'{"epoch":99}'.ljust(512))
    before = tree(tmp_path)
    with pytest.raises(Fenced):
        zombie.append(sample_events(1, after=2))
    zombie.close()
    assert tree(tmp_path) == before


def test_a_very_long_holder_breaks_the_lock_file(tmp_path):
    """LOCK stays one sector and legible, whatever the holder is called."""
    journal = FileJournal(tmp_path)
    journal.open("é\n" * 200)
    assert (tmp_path / "LOCK").stat().st_size == 512
    json.loads((tmp_path / "LOCK").read_bytes())
    with pytest.raises(JournalLocked):
        FileJournal(tmp_path).open("me")
    journal.append(sample_events(1))
    journal.close()


# ---- what cannot be used ----------------------------------------------------------------------------------------------------


def test_a_path_that_is_a_file_is_overwritten(tmp_path):
    """A file where the directory should be: typed error, path and remedy named, file untouched."""
    file = tmp_path / "log"
    file.write_text("my thesis")
    for attempt in (lambda: FileJournal(file).open("me"), lambda: list(read_journal(file))):
        with pytest.raises(JournalUnreadable) as refused:
            attempt()
        assert refused.value.path == str(file)
        assert "name another path" in str(refused.value)
    assert file.read_text() == "my thesis"


def test_reading_makes_a_log(tmp_path):
    """Reading what is not there, or is no log, is an error and creates nothing."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(JournalUnreadable):
            list(read_journal(path))
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_log_fails_with_a_bare_oserror():
    """A read-only file system is a typed error that says so. (On the simulated disk: root may write through any mode.)"""
    disk = SimulatedDisk()
    write("/log", 2, disk=disk)
    disk.read_only = True
    with pytest.raises(JournalUnreadable, match="read-only") as refused:
        FileJournal("/log", disk=disk).open("me")
    assert refused.value.errno == errno.EROFS
    assert refused.value.path.startswith("/log")


def test_a_directory_without_permission_fails_with_a_bare_oserror():
    """EACCES at any of the first calls is a typed error that names the path."""
    for at in range(6):
        disk = SimulatedDisk()
        write("/log", 2, disk=disk)
        disk.fail(at=disk.calls + at, kind=errno.EACCES)
        with pytest.raises(JournalUnreadable, match="right to read and write") as refused:
            FileJournal("/log", disk=disk).open("me")
        assert refused.value.errno == errno.EACCES


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_an_unusable_path_is_taken(path):
    """No path, or one no system knows."""
    with pytest.raises(InvalidValue):
        FileJournal(path)
    with pytest.raises(InvalidValue):
        open_journal(path)
    with pytest.raises(InvalidValue):
        read_journal(path)


def test_a_network_file_system_is_trusted():
    """Where locks may not hold, opening is refused, unless it was asked for."""
    disk = SimulatedDisk()
    disk.network = "nfs4"
    with pytest.raises(JournalUnreadable, match="nfs4"):
        FileJournal("/log", disk=disk).open("me")
    journal = FileJournal("/log", disk=disk, allow_network=True)
    journal.open("me")
    journal.append(sample_events(1))
    journal.close()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", ""),
        ("/mnt", "nfs4"),
        ("/mnt/x", "nfs4"),
        ("/mnt/local", ""),
        ("/mnt/local/log", ""),
        ("/mntx", ""),
        ("/my share/log", "cifs"),
        ("/ssh/log", "fuse.sshfs"),
        ("/fuse/log", ""),
        ("/over", ""),
    ],
)
def test_the_kind_of_file_system_is_misread(path, found):
    """The longest mount point counts, the later of equal ones, with escapes; local user-space file systems are local."""
    table = [
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw",
        "22 21 0:5 / /mnt rw shared:1 - nfs4 server:/x rw",
        "23 22 8:2 / /mnt/local rw - xfs /dev/sdb rw",
        "24 21 0:6 / /my\\040share rw - cifs //server/x rw",
        "25 21 0:7 / /ssh rw - fuse.sshfs host: rw",
        "26 21 0:8 / /fuse rw - fuse.mergerfs x rw",
        "27 21 0:9 / /over rw - 9p x rw",
        "28 21 0:9 / /over rw - tmpfs x rw",
    ]
    assert network_type(table, path) == found


def test_the_wrong_kind_of_journal_is_made(tmp_path):
    """`open_journal` reads what a target means; what it does not know it says."""
    assert isinstance(open_journal("memory:"), MemoryJournal)
    assert isinstance(open_journal(tmp_path), FileJournal)
    assert open_journal(str(tmp_path)).path == str(tmp_path)
    journal = MemoryJournal()
    assert open_journal(journal) is journal
    for url in ("postgresql://u:secret@h/d?log=x", "postgres://h/d", "etcd://h:2379/x", "http://x", 7, None, b"log"):
        with pytest.raises(InvalidValue) as refused:
            open_journal(url)
        assert "secret" not in str(refused.value) + str(refused.value.value)
    with pytest.raises(InvalidValue):
        read_journal("memory:")


def test_a_log_of_a_newer_version_is_changed(tmp_path):
    """It is refused with what is unknown, and every byte stays."""
    write(tmp_path, 2)
    name = segments(tmp_path)[0]
    import zlib

    first = (tmp_path / name).read_bytes().split(b',"c"')[0].replace(b'"fmt":1', b'"fmt":2')
    (tmp_path / name).write_bytes(first + b',"c":"%08x"}\n' % zlib.crc32(first))
    before = tree(tmp_path)
    for attempt in (lambda: FileJournal(tmp_path).open("me"), lambda: list(read_journal(tmp_path))):
        with pytest.raises(JournalTooNew, match="format 2"):
            attempt()
    assert tree(tmp_path) == before


def test_a_failed_opening_keeps_the_lock(tmp_path):
    """After any refusal the same object, and others, can try again."""
    write(tmp_path, 2)
    name = segments(tmp_path)[0]
    good = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(b"x" + good)
    journal = FileJournal(tmp_path)
    for _ in range(2):
        with pytest.raises(JournalCorrupt):
            journal.open("me")
    (tmp_path / name).write_bytes(good)
    journal.open("me")
    assert list(journal.read()) == sample_events(2)
    journal.close()


# ---- missing and foreign segments -----------------------------------------------------------------------------------------


def test_a_missing_or_foreign_segment_is_not_noticed(tmp_path):
    """Any segment but the last taken away, exchanged, renamed or edited: refused, and left as it was."""
    write(tmp_path / "log", *[2] * 8, segment_bytes=600)
    write(tmp_path / "other", *[2] * 8, segment_bytes=600)
    path, names = tmp_path / "log", segments(tmp_path / "log")
    assert len(names) == 4
    good = tree(path)

    def attempt():
        before = tree(path)
        for act in (lambda: events_in(path), lambda: list(read_journal(path))):
            with pytest.raises(JournalCorrupt) as refused:
                act()
            assert refused.value.segment in names or refused.value.segment == "00000000000000000099.jsonl"
            assert "portfsm verify" in str(refused.value) and "portfsm repair" in str(refused.value)
        assert tree(path) == before
        for name in set(tree(path)) - set(good):
            (path / name).unlink()
        for name, data in good.items():
            (path / name).write_bytes(data)

    for name in names[:-1]:
        (path / name).unlink()
        attempt()
    for name in names:
        (path / name).write_bytes((tmp_path / "other" / name).read_bytes())
        attempt()
        (path / name).rename(path / "00000000000000000099.jsonl")
        attempt()
    for name in names[:-1]:  # the seal gone, a tail torn in the middle of the log
        whole = good[name].splitlines(keepends=True)
        for cut in (b"".join(whole[:-1]), b"".join(whole[:-2]), good[name][:-30]):
            (path / name).write_bytes(cut)
            attempt()
    assert events_in(path) == sample_events(16)


def test_the_epoch_goes_back(tmp_path):
    """A segment written by an older incarnation than the one before it: refused."""
    from portfsm._codec import Encoder, Header, Seal

    write(tmp_path, 1)
    write(tmp_path, 1, after=1)
    name = segments(tmp_path)[1]
    header = lines(tmp_path, name)[0]
    encoder = Encoder()
    forged = Header(fmt=1, log=header["log"], no=2, base=1, epoch=0, prev=header["prev"])
    (tmp_path / name).write_bytes(encoder.encode_line(forged) + encoder.encode(sample_events(1, after=1)) + encoder.encode_line(Seal(1, 2, "x")))
    with pytest.raises(JournalCorrupt, match="epoch 0 is older than 1"):
        FileJournal(tmp_path).open("me")


def test_an_edited_segment_is_not_noticed(tmp_path):
    """Somebody who edits a sealed segment and mends every checksum in it breaks the link of the next one."""
    from portfsm._codec import Encoder, Header, Seal
    from portfsm.journals._inspect import inspect

    write(tmp_path, 2)
    write(tmp_path, 1, after=2)
    name = segments(tmp_path)[0]
    header = lines(tmp_path, name)[0]
    encoder, events = Encoder(), sample_events(2)
    forged = encoder.encode_line(Header(fmt=1, log=header["log"], no=1, base=0, epoch=1)) + encoder.encode(
        [events[0], events[1].__class__(2, events[1].ts, events[1].kind)]
    )
    import hashlib

    (tmp_path / name).write_bytes(forged + encoder.encode_line(Seal(2, 2, hashlib.sha256(forged).hexdigest())))
    with pytest.raises(JournalCorrupt, match="edited or replaced"):
        FileJournal(tmp_path).open("me")
    (tmp_path / name).write_bytes(forged + Encoder(forged[-17:]).encode_line(Seal(2, 2, lines(tmp_path, segments(tmp_path)[1])[0]["prev"])))
    assert len(events_in(tmp_path)) == 3, "with the old seal every link and every checksum fits: opening does not hash all bytes"
    assert "somebody edited it" in str(inspect(str(tmp_path)).damage[0])


# ---- after a crash ----------------------------------------------------------------------------------------------------------


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


# ---- clocks -------------------------------------------------------------------------------------------------------------------


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


# ---- lengths ----------------------------------------------------------------------------------------------------------------


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
        import resource, sys
        from portfsm.journals import FileJournal
        journal = FileJournal(sys.argv[1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        journal.open("me")
        print(sum(1 for _ in journal.read()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    count, grown_kib = map(int, subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True).stdout.split())
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
