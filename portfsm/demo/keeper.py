"""Runs one foreign program for as long as the demo holds the leash: `python -I -S keeper.py LEASH COMMAND...`.

A program that knows nothing of leashes is ended here: with SIGTERM when the leash ends or SIGTERM comes, with SIGKILL when that
takes too long, and by the kernel when this process is killed itself. What the program prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from functools import partial

GRACE_S = 2.0
PR_SET_PDEATHSIG = 1


def keep(leash: int, command: list[str]) -> int:
    """Run `command` until it ends or has to; its exit status."""
    asked, ask = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(ask, b"."))
    signal.signal(signal.SIGCHLD, lambda *_: os.write(ask, b"."))
    die_with_us = partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGTERM) if sys.platform == "linux" else None
    program = subprocess.Popen(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, preexec_fn=die_with_us)  # noqa: PLW1509, S603
    select.select([leash, asked], [], [])
    if program.poll() is not None:
        return program.returncode
    program.terminate()
    try:
        program.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(0, signal.SIGKILL)  # our own group, which it has never left
    return 0


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), sys.argv[2:]))
