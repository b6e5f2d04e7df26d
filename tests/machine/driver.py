"""A controller that works for a while and says what it asks and what it is told. Run as a process of its own, on a machine that is made to fail.

    python -m tests.machine.driver DIRECTORY [--calls N] [--fsize BYTES] [--die]

Each line of its output is JSON, as in `crash_driver.py`. It ends with `done`, or with `failed` and the name of what was raised.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from functools import partial

import anyio

from portfsm import JournalFull, PoolSpec, PortfsmError, open_manager

SPEC = PoolSpec("http", ports="1000-1019", hold_s=0.005)


def say(kind, **facts):
    os.write(1, json.dumps({"line": kind, **facts}).encode() + b"\n")


async def call(manager, name, action, **facts):
    say("sent", call=name, **facts)
    result = await action()
    facts |= {field: getattr(result, field) for field in ("port", "token") if hasattr(result, field)}
    say("ack", call=name, seq=manager.seq, digest=manager.digest(), **facts)
    return result


async def work(manager, calls):
    """Leases come and go; on a full disk none begins, and those there are can end all the same."""
    held = []
    for number in range(calls):
        owner = f"{os.getpid()}-{number}"
        try:
            held.append(await call(manager, "allocate", partial(manager.allocate, "http", owner=owner, wait_s=5), owner=owner))
        except JournalFull:
            say("full", held=len(held))
            break
        if len(held) > 3:
            lease = held.pop(0)
            await call(manager, "release", partial(manager.release, lease), token=lease.token, port=lease.port)
    for lease in held:
        await call(manager, "release", partial(manager.release, lease), token=lease.token, port=lease.port)


async def main(options):
    say("start")
    try:
        async with open_manager(options.directory, pools=[SPEC]) as manager:
            say("ack", call="open", seq=manager.seq, digest=manager.digest())
            await work(manager, options.calls)
            if options.die:
                os._exit(9)
    except PortfsmError as error:
        say("failed", error=type(error).__name__, text=str(error))
        return 3
    say("done")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--calls", type=int, default=12)
    parser.add_argument("--fsize", type=int)
    parser.add_argument("--die", action="store_true", help="at the end, without leaving the manager")
    chosen = parser.parse_args()
    if chosen.fsize:
        resource.setrlimit(resource.RLIMIT_FSIZE, (chosen.fsize, chosen.fsize))
    sys.exit(anyio.run(main, chosen))
