"""A controller that leads until it is killed: a program of its own. It prints a line for each lease that it was given.

python -m tests.etcd.leader URL HOLDER LEASE_S
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import anyio

from portfsm import PoolSpec, PortfsmError, open_manager

SPEC = PoolSpec("http", ports="30000-39999", hold_s=3600.0)
LEASE_S = 3.0


async def lead(url: str, holder: str, lease_s: float) -> None:
    async with open_manager(url, pools=[SPEC], role="lead-or-wait", lease_s=lease_s, holder=holder) as manager:
        print("leads", manager.epoch, flush=True)

        async def work(worker: int) -> None:
            for number in itertools.count():
                lease = await manager.allocate("http", owner=f"{holder}-{worker}-{number % 500}")
                print("given", lease.token, lease.owner, flush=True)
                if number % 2:
                    await manager.release(lease)

        async with anyio.create_task_group() as tasks:
            for worker in range(8):
                tasks.start_soon(work, worker)


class Leader:
    """This program in a process, its lines as they come."""

    def __init__(self, url: str, holder: str, place: Path, lease_s: float = LEASE_S) -> None:
        self._out = (place / f"{holder}.out").open("w+")
        command = [sys.executable, "-m", "tests.etcd.leader", url, holder, str(lease_s)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(command, stdout=self._out, env=environment, stderr=subprocess.DEVNULL)

    def lines(self) -> list[list[str]]:
        with open(self._out.name) as file:
            return [line.split() for line in file if line.endswith("\n")]

    def until(self, word: str, count: int = 1, within_s: float = 20.0) -> float:
        """Wait for so many lines that begin with `word`; when it was seen, by the monotonic clock."""
        end = time.monotonic() + within_s
        while sum(line[0] == word for line in self.lines()) < count:
            assert time.monotonic() < end, (word, self.lines()[-3:])
            assert self.process.poll() is None or word == "ended"
            time.sleep(0.005)
        return time.monotonic()

    def given(self) -> dict[int, str]:
        return {int(line[1]): line[2] for line in self.lines() if line[0] == "given" and len(line) == 3}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()


if __name__ == "__main__":
    try:
        anyio.run(lead, sys.argv[1], sys.argv[2], float(sys.argv[3]))
    except* PortfsmError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print("ended", type(error).__name__, flush=True)
