"""A controller whose wall clock is stepped each time a port is held. Run under libfaketime, as a process of its own.

    python -m tests.machine.stepped DIRECTORY OFFSETS_FILE OFFSET...

One JSON line says when the port was granted, one for each offset what the wall clock jumped by and how long the port was held, one when it was
released for the last time: that hold is left to the next controller. All but the jumps by the boot clock.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import anyio

from portfsm import PoolSpec, open_manager

HOLD_S = 0.5


def say(**facts):
    print(json.dumps(facts), flush=True)


def boot_s():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def main(directory, offsets_file, *offsets):
    async with open_manager(directory, pools=[PoolSpec("http", ports="1000", hold_s=HOLD_S)]) as manager:
        lease = await manager.allocate("http", owner=f"first-{manager.epoch}", wait_s=None)
        say(granted_s=boot_s())
        for number, offset in enumerate(offsets):
            released_s, wall_s = boot_s(), time.time()
            await manager.release(lease)
            Path(offsets_file).write_text(offset)  # noqa: ASYNC240  (a step must not be late)
            jumped_s = time.time() - wall_s
            lease = await manager.allocate("http", owner=f"{number}-{manager.epoch}", wait_s=None)
            say(jumped_s=jumped_s, held_s=boot_s() - released_s)
        released_s = boot_s()
        await manager.release(lease)
        say(released_s=released_s)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
