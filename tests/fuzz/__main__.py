"""python -m tests.fuzz: every target, or one, for so many seconds; guided by coverage where atheris is installed.

A finding is written to a file and printed with the command that repeats it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path

from .mutate import mutated
from .targets import SEEDS, TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=20.0, help="for each target (20)")
    parser.add_argument("--again", type=Path, help="run one file's bytes and nothing else")
    options = parser.parse_args()
    if options.again:
        TARGETS[options.target](options.again.read_bytes())
        return 0
    failed = [name for name in ([options.target] if options.target else TARGETS) if not _one(name, options.seconds)]
    print(f"{len(failed)} of the targets failed{': ' if failed else ''}{', '.join(failed)}")
    return bool(failed)


def _one(name: str, seconds: float) -> bool:
    if importlib.util.find_spec("atheris") is None:
        return _blind(name, seconds)
    command = [sys.executable, "-m", "tests.fuzz.guided", name, f"{seconds:g}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "DONE" in line or "cov:" in line][-1:]
    print(f"{name:16} {'fine' if done.returncode == 0 else 'FAILED'} {' '.join(said)}", flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n")
    return done.returncode == 0


def _blind(name: str, seconds: float) -> bool:
    chance, until, count = random.Random(f"{name} {time.time_ns()}"), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        data = mutated(chance.choice(SEEDS[name]), chance)
        count += 1
        try:
            TARGETS[name](data)
        except Exception as error:
            found = Path(".fuzz") / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            found.parent.mkdir(exist_ok=True)
            found.write_bytes(data)
            print(f"{name:16} FAILED with {error!r}\n  again: python -m tests.fuzz {name} --again {found}", flush=True)
            return False
    print(f"{name:16} fine, {count} inputs, not guided: pip install atheris", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
