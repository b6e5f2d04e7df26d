"""Processes that a master does not list: which of them are its own. Real processes that have its command line."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from portfsm.witnesses._haproxy_answers import Listing
from portfsm.witnesses._haproxy_lost import Lost

BECOMES = "print('another', flush=True); import sys; sys.stdin.read()"
WAITS = f"import os, sys; print('ready', flush=True); sys.stdin.readline(); os.execv(sys.executable, [sys.executable, '-c', {BECOMES!r}])"


@pytest.fixture
def place(tmp_path):
    """A file where the socket would be."""
    (tmp_path / "m").touch()
    return tmp_path / "m"


@contextlib.contextmanager
def process(*arguments: object, **options) -> Iterator[subprocess.Popen[str]]:
    """It becomes another program when a line is written to it."""
    command = [sys.executable, "-c", WAITS, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            yield child
        finally:
            child.kill()


def listing(master, *workers, reloads: str = "0[0]", old: tuple[int, ...] = ()) -> Listing:
    return Listing(master.pid, 1, reloads, "2.8", tuple(worker.pid for worker in workers), old)


def test_a_process_that_nobody_lists(place):
    with process("-S", place) as master, process("-S", place) as worker:
        lost = Lost(str(place))
        with process("-S", f"{place},level,admin") as stranded, process("-S", "m", cwd=place.parent) as relative:
            assert lost.look(listing(master, worker)) == sorted([stranded.pid, relative.pid])
            relative.kill()
            relative.wait()
            assert lost.look(listing(master, worker)) == [stranded.pid]
        assert lost.look(listing(master, worker)) == []


def test_a_worker_that_was_seen_before_it_was_listed(place):
    with process("-S", place) as master, process("-S", place) as early, process("-S", place) as older:
        lost = Lost(str(place))
        assert lost.look(listing(master)) == sorted([early.pid, older.pid])
        assert lost.look(listing(master, early, old=(older.pid,))) == []
        assert lost.look(listing(master, reloads="1[0]")) == sorted([early.pid, older.pid]), "looked for again after a reload"


def test_a_child_that_becomes_another_program(place):
    """Between its fork and its exec it has the command line of the master."""
    with process("-S", place) as master, process("-S", place) as program:
        lost = Lost(str(place))
        assert lost.look(listing(master)) == [program.pid]
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "another\n"
        assert lost.look(listing(master)) == []


def test_a_process_of_another_proxy_or_none(place):
    """Another socket, none, half a command line; and a master that cannot be seen from here."""
    (place.parent / "other").touch()
    with process("-S", place) as master, process("-S", place.parent / "other"), process(place), process("-S"), process("-S", ""):
        assert Lost(str(place)).look(listing(master)) == []
    with process() as elsewhere, process("-S", place):
        assert Lost(str(place)).look(listing(elsewhere)) == []
    assert Lost("/nowhere/m").look(Listing(2**22 + 1, 1, "0[0]", "2.8", (), ())) == []
