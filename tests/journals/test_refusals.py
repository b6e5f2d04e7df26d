"""What the journal in a directory refuses: typed, naming the place and the remedy, and changing nothing."""

import errno
import hashlib
import zlib

import pytest

from portfsm._codec import Encoder, Header, Seal
from portfsm.errors import (
    InvalidValue,
    JournalCorrupt,
    JournalTooNew,
    JournalUnreadable,
)
from portfsm.journals import FileJournal, MemoryJournal, open_journal, read_journal
from portfsm.journals._disk import network_type
from portfsm.journals._inspect import inspect
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk

from .logs import events_in, lines, segments, tree, write

# ---- what cannot be used ----------------------------------------------------------------------------------------------


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
    for url in ("http://x", "redis://u:secret@h/1", 7, None, b"log"):
        with pytest.raises(InvalidValue) as refused:
            open_journal(url)
        assert "secret" not in str(refused.value) + str(refused.value.value)
    with pytest.raises(InvalidValue):
        read_journal("memory:")


def test_a_log_of_a_newer_version_is_changed(tmp_path):
    """It is refused with what is unknown, and every byte stays."""
    write(tmp_path, 2)
    name = segments(tmp_path)[0]
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


# ---- missing and foreign segments -------------------------------------------------------------------------------------


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
    write(tmp_path, 1)
    write(tmp_path, 1, after=1)
    name = segments(tmp_path)[1]
    header = lines(tmp_path, name)[0]
    encoder = Encoder()
    forged = Header(fmt=1, log=header["log"], no=2, base=1, epoch=0, prev=header["prev"])
    (tmp_path / name).write_bytes(
        encoder.encode_line(forged) + encoder.encode(sample_events(1, after=1)) + encoder.encode_line(Seal(1, 2, "x"))
    )
    with pytest.raises(JournalCorrupt, match="epoch 0 is older than 1"):
        FileJournal(tmp_path).open("me")


def test_an_edited_segment_is_not_noticed(tmp_path):
    """Somebody who edits a sealed segment and mends every checksum in it breaks the link of the next one."""
    write(tmp_path, 2)
    write(tmp_path, 1, after=2)
    name = segments(tmp_path)[0]
    header = lines(tmp_path, name)[0]
    encoder, events = Encoder(), sample_events(2)
    forged = encoder.encode_line(Header(fmt=1, log=header["log"], no=1, base=0, epoch=1)) + encoder.encode(
        [events[0], events[1].__class__(2, events[1].ts, events[1].kind)]
    )
    (tmp_path / name).write_bytes(forged + encoder.encode_line(Seal(2, 2, hashlib.sha256(forged).hexdigest())))
    with pytest.raises(JournalCorrupt, match="edited or replaced"):
        FileJournal(tmp_path).open("me")
    (tmp_path / name).write_bytes(forged + Encoder(forged[-17:]).encode_line(Seal(2, 2, lines(tmp_path, segments(tmp_path)[1])[0]["prev"])))
    assert len(events_in(tmp_path)) == 3, "with the old seal every link and every checksum fits: opening does not hash all bytes"
    assert "somebody edited it" in str(inspect(str(tmp_path)).damage[0])
