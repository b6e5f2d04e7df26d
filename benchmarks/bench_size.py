"""Bytes of a logged event, of a live port in memory, of a pool nobody touched.

python benchmarks/bench_size.py
"""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from pathlib import Path

from common import Core, lease_of, machine, owner

from portfsm import Allocate, FileJournal, Ledger, PoolSpec, Release, replay

LIVE = 40_000


def bytes_an_event() -> dict[str, float]:
    """Of each kind of life, on disk, with an owner of 26 characters."""
    found = {}
    for name, service, hold_s in (("owner only", "", 10.0), ("with a service of 8", "checkout", 10.0)):
        core = Core(PoolSpec("http", ports="30000-30999", hold_s=hold_s))
        for number in range(2000):
            event = core.do(Allocate("http", owner=owner(number), service=service))[-1]
            core.do(Release(lease_of(event)))
            core.now_ns += 11_000_000_000
        with tempfile.TemporaryDirectory() as folder:
            journal = FileJournal(str(Path(folder, "log")))
            journal.open("benchmark")
            for event in core.log:
                journal.append([event])
            journal.close()
            found[name] = sum(path.stat().st_size for path in Path(folder, "log").glob("0*.jsonl")) / len(core.log)
    return found


def traced(build: object) -> tuple[object, int]:
    """What `build` makes, and the bytes that stay."""
    gc.collect()
    tracemalloc.start()
    made = build()  # type: ignore[operator]
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return made, size


def main() -> None:
    """Print the sizes beside their targets."""
    print(machine())
    for name, size in bytes_an_event().items():
        print(f"logged event, {name}: {size:.0f} bytes on average over allocated, released, freed (target 220)")
    core = Core(PoolSpec("http", ports=f"20000-{20000 + LIVE - 1}"))
    _, size = traced(lambda: [core.do(Allocate("http", owner=owner(number))) and core.log.clear() for number in range(LIVE)] and None)
    print(f"live port, ledger that decides: {size / LIVE:.0f} bytes with its owner's name (target 200)")
    _, size = traced(core.ledger.copy)
    print(f"live port, the second ledger of a manager (published): {size / LIVE:.0f} bytes more")
    log = Core(PoolSpec("http", ports=f"20000-{20000 + LIVE - 1}"))
    log.fill(LIVE)
    events = log.log
    _, size = traced(lambda: replay(events))
    print(f"live port, replayed: {size / LIVE:.0f} bytes (names shared with the events)")
    spec = PoolSpec("http", ports="30000-30999")
    core = Core(spec)
    _, size = traced(lambda: core.ledger.port("http", 30000, node="elsewhere") and None)
    print(f"untouched pool of 1,000 ports: {size} bytes (target 1 KB)")
    _, size = traced(Ledger)
    print(f"empty ledger: {size} bytes")


if __name__ == "__main__":
    main()
