"""No process of the demo is left behind, however the demo ends; and none may end unnoticed."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from portfsm.demo import processes
from portfsm.demo.processes import Crew, Member, ProcessEndedError, open_crew, run_until_dismissed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

WAITS_FOR_THE_END = "import os, sys, time; print('{}', flush=True); os.read(int(sys.argv[1]), 1)"
IGNORES_EVERYTHING = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(1000)"


@pytest.fixture
def stderr(tmp_path: Path) -> Path:
    return tmp_path / "stderr.txt"


async def start(crew: Crew, script: str, stderr: Path, on_line: Callable[[dict[str, Any]], None] | None = None) -> Member:
    """Start a Python script that prints a line when it is ready, and wait for that line."""
    ready = anyio.Event()

    def hear(line: dict[str, Any]) -> None:
        ready.set()
        if on_line:
            on_line(line)

    member = await crew.start("child", [sys.executable, "-c", script, str(crew.leash)], stderr=stderr, on_line=hear)
    await ready.wait()
    return member


async def test_everybody_ends_with_the_crew(stderr: Path) -> None:
    async with open_crew() as crew:
        members = [await start(crew, WAITS_FOR_THE_END, stderr) for _ in range(3)]

    assert [member.process.returncode for member in members] == [0, 0, 0]


async def test_everybody_ends_when_the_crew_is_cancelled(stderr: Path) -> None:
    members = []
    with anyio.CancelScope() as scope:
        async with open_crew() as crew:
            members.append(await start(crew, WAITS_FOR_THE_END, stderr))
            scope.cancel()

    assert members[0].process.returncode == 0


async def test_who_ignores_the_leash_is_killed(stderr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.05)
    async with open_crew() as crew:
        member = await start(crew, IGNORES_EVERYTHING, stderr)

    assert member.process.returncode == -signal.SIGKILL


async def test_an_end_that_nobody_asked_for_is_reported_with_its_last_words(stderr: Path) -> None:
    async def start_one_that_fails() -> None:
        async with open_crew() as crew:
            await crew.start("proxy", [sys.executable, "-c", "raise SystemExit('no such port')"], stderr=stderr)
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await start_one_that_fails()

    (error,) = caught.value.exceptions
    assert isinstance(error, ProcessEndedError)
    assert str(error) == "the proxy ended with status 1: no such port"


async def test_an_end_that_was_asked_for_is_no_error_and_its_last_line_is_heard(stderr: Path) -> None:
    heard: list[dict[str, Any]] = []
    script = (  # the signal may come while the first line is being printed, where no other print is allowed
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.write(1, b'{\"last\": 1}\\n') < 1))\n"
        "print('{}', flush=True)\nsignal.pause()"
    )
    async with open_crew() as crew:
        member = await start(crew, script, stderr, heard.append)
        await member.end(signal.SIGTERM)

        assert heard == [{}, {"last": 1}]


async def test_ending_one_that_has_ended_already_is_fine(stderr: Path) -> None:
    async with open_crew() as crew:
        member = await start(crew, WAITS_FOR_THE_END, stderr)
        await member.end(signal.SIGKILL)
        await member.end(signal.SIGKILL)


async def test_work_ends_with_the_leash(leash: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = leash
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: run_until_dismissed(anyio.sleep_forever, leash=theirs.fileno()))
        ours.close()


async def test_work_ends_at_sigterm(leash: tuple[socket.socket, socket.socket]) -> None:
    async def work() -> None:
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            await anyio.lowlevel.checkpoint()
        os.kill(os.getpid(), signal.SIGTERM)
        await anyio.sleep_forever()

    await run_until_dismissed(work, leash=leash[1].fileno())


async def test_work_that_is_done_ends_by_itself(leash: tuple[socket.socket, socket.socket]) -> None:
    await run_until_dismissed(anyio.lowlevel.checkpoint, leash=leash[1].fileno())
