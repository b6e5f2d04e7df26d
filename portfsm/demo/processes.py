"""Processes that cannot be left behind.

One socket pair is the leash. The supervisor holds one end, every process of the demo the other.
- The supervisor lets go, or dies by whatever signal: every process reads the end of the leash and exits.
- Every process has exited: the supervisor reads the end of the leash, and knows, without keeping a list of pids, that nobody
  is left; not even a replica whose controller was killed.

Each process has a session of its own, so Ctrl-C reaches the supervisor alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from portfsm.demo.plan import DemoError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from anyio.abc import ByteReceiveStream, Process, TaskGroup

LINE_LIMIT = 1 << 20
GRACE_S = 3.0
"""How long a dismissed process may take to exit before it is killed."""


class ProcessEndedError(DemoError):
    """A process of the demo ended that should not have: `name`, its exit `status`, the last words of its stderr."""

    def __init__(self, name: str, status: int | None, last_words: str) -> None:
        super().__init__(f"the {name} ended with status {status}" + (f": {last_words}" if last_words else ""))
        self.name = name
        self.status = status
        self.last_words = last_words


@attrs.define(eq=False)
class Member:
    """One process: what it is called, and whether its end is expected."""

    name: str
    process: Process
    stderr: Path
    on_line: Callable[[dict[str, Any]], None] | None
    expected_to_end: bool = False
    heard: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when it has ended and `on_line` has had its last line."""

    async def follow(self, stdout: ByteReceiveStream) -> None:
        """Hand each line it prints to `on_line`. Raises `ProcessEndedError` when it ends unasked."""
        lines = BufferedByteReceiveStream(stdout)
        with contextlib.suppress(anyio.IncompleteRead):
            while True:
                line = await lines.receive_until(b"\n", LINE_LIMIT)
                if self.on_line:
                    self.on_line(self._read(line))
        status = await self.process.wait()
        self.heard.set()
        if not self.expected_to_end:
            raise ProcessEndedError(self.name, status, last_line(self.stderr))

    def _read(self, line: bytes) -> dict[str, Any]:
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except ValueError as error:  # also the UnicodeDecodeError that msgspec lets through
            raise DemoError(f"the {self.name} printed what is not JSON: {line.decode(errors='replace')!r}") from error

    async def end(self, number: signal.Signals) -> None:
        """Send the signal, wait for the exit and for the last line."""
        self.expected_to_end = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        await self.heard.wait()


class Crew:
    """All processes of the demo, on one leash. Made by `open_crew`."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._ours, self._theirs = socket.socketpair()
        self._members: list[Member] = []

    @property
    def leash(self) -> int:
        """The descriptor that every process inherits; it has the same number there."""
        return self._theirs.fileno()

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        stderr: Path,
        on_line: Callable[[dict[str, Any]], None] | None = None,
        fds: Sequence[int] = (),
    ) -> Member:
        """Start a process. It inherits the leash and `fds`, and prints JSON lines, if anything."""
        with stderr.open("ab") as errors:
            process = await anyio.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                pass_fds=(self.leash, *fds),
            )
        member = Member(name, process, stderr, on_line)
        self._members.append(member)
        if process.stdout:
            self._group.start_soon(member.follow, process.stdout)
        return member

    async def dismiss(self) -> None:
        """End every process and return when none is left."""
        self._theirs.close()
        self._ours.shutdown(socket.SHUT_WR)
        with anyio.move_on_after(GRACE_S):
            await anyio.wait_readable(self._ours)
        for member in self._members:
            # Its process group: a node that hangs takes its replicas along.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(member.process.pid, signal.SIGKILL)
            await member.process.aclose()
        self._ours.close()


@asynccontextmanager
async def open_crew() -> AsyncIterator[Crew]:
    """Start processes inside; after it, none is left, however it was left."""
    async with anyio.create_task_group() as group:
        crew = Crew(group)
        try:
            yield crew
        finally:
            with anyio.CancelScope(shield=True):
                group.cancel_scope.cancel()
                await crew.dismiss()


async def run_until_dismissed(work: Callable[[], Awaitable[None]], *, leash: int) -> None:
    """Run `work` until it ends, SIGTERM comes, or the leash ends: what each long-running process of the demo does."""
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_at_sigterm, group)
        group.start_soon(_cancel_at_end, group, leash)
        await work()
        group.cancel_scope.cancel()


async def _cancel_at_sigterm(group: TaskGroup) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            group.cancel_scope.cancel()


async def _cancel_at_end(group: TaskGroup, leash: int) -> None:
    await anyio.wait_readable(leash)
    group.cancel_scope.cancel()


def say(fact: object) -> None:
    """One line of JSON on stdout, for the supervisor."""
    sys.stdout.buffer.write(msgspec.json.encode(fact) + b"\n")
    sys.stdout.buffer.flush()


def last_line(path: Path) -> str:
    """The last line of a text file: a Python process says there what it died of."""
    lines = path.read_text("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
