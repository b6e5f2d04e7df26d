"""A log moves house: between a directory, etcd and PostgreSQL, with the head proven at both ends, and never by half."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from portfsm import PoolSpec, read_journal, replay
from portfsm.cli._main import run
from portfsm.errors import InvalidValue, JournalCorrupt, JournalError, JournalLocked, JournalUnreadable
from portfsm.journals import FileJournal, open_journal
from portfsm.journals._copy import copy, prove
from portfsm.journals._copy_source import open_source
from portfsm.journals._inspect import head_at
from portfsm.journals._reader import open_directory
from portfsm.manager import open_manager

SPEC = PoolSpec("http", ports="30000-30999", hold_s=10.0)
KINDS = ["file", "etcd", "postgres"]
PAIRS = [(source, target) for source in KINDS for target in KINDS]


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str, str], str]:
    """A place of a kind, by its name, that is not there yet."""

    def find(kind: str, name: str) -> str:
        if kind == "etcd":
            return request.getfixturevalue("etcd").url(f"{tmp_path.name}-{name}"[-64:])
        if kind == "postgres":
            return request.getfixturevalue("postgres_url") + f"-{name}"
        return str(tmp_path / name)

    return find


def live(target: str, *, leases: int = 40, openings: int = 3) -> None:
    """A log with several epochs."""
    if target.startswith("postgres"):
        open_journal(target).init()

    async def run_once(first: int) -> None:
        async with open_manager(target, pools=[SPEC]) as manager:
            for number in range(first, first + leases):
                lease = await manager.allocate("http", owner=f"replica-{number}", service="ü")
                if number % 3:
                    await manager.release(lease)

    for number in range(openings):
        anyio.run(run_once, number * leases)


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_a_move_changes_the_history(here, there, place):
    source, target = place(here, "one"), place(there, "two")
    live(source)
    done = copy(source, target)
    events = list(read_journal(source))
    assert list(read_journal(target)) == events
    assert replay(read_journal(target)).digest() == replay(events).digest()
    assert done.head == head_at(source)
    assert done.head_there == head_at(target)
    assert done.head.log_id == done.head_there.log_id
    assert done.head.seq == done.head_there.seq == len(events)
    if "postgres" not in (here, there):
        assert done.head == done.head_there
    assert done.closed
    live(target, openings=1)
    epochs = [event.data["epoch"] for event in read_journal(target) if event.kind == "opened"]
    assert epochs == [1, 2, 3, 4]
    assert run(["verify", target]) == 0


def test_a_head_kept_elsewhere_is_of_no_use_after_two_moves(place, capsys):
    """A directory, etcd, another directory: the head that was kept of the first still proves the third."""
    one, two, three = place("file", "one"), place("etcd", "two"), place("file", "three")
    live(one)
    head = str(head_at(one))
    assert run(["copy", one, two, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["head_there"] == head
    assert run(["copy", two, three]) == 0
    assert head in capsys.readouterr().out
    assert run(["verify", three, "--expect", head]) == 0
    assert sorted(path.read_bytes() for path in Path(one).glob("0*0?.jsonl")) == sorted(
        path.read_bytes() for path in Path(three).glob("0*0?.jsonl")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_another_history_passes_for_a_copy(kind, place):
    """What lies at the other end proves, and is of another log."""
    source, other = place(kind, "one"), place("file", "other")
    live(source, openings=1)
    live(other, openings=1)
    copy(source, place("file", "two"))
    prove(open_source(source), open_directory(place("file", "two")))
    with pytest.raises(JournalCorrupt, match="copy again"):
        prove(open_source(source), open_directory(other))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_over_another_log(kind, place):
    source, target = place("file", "one"), place(kind, "two")
    live(source, openings=1)
    live(target, openings=2)
    before = list(read_journal(target))
    with pytest.raises(InvalidValue) as refused:
        copy(source, target)
    assert "two" in str(refused.value)
    assert list(read_journal(target)) == before


def test_a_copy_goes_over_other_files(place, tmp_path):
    source = place("file", "one")
    live(source, openings=1)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "mine").write_text("x")
    (tmp_path / "three.copying").mkdir()
    (tmp_path / "three.copying" / "mine").write_text("x")
    (tmp_path / "four").write_text("x")
    for target in ("two", "three", "four", "no/such\0place", ""):
        with pytest.raises((InvalidValue, JournalUnreadable)):
            copy(source, target and str(tmp_path / target))
    assert (tmp_path / "two" / "mine").exists()
    assert (tmp_path / "three.copying" / "mine").exists()
    (tmp_path / "five").mkdir()
    assert copy(source, str(tmp_path / "five")).head == head_at(source)
    assert copy(source, str(tmp_path / "deep" / "er") + "/").head == head_at(source)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_copied_as_a_log(kind, place):
    source = place(kind, "one")
    if kind == "postgres":
        open_journal(source).init()
    for target in ("file", "etcd"):
        with pytest.raises(JournalUnreadable):
            copy(source, place(target, "two"))
        with pytest.raises(JournalUnreadable):
            copy(place("file", "nowhere"), place(target, "two"))
        if target == "file":
            assert not Path(place(target, "two")).exists()
    for junk in ("memory:", "", None, b"x", 7):
        with pytest.raises(InvalidValue):
            copy(junk, place("file", "two"))
        with pytest.raises(InvalidValue):
            copy(place("file", "one"), junk)


@pytest.mark.parametrize("there", KINDS)
def test_damage_moves_along(there, place):
    source, target = place("file", "one"), place(there, "two")
    live(source)
    segment = sorted(Path(source).glob("0*.jsonl"))[1]
    segment.write_bytes(segment.read_bytes().replace(b"replica-5", b"replica-6"))
    with pytest.raises(JournalCorrupt) as corrupt:
        copy(source, target)
    assert corrupt.value.segment == segment.name
    with pytest.raises(JournalUnreadable):
        copy(target, place("file", "three"))


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("here", KINDS)
def test_a_live_log_is_copied_as_if_it_were_closed(here, there, place):
    source, target = place(here, "one"), place(there, "two")
    live(source, openings=1)

    async def busy() -> None:
        async with open_manager(source) as manager:
            await manager.allocate("http", owner="early")
            done = await anyio.to_thread.run_sync(copy, source, target)
            await manager.allocate("http", owner="late")
            assert done.head.seq == manager.seq - 1
            assert not done.closed

    anyio.run(busy)
    found = list(read_journal(target))
    assert found == list(read_journal(source))[: len(found)]
    assert found[-1].owner == "early"
    live(target, openings=1)


def test_a_last_line_without_its_line_end_is_cut_on_the_way(place):
    source, target = place("file", "one"), place("file", "two")
    live(source, openings=1)
    journal = FileJournal(source)
    journal.open("x")
    events = list(read_journal(source))
    journal.append([type(events[-1])(events[-1].seq + 1, events[-1].ts, "opened", data={"epoch": 2})])
    journal._writer = None
    journal.close()
    last = max(Path(source).glob("0*.jsonl"))
    last.write_bytes(last.read_bytes()[:-1])
    copy(source, target)
    assert list(read_journal(target)) == list(read_journal(source))


def test_a_torn_tail_moves_along(place, tmp_path):
    source, target = place("file", "one"), place("etcd", "two")
    live(source, openings=1)
    journal = FileJournal(source)
    journal.open("x")
    events = list(read_journal(source))
    journal.append([type(events[-1])(events[-1].seq + 1, events[-1].ts, "opened", data={"epoch": 2})])
    journal._writer = None
    journal.close()
    last = max(Path(source).glob("0*.jsonl"))
    last.write_bytes(last.read_bytes() + b'{"seq":99,"ts"')
    done = copy(source, target)
    assert not done.closed
    assert list(read_journal(target)) == list(read_journal(source))
    assert head_at(target) == head_at(source)
    assert list(read_journal(target))[:-1] == events


SLOW_COPY = """
import sys, time
from portfsm.journals import _etcd_tail, _disk
for owner, name in ((_etcd_tail.Writes, "append"), (_disk.Directory, "publish")):
    def slow(*args, before=getattr(owner, name)):
        before(*args)
        print("wrote", flush=True)
        time.sleep(60)
    setattr(owner, name, slow)
