"""Questions to a long log: `verify` against a mere replay of the same log, and `who`, `status --at`, `diff` as somebody runs them.

python benchmarks/bench_audit.py [EVENTS] [ROUNDS]

Processor seconds, not wall time: on a shared machine the one travels and the other does not.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, rounds, spread, write_log

from portfsm import FileJournal, read_journal, replay
from portfsm.cli._proof import prove


def cpu(run) -> float:
    """Processor seconds that `run` takes here."""
    started = time.process_time()
    run()
    return time.process_time() - started


def command(*arguments: object) -> float:
    """Processor seconds of a command in a process of its own, its start included."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "portfsm", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """All of them, in turns."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    dice = random.Random(5)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "log"))
        written = write_log(FileJournal(path), events, snapshots=True)
        sizes = {file: file.stat().st_size for file in Path(path).glob("*.jsonl")}
        kept = [size for file, size in sizes.items() if ".snap." in file.name]
        share = sum(kept) / (sum(sizes.values()) - sum(kept))
        print(f"log: {written:,} events, {len(kept)} states kept in {sum(kept) / 1e6:.1f} MB, {share:.2%} of the log")

        def somewhere() -> str:
            return f"@{dice.randrange(1, written)}"

        found = rounds(
            count,
            replay=lambda: cpu(lambda: replay(read_journal(path))),
            verify=lambda: cpu(lambda: prove(path, None)),
            who=lambda: command("who", path, dice.randrange(10_000, 20_000), "--at", somewhere()),
            who_around=lambda: command("who", path, dice.randrange(10_000, 20_000), "--at", somewhere(), "--within", 5),
            status_at=lambda: command("status", path, "--at", somewhere(), "--json"),
            diff=lambda: command("diff", path, "--from", somewhere(), "--to", somewhere(), "--json"),
            start=lambda: command("--version"),
        )
        rates = [written / seconds / 1e6 for seconds in found["verify"]]
        ratio = [verify / mere for verify, mere in zip(found["verify"], found["replay"], strict=True)]
        print(f"verify: {spread(rates)} million events/s; {spread(ratio)} times as long as a mere replay")
        for name in ("who", "who_around", "status_at", "diff", "start"):
            print(f"{name}: {spread(found[name], ' s')}")


if __name__ == "__main__":
    main()
