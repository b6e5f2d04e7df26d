"""Real SIGKILLs: what was acknowledged is recovered, what is recovered was asked for, nothing comes back early.

The work is in `crash_driver.py`. All loops run beside each other; a failure prints the seed and the cycle to run again.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import portfsm
from portfsm.journals.postgres import PostgresJournal

CYCLES = 67
ON_A_SERVER = 25
"""There each cycle waits for the lease of the one before."""
SEED = 20_261_123
DRIVER = Path(__file__).with_name("crash_driver.py")
LOOPS = ("asyncio", "uvloop", "trio")


def drive(loop: str, cycles: int, log: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(portfsm.__file__).parents[1])}
    command = [sys.executable, str(DRIVER), loop, str(SEED), str(cycles), log]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def drivers(tmp_path_factory, times):
    """One driver a loop, all begun at once."""
    running = {loop: drive(loop, CYCLES * times, str(tmp_path_factory.mktemp(loop) / "log")) for loop in LOOPS}
    yield running
    for process in running.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_killed_controller_loses_or_invents_something(drivers, loop, times):
    """Ports were given twice after a restart (moby/moby#29247)."""
    out, err = drivers[loop].communicate(timeout=200 * times)
    assert drivers[loop].returncode == 0, err[-4000:]
    told = json.loads(out.splitlines()[-1])
    assert told["cycles"] == CYCLES * times
    assert told["acknowledged"] > 5 * CYCLES * times


def test_a_killed_controller_on_postgres_loses_or_invents_something(postgres, times):
    """The server lives; whoever comes next has to wait for the lease, and for an append that the dead one has sent."""
    cycles = ON_A_SERVER * times
    running = []
    for loop in ("asyncio", "trio"):
        url = postgres.url(f"crash-{loop}")
        PostgresJournal.from_url(url).init()
        running.append(drive(loop, cycles, url))
    try:
        for process in running:
            out, err = process.communicate(timeout=100 * times)
            assert process.returncode == 0, err[-4000:]
            told = json.loads(out.splitlines()[-1])
            assert told["cycles"] == cycles
            assert told["acknowledged"] > 5 * cycles
    finally:
        for process in running:
            process.kill()
            process.communicate()