from portfsm.journals._copy import copy, prove
from portfsm.journals._copy_source import open_source
copy(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("there", ["file", pytest.param("etcd", marks=pytest.mark.slow)])
def test_an_interrupted_copy_looks_finished(there, place):
    """Killed after its first file: it cannot be opened nor read, a second copy to the same place is kept out while it lives, and then starts over."""
    source, target = place("file", "one"), place(there, "two")
    live(source)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_COPY, source, target],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"wrote\n"
    with pytest.raises(JournalLocked):
        copy(source, target)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with pytest.raises(JournalUnreadable):
        list(read_journal(target))
    if there == "etcd":
        journal = open_journal(target)
        until = time.monotonic() + 15
        while True:
            try:
                journal.open("impatient")
            except JournalLocked:  # until the copy's lease is over
                assert time.monotonic() < until
                time.sleep(0.1)
            except JournalUnreadable as error:
                assert "portfsm copy" in str(error)
                break
    assert copy(source, target).head == head_at(source) == head_at(target)
    live(target, openings=1)


def test_a_copy_into_a_database_that_fails_is_kept(place, monkeypatch):
    source, target = place("file", "one"), place("postgres", "two")
    live(source)
    import portfsm.journals._pg_receive as receiving

    def fail(*_: object) -> None:
        raise JournalError("no", path=None)

    with monkeypatch.context() as patch:
        patch.setattr(receiving, "_prove", fail)
        with pytest.raises(JournalError):
            copy(source, target)
    assert list(read_journal(target)) == []
    assert copy(source, target).head.seq == head_at(target).seq


def test_a_segment_that_was_shipped_stays_behind(etcd, place, tmp_path):
    """Without the archive the log is not whole, so it is not copied; with it, it is."""
    from tests.etcd.test_archive import written

    source, archive = place("etcd", "one"), tmp_path / "archive"
    written(source, archive).close()
    with pytest.raises(JournalUnreadable, match="archive="):
        copy(source, place("file", "two"))
    done = copy(f"{source}?archive={archive}", place("file", "two"))
    assert done.head.seq == 600
    assert head_at(place("file", "two")) == done.head
