"""One writer: across processes, forks and replaced files."""

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from portfsm.errors import Fenced, JournalError, JournalLocked, JournalUnreadable, OutcomeUnknown
from portfsm.journals import FileJournal
from portfsm.testing.contract import sample_events

from .logs import events_in, segments, tree, write


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


def test_a_forked_child_keeps_the_lock_of_its_parent(tmp_path):
    """A child that does nothing with the journal does not keep others out once its parent has closed it."""
    journal = write(tmp_path, 1, close=False)
    context = multiprocessing.get_context("fork")
    started, go_on = context.Event(), context.Event()

    def child():
        started.set()
        go_on.wait(60)

    process = context.Process(target=child)
    process.start()
    started.wait(60)
    journal.close()
    assert events_in(tmp_path) == sample_events(1)
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
