"""A small log, the same to the byte every time, and terminals to look at it in."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self
from unittest import mock

import anyio

from portfsm import PoolSpec, open_manager
from portfsm.cli._main import run
from portfsm.journals import FileJournal
from portfsm.testing import ManualClock

ROOT = Path(__file__).parents[2]
START_NS = 1_785_542_280_000_000_000
"""2026-07-31T23:58:00Z: midnight falls into the story."""
LENGTH_S = 400
POOLS = [PoolSpec("http", ports="30000-30007", hold_s=30), PoolSpec("grpc", ports="31000-31001,31500", hold_s=90, order="lowest")]
_DEADLINE_S = 30
_COMMANDS = """
import json, sys
from portfsm.cli._main import run
from portfsm.testing import ManualClock
clock = ManualClock(start_ns=int(sys.argv[1]))
clock.advance(float(sys.argv[2]))
for arguments in json.loads(sys.argv[3]):
    print("$ portfsm", *(ascii(argument)[1:-1] for argument in arguments), flush=True)
    code = run(arguments, clock=clock)
    print(*[f"[exit code {code}]"] * bool(code), sep="", end="\\n\\n" if code else "\\n", flush=True)
"""


def write(path: Path) -> None:
    """The story's log."""
    clock = ManualClock(start_ns=START_NS)
    with mock.patch("os.urandom", bytes):  # the log's id and the seeds of the pools
        anyio.run(_first_day, path, clock)
        anyio.run(_second_day, path, clock)


async def _first_day(path: Path, clock: ManualClock) -> None:
    async with open_manager(FileJournal(path, clock=clock), pools=POOLS, clock=clock, holder="controller-0 pid 4711") as manager:
        first = await manager.allocate("http", owner="checkout#Cart#8kq2xv", service="checkout", node="node-a")
        await manager.allocate("http", owner="search#Ranker#p03mzz", service="search", node="node-a")
        clock.advance(1.25)
        other = await manager.allocate("http", owner="search#Ranker#77aa01", service="search", node="node-b")
        await manager.allocate("grpc", owner="checkout#Cart#8kq2xv", service="checkout", node="node-a")
        await manager.adopt("http", 30005, owner="legacy-batch", node="node-b")
        clock.advance(90)
        await manager.withdraw(first)
        clock.advance(0.5)
        await manager.release(first)
        await manager.release(other, block="bind: address already in use (nginx, pid 812)", for_s=3600)
        clock.advance(40)


async def _second_day(path: Path, clock: ManualClock) -> None:
    async with open_manager(FileJournal(path, clock=clock), clock=clock, holder="controller-1 pid 90210") as manager:
        await manager.sweep()
        lease = await manager.allocate("http", owner="checkout#Cart#c5d9w1", service="checkout", node="node-a")
        clock.advance(7)
        await manager.block("grpc", 31500, node="node-a", reason="reserved for the database migration of Saturday night")
        await manager.release(lease)
        await manager.hold("http", lease.port, node="node-a", hold_s=600, reason="connections still open")
        clock.advance(12)


def damage(path: Path) -> None:
    """Flip one bit in the middle of the first day."""
    segment = path / f"{1:020d}.jsonl"
    data = bytearray(segment.read_bytes())
    data[data.index(b'"legacy-batch"') + 1] ^= 1
    segment.write_bytes(data)


def transcript(cwd: Path, commands: list[list[str]], *, columns: int = 0, colour: bool = False) -> str:
    """What the commands print, one after the other, on a terminal of so many columns, or into a pipe."""
    program = [sys.executable, "-c", _COMMANDS, str(START_NS), str(LENGTH_S), json.dumps(commands)]
    if not columns:
        return subprocess.run(
            program,
            cwd=cwd,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=_DEADLINE_S,
        ).stdout
    with Terminal(program, cwd=cwd, columns=columns, env=environment() if colour else environment(NO_COLOR="1")) as terminal:
        return terminal.rest()


def environment(**more: str) -> dict[str, str]:
    """The same for everybody, whatever terminal the tests are run from."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM")}
    return kept | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PAGER": "cat"} | more


def called(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command line in this process, into a pipe: an interpreter takes a quarter of a second to start."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.dict(os.environ, environment(), clear=True):
        code = run(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def hear_interrupts() -> None:
    """In a child, before its program: a suite that runs in the background ignores SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _on_its_terminal() -> None:
    hear_interrupts()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, program: list[str], *, cwd: Path, columns: int = 80, env: dict[str, str] | None = None) -> None:
        self._screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            program, cwd=cwd, env=env or environment(), stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
            preexec_fn=_on_its_terminal,  # noqa: PLW1509  (Ctrl-C needs it; no threads here)
        )  # fmt: skip
        os.close(inside)
        self.seen = self._text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character, or a line's two ends

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._screen)
        self.process.kill()
        self.process.wait()

    def type(self, keys: bytes) -> None:
        """As from the keyboard."""
        os.write(self._screen, keys)

    def until(self, text: str) -> str:
        """Read until `text` is on the screen."""
        deadline = time.monotonic() + _DEADLINE_S
        while text not in self.seen and self._read(deadline):
            pass
        assert text in self.seen, self.seen
        return self.seen

    def rest(self) -> str:
        """Read until the process ends."""
        deadline = time.monotonic() + _DEADLINE_S
        while self._read(deadline):
            pass
        self.process.wait(_DEADLINE_S)
        return self.seen

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more within {_DEADLINE_S} s after: {self.seen}"
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # the other end is closed
            return False
        self._text += self._decoder.decode(data)
        self.seen = self._text.replace("\r\n", "\n")
        return bool(data)
