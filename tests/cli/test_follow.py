"""`log --follow` beside a writer: a pipe, a terminal, a reader that goes away."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time

import anyio
import pytest

from portfsm import PoolSpec, open_manager
from tests.cli import story

DEADLINE_S = 30
INTERRUPTIBLE = story.environment(PYTHONWARNINGS="error,ignore::ResourceWarning")
"""Between a call and its `with`, an interrupt leaves what was opened to the interpreter."""
WRITER = """
import sys, anyio
from portfsm import FileJournal, PoolSpec, open_manager
async def churn():
    journal = FileJournal(sys.argv[1], segment_bytes=1500)
    async with open_manager(journal, pools=[PoolSpec("http", ports="30000-30999", hold_s=600)]) as manager:
        for number in range(150):
            await manager.release(await manager.allocate("http", owner=f"r{number}"))
anyio.run(churn)
"""


class Follower:
    """`portfsm log --follow` on one end of a pipe, the test on the other."""

    def __init__(self, log, *options):
        program = [sys.executable, "-m", "portfsm", "log", str(log), "--follow", *options]
        self.process = subprocess.Popen(
            program, env=INTERRUPTIBLE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=story.hear_interrupts,  # noqa: PLW1509  (no threads here)
        )  # fmt: skip
        self._rest = b""
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def until(self, enough) -> None:
        """Read lines until one of them is `enough`."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            *whole, self._rest = self._rest.split(b"\n")
            self.lines += [line.decode() for line in whole]
            if any(enough(line) for line in whole):
                return
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.lines
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, self.process.stderr.read().decode()
            self._rest += data

    def end(self) -> tuple[int, str]:
        """Exit code, and what it has to complain."""
        code = self.process.wait(DEADLINE_S)
        return code, self.process.stderr.read().decode()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    write(path, owner="first")
    return path


def write(path, *, owner: str) -> None:
    async def go() -> None:
        async with open_manager(path, pools=[PoolSpec("http", ports="30000-30009", hold_s=30)]) as manager:
            await manager.allocate("http", owner=owner)

    anyio.run(go)


@pytest.mark.parametrize("options", [(), ("--json",), ("--owner", "second")])
def test_what_a_live_writer_records_is_not_shown_until_it_closes(log, options):
    async def go() -> None:
        with Follower(log, *options) as follower:
            if "--owner" not in options:
                follower.until(lambda line: b"closed" in line)
            async with open_manager(log) as manager:
                await manager.allocate("http", owner="second")
                follower.until(lambda line: b"second" in line)
                await manager.allocate("http", owner="third")
                if "--owner" not in options:
                    follower.until(lambda line: b"third" in line)

    anyio.run(go)


def test_an_event_is_lost_or_doubled_when_a_segment_ends(log):
    with Follower(log, "--json") as follower:
        follower.until(lambda line: b'"closed"' in line)
        subprocess.run([sys.executable, "-c", WRITER, str(log)], env=story.environment(), check=True, timeout=DEADLINE_S)
        follower.until(lambda line: b'"closed"' in line)
    seqs = [json.loads(line)["seq"] for line in follower.lines]
    assert len(list(log.glob("0*[0-9].jsonl"))) > 20
    assert seqs == list(range(1, 308))


def test_ctrl_c_on_a_terminal_ends_in_a_traceback(log):
    program = [sys.executable, "-m", "portfsm", "log", str(log), "--follow"]
    with story.Terminal(program, cwd=log.parent, env=INTERRUPTIBLE) as terminal:
        terminal.until("closed")
        terminal.type(b"\x03")
        shown = terminal.rest().partition("closed")[2]
    assert terminal.process.returncode == 130
    assert shown.split() == ["^C"], shown
    assert shown.endswith("\n"), "the prompt would stand beside ^C"


def test_an_interrupt_in_a_script_ends_in_a_traceback(log):
    with Follower(log) as follower:
        follower.until(lambda line: b"closed" in line)
        follower.process.send_signal(signal.SIGINT)
        assert follower.end() == (130, "")


@pytest.mark.parametrize("options", [(), ("--json",), ("--owner", "first")])
def test_a_reader_that_has_seen_enough_leaves_a_follower_behind(log, options):
    with Follower(log, *options) as follower:
        follower.until(lambda line: b"first" in line)
        follower.process.stdout.close()
        assert follower.end() == (0, "")


def test_a_pipe_that_closes_while_events_come_ends_in_a_traceback(log):
    with Follower(log, "--json") as follower:
        follower.until(lambda line: b"closed" in line)
        follower.process.stdout.close()
        write(log, owner="late")
        assert follower.end() == (0, "")


def test_head_minus_1_waits_or_complains(log):
    command = f"'{sys.executable}' -m portfsm log '{log}' --follow | head -1"
    outcome = subprocess.run(["sh", "-c", command], env=story.environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert outcome.stdout.split()[:2] == ["seq", "time"]
    assert outcome.stderr == ""


def test_a_log_that_vanishes_is_followed_for_ever(log):
    with Follower(log) as follower:
        follower.until(lambda line: b"closed" in line)
        log.rename(log.parent / "moved")
        code, complaint = follower.end()
    assert code == 2
    assert complaint.startswith("portfsm: ")
    assert str(log) in complaint


def test_damage_behind_what_was_shown_is_waited_for(log):
    with Follower(log) as follower:
        follower.until(lambda line: b"closed" in line)
        write(log, owner="second")
        follower.until(lambda line: b"second" in line)
        segment = max(log.glob("0*[0-9].jsonl"))
        segment.write_bytes(segment.read_bytes().replace(b'"second"', b'"secund"') + b"\n")
        code, complaint = follower.end()
    assert code == 1
    assert segment.name in complaint
