"""Replay of a file log with every transition checked, against only reading the same file and splitting its lines.

python benchmarks/bench_replay.py [EVENTS] [ROUNDS]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, spread, write_log

from portfsm import FileJournal, read_journal, replay


def split_lines(path: Path) -> int:
    """The floor: read the file in 64 KiB chunks and split it into lines."""
    count = 0
    for segment in sorted(path.glob("*.jsonl")):
        rest = b""
        with segment.open("rb") as file:
            while chunk := file.read(1 << 16):
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                count += len(lines)
    return count


def one(kind: str, path: Path) -> None:
    """Run in a process of its own, so that memory is its own too."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    count = split_lines(path) if kind == "split" else replay(read_journal(str(path))).seq
    took = time.perf_counter() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(count, took, grown / 1024)


def main() -> None:
    """Both, in turns."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        written = write_log(FileJournal(str(path)), events)
        size = sum(segment.stat().st_size for segment in path.glob("*.jsonl"))
        print(f"log: {written:,} events, {size / written:.1f} bytes each (owner of 26 characters)")
        rates: dict[str, list[float]] = {"split": [], "replay": []}
        grown: list[float] = []
        for _ in range(count):
            for kind, found in rates.items():
                out = subprocess.run([sys.executable, __file__, "--one", kind, str(path)], capture_output=True, text=True, check=True)
                _, took, growth = map(float, out.stdout.split())
                found.append(written / took / 1e6)
                if kind == "replay":
                    grown.append(growth)
        ratio = [r / s for r, s in zip(rates["replay"], rates["split"], strict=True)]
        print(f"replay: {spread(rates['replay'])} million events/s")
        print(f"read and split only: {spread(rates['split'])} million lines/s")
        print(f"ratio: {spread(ratio)} (target 0.18, or 1.3 million a second)")
        print(f"memory growth: {spread(grown, ' MiB')} (target under 32)")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
