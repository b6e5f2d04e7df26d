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

CYCLES = 67
SEED = 20_261_123
DRIVER = Path(__file__).with_name("crash_driver.py")
LOOPS = ("asyncio", "uvloop", "trio")


@pytest.fixture(scope="module")
def drivers(tmp_path_factory, times):
    """One driver a loop, all begun at once."""
    environment = {**os.environ, "PYTHONPATH": str(Path(portfsm.__file__).parents[1])}
    running = {}
    for loop in LOOPS:
        command = [sys.executable, str(DRIVER), loop, str(SEED), str(CYCLES * times), str(tmp_path_factory.mktemp(loop) / "log")]
        running[loop] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
