"""What the benchmarks share: a log of a chosen size, a machine's name, spreads.

Every figure is taken next to its yardstick in the same run, in turns, and printed as a ratio with its spread:
absolute figures of shared machines swing, ratios travel.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import anyio
import anyio.to_thread

from portfsm import Allocate, Close, DefinePool, Event, EventKind, Lease, Ledger, Open, PoolSpec, Release, decide
from portfsm._cache import SNAPSHOT_EVERY
from portfsm._dump import dump
from portfsm._ledger import apply_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm import Command
    from portfsm.protocols import CachingJournal, Journal


def machine() -> str:
    """One line on where this ran."""
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def spread(values: list[float], unit: str = "") -> str:
    """Median with the lowest and highest."""
    return f"{statistics.median(values):.3g}{unit} ({min(values):.3g}..{max(values):.3g}, n={len(values)})"


def rounds(count: int, **contenders: Callable[[], float]) -> dict[str, list[float]]:
    """Each contender's figures, taken in turns, so that a slow minute hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(count):
        for name, run in contenders.items():
            found[name].append(run())
    return found


def owner(number: int) -> str:
    """A name of 26 characters, as a replica's may be."""
    return f"replica-{number:018d}"


class Core:
    """A ledger and the events it recorded."""

    def __init__(self, spec: PoolSpec) -> None:
        self.ledger = Ledger()
        self.log: list[Event] = []
        self.now_ns = time.time_ns()
        self.do(Open(1, "benchmark", "boot", 0, self.now_ns))
        self.do(DefinePool(spec, seed="seed"))

    def do(self, command: Command) -> tuple[Event, ...]:
        """Decide, apply, record."""
        events = decide(self.ledger, command, now_ns=self.now_ns)
        apply_all(self.ledger, events)
        self.log += events
        return events

    def fill(self, live: int, *, first: int = 0) -> list[Lease]:
        """Allocate `live` ports."""
        return [lease_of(self.do(Allocate("http", owner=owner(first + n)))[-1]) for n in range(live)]


def lease_of(event: Event) -> Lease:
    """The lease an `allocated` began."""
    return Lease(event.pool, event.node, event.port, event.owner, event.service, event.token, event.ts)


BATCH = 64
"""Events in one sync of a busy controller."""


def write_log(journal: CachingJournal, events: int, *, ports: int = 10_000, live: int = 5_000, snapshots: bool = False) -> int:
    """At least `events` events into an empty log: a pool kept at `live` ports, each port's life allocated, released, freed.

    With `snapshots`, as often as a manager keeps one. The journal is opened and closed; how many events it then holds.
    """
    core = Core(PoolSpec("http", ports=f"10000-{10000 + ports - 1}", hold_s=0.001, order="longest-idle"))
    journal.open("benchmark")
    leases = core.fill(live)
    number, kept = live, 0
    while core.ledger.seq < events:
        core.now_ns += 1_000_000
        core.do(Release(leases.pop(0)))
        leases.append(lease_of(core.do(Allocate("http", owner=owner(number)))[-1]))
        number += 1
        if len(core.log) >= BATCH:
            journal.append(core.log)
            core.log.clear()
            if snapshots and core.ledger.seq - kept >= SNAPSHOT_EVERY:
                kept = core.ledger.seq
                journal.save_snapshot(kept, dump(core.ledger))
    core.do(Close())
    journal.append(core.log)
    journal.close()
    return core.ledger.seq


async def one_append_a_call(journal: Journal, seconds: float, callers: int) -> float:
    """So many callers without grouping, each appending one event in a thread hop of its own: events a second."""
    journal.open("benchmark")
    seq, lock = 0, anyio.Lock()
    end = time.perf_counter() + seconds
    started = time.perf_counter()

    async def caller(number: int) -> None:
        nonlocal seq
        while time.perf_counter() < end:
            async with lock:
                event = Event(seq + 1, time.time_ns(), EventKind.ALLOCATED, "", "http", 10_000, owner(number), "", seq + 1)
                await anyio.to_thread.run_sync(journal.append, [event])
                seq += 1

    async with anyio.create_task_group() as tasks:
        for number in range(callers):
            tasks.start_soon(caller, number)
    rate = seq / (time.perf_counter() - started)
    journal.close()
    return rate
