"""Allocate and release in the pure core, every event recorded; beside Ray's in-memory allocator where it is at hand.

    python benchmarks/bench_core.py [--ray PYTHON]

PYTHON is an interpreter that has `ray[serve]`. Its allocator is run with logging off and quarantine 0; ours with hold 0, so
that both free the port in the same call. Both loops make the owner's name, allocate and release; ours also builds the
commands and the lease and keeps three events a cycle.
"""

from __future__ import annotations

import subprocess
import sys
import time

from common import Core, lease_of, machine, spread

from portfsm import Allocate, PoolSpec, Release, decide
from portfsm._ledger import apply_all

CYCLES = 3000
RAY = """
import logging, os, sys, time
os.environ["RAY_SERVE_PORT_QUARANTINE_S"] = "0"
from ray.serve._private.node_port_manager import PortAllocator
logging.disable(logging.CRITICAL)
ports, live = int(sys.argv[1]), int(sys.argv[2])
pool = PortAllocator(20000, 20000 + ports, "http", "node")
allocate = getattr(pool, "allocate_port", None) or pool.allocate
release = getattr(pool, "release_port", None) or pool.release
for number in range(live):
    allocate(f"replica-{number:018d}")
cycles = int(sys.argv[3])
started = time.perf_counter()
for number in range(cycles):
    name = f"newcomer-{number:017d}"
    release(name, allocate(name), False)
print((time.perf_counter() - started) / cycles * 1e6)
"""


def cycle_us(live: int, ports: int, order: str = "lowest") -> float:
    """Microseconds of one cycle at `live` ports of `ports`."""
    core = Core(PoolSpec("http", ports=f"20000-{20000 + ports - 1}", hold_s=0.0, order=order))  # type: ignore[arg-type]
    core.fill(live)
    ledger, log, now_ns = core.ledger, core.log, core.now_ns
    started = time.perf_counter()
    for number in range(CYCLES):
        events = decide(ledger, Allocate("http", owner=f"newcomer-{number:017d}"), now_ns=now_ns)
        apply_all(ledger, events)
        log += events
        events = decide(ledger, Release(lease_of(events[-1])), now_ns=now_ns)
        apply_all(ledger, events)
        log += events
    return (time.perf_counter() - started) / CYCLES * 1e6


def ray_us(python: str, live: int, ports: int) -> float:
    """The same of Ray's allocator."""
    cycles = CYCLES if live < 5000 else 300
    out = subprocess.run([python, "-c", RAY, str(ports), str(live), str(cycles)], capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def main() -> None:
    """Flatness, the three orders, and the rival."""
    ray = sys.argv[sys.argv.index("--ray") + 1] if "--ray" in sys.argv else None
    print(machine())
    flat: dict[int, list[float]] = {live: [] for live in (0, 100, 1000, 10_000, 30_000)}
    for _ in range(7):
        for live, found in flat.items():
            found.append(cycle_us(live, 40_000))
    for live, found in flat.items():
        print(f"40,000 ports, {live:>6,} live: {spread(found, ' us')} a cycle")
    ratio = [b / a for a, b in zip(flat[0], flat[30_000], strict=True)]
    print(f"30,000 live against none: {spread(ratio, 'x')} (target within 1.5x)")
    for order in ("lowest", "longest-idle", "random"):
        print(f"1,000 ports, 900 live, order {order}: {spread([cycle_us(900, 1000, order) for _ in range(7)], ' us')}")
    if ray is None:
        return
    for live, ports in ((900, 1000), (30_000, 40_000)):
        pairs = [(cycle_us(live, ports), ray_us(ray, live, ports)) for _ in range(7)]
        print(f"{live:,} of {ports:,} live: ours {spread([a for a, _ in pairs], ' us')}, Ray's {spread([b for _, b in pairs], ' us')}")
        print(f"    Ray's time over ours: {spread([b / a for a, b in pairs], 'x')} (target 2x at 900 of 1,000)")


if __name__ == "__main__":
    main()
