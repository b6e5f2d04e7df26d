"""The whole demo, run as a user runs it: it proves its point, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import Process

    from .conftest import Family

pytestmark = pytest.mark.anyio

COMMAND = (sys.executable, "-m", "portfsm.demo")
PATIENCE_S = 60.0


@pytest.fixture
def anyio_backend() -> str:
    """The test only watches processes, so one event loop is enough."""
    return "asyncio"


async def finished(family: Family, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a demo that is left alone."""
    with anyio.fail_after(PATIENCE_S):
        done = await anyio.run_process([*COMMAND, *arguments], env=family.environment, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@asynccontextmanager
async def running(family: Family, place: Path) -> AsyncIterator[Process]:
    """A long demo in full swing: both sides have moved replicas."""
    command = [*COMMAND, "--json", "--seconds", "60", "--dir", str(place)]
    async with await anyio.open_process(command, env=family.environment, stdin=subprocess.DEVNULL, stderr=None) as process:
        try:
            with anyio.fail_after(PATIENCE_S):
                async for line in lines(process):
                    if line["kind"] == "progress" and all(side["moved"] for side in line["sides"]):
                        break
                yield process
        finally:
            if process.returncode is None:
                process.kill()


async def lines(process: Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout
    unread = b""
    async for piece in process.stdout:
        *whole, unread = (unread + piece).split(b"\n")
        for line in whole:
            yield json.loads(line)


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_it_proves_its_point_and_leaves_nothing_but_the_logs(tmp_path: Path, family: Family) -> None:
    status, stdout, stderr = await finished(family, "--dir", str(tmp_path / "d"), "--seconds", "4", "--json")
    found = [json.loads(line) for line in stdout.splitlines()]
    checks = {line["name"]: line for line in found if line["kind"] == "check"}

    assert {name: check["found"] for name, check in checks.items() if not check["passed"]} == {}
    assert (status, stderr) == (0, "")
    assert len(checks) == 9
    assert found[-1]["kind"] == "result"
    assert family.members() == []
    assert sorted(path.name for path in (tmp_path / "d").iterdir() if path.is_dir()) == ["hold", "no-hold"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_every_process_before_the_demo_itself(tmp_path: Path, family: Family, number: signal.Signals) -> None:
    async with running(family, tmp_path / "d") as process:
        assert len(family.members()) > 40, "two sides of 20 replicas should be up"
        process.send_signal(number)

        assert await process.wait() == 128 + number
        assert family.members() == []


async def test_killed_outright_it_leaves_no_process_either(tmp_path: Path, family: Family) -> None:
    async with running(family, tmp_path / "d") as process:
        process.kill()

        await family.extinct()


async def test_a_process_that_dies_ends_the_demo_with_its_last_words(tmp_path: Path, family: Family) -> None:
    async with running(family, tmp_path / "d") as process:
        os.kill(next(pid for pid in family.members() if b"portfsm.demo.proxy" in command_of(pid)), signal.SIGKILL)
        notes = [line["text"] async for line in lines(process) if line["kind"] == "note"]

        assert "the proxy ended with status -9" in notes[-1]
        assert await process.wait() == 1
        assert family.members() == []


@pytest.mark.parametrize("seconds", ["nan", "-1", "0", "2.9", "1e9", "soon"])
async def test_a_useless_duration_is_a_usage_error(family: Family, seconds: str) -> None:
    status, stdout, stderr = await finished(family, f"--seconds={seconds}")

    assert (status, stdout) == (2, "")
    assert "seconds" in stderr


async def test_an_earlier_demo_is_not_overwritten(tmp_path: Path, family: Family) -> None:
    (tmp_path / "hold").mkdir()
    status, _, stderr = await finished(family, "--dir", str(tmp_path))

    assert status == 2
    assert "name another directory" in stderr


async def test_a_file_in_place_of_the_directory_is_a_usage_error(tmp_path: Path, family: Family) -> None:
    (tmp_path / "file").touch()
    status, _, stderr = await finished(family, "--dir", str(tmp_path / "file"))

    assert status == 2
    assert "cannot be made" in stderr
