"""The manager on a real etcd: grouped callers against one transaction a call, and reading the log back.

    python benchmarks/bench_etcd.py [SECONDS] [ROUNDS]

One member on this machine, fsync as it comes; client and server share its processors. Grouped: so many callers, each awaiting its own
lease and releasing it. One transaction a call: the same journal, each event appended and awaited alone. Replay: `read_journal`
of what the grouped callers wrote, every byte proven. Absolute figures swing with the machine's disk, ratios travel.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
from common import machine, owner, rounds, spread

from portfsm import Event, EventKind, PoolSpec, open_manager, read_journal
from portfsm.journals.etcd import EtcdJournal
from tests.etcd.server import Cluster

SPEC = PoolSpec("http", ports="10000-59999", hold_s=0.001)
CALLERS = (64, 256)
TARGET = 10_000
_number = itertools.count()


async def grouped(url: str, seconds: float, callers: int, took: list[float]) -> float:
    """Durable events a second; the milliseconds of each call go to `took`."""
    async with open_manager(EtcdJournal.from_url(url), pools=[SPEC]) as manager:
        end = time.perf_counter() + seconds
        before = manager.durable_seq

        async def caller(number: int) -> None:
            for turn in itertools.count():
                if (began := time.perf_counter()) >= end:
                    return
                lease = await manager.allocate("http", owner=owner(number * 10_000_000 + turn))
                took.append((time.perf_counter() - began) * 1000)
                await manager.release(lease)

        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for number in range(callers):
                tasks.start_soon(caller, number)
        return (manager.durable_seq - before) / (time.perf_counter() - began)


def singly(url: str, seconds: float) -> float:
    """Events a second, one transaction each."""
    journal = EtcdJournal.from_url(url)
    journal.open("benchmark")
    end, seq = time.perf_counter() + seconds, 0
    began = time.perf_counter()
    while time.perf_counter() < end:
        seq += 1
        journal.append([Event(seq, time.time_ns(), EventKind.ALLOCATED, "", "http", 10_000, owner(seq), "", seq)])
    rate = seq / (time.perf_counter() - began)
    journal.close()
    return rate


def replayed(url: str) -> float:
    """Events a second."""
    began = time.perf_counter()
    return sum(1 for _ in read_journal(EtcdJournal.from_url(url))) / (time.perf_counter() - began)


def compare(cluster: Cluster, backend: str, seconds: float, times: int) -> None:
    """All on one loop, in turns."""
    took: dict[int, list[float]] = {callers: [] for callers in CALLERS}
    last = ""

    def new() -> str:
        nonlocal last
        last = cluster.url(f"log-{next(_number)}")
        return last

    def many(callers: int) -> float:
        return anyio.run(grouped, new(), seconds, callers, took[callers], backend=backend)

    found = rounds(
        times,
        single=lambda: singly(new(), seconds),
        few=lambda: many(CALLERS[0]),
        more=lambda: many(CALLERS[1]),
        replay=lambda: replayed(last),
    )
    print(f"{backend}: one transaction a call {spread(found['single'])} events/s, replay {spread(found['replay'])} events/s")
    for callers, name in zip(CALLERS, ("few", "more"), strict=True):
        gain = [many / one for many, one in zip(found[name], found["single"], strict=True)]
        p50, p99 = statistics.median(took[callers]), statistics.quantiles(took[callers], n=100)[98]
        print(f"    {callers} callers {spread(found[name])} events/s (target {TARGET}), gain {spread(gain, 'x')}")
        print(f"        allocate p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def main() -> None:
    """On both loops."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(machine())
    with tempfile.TemporaryDirectory() as place, Cluster(Path(place)) as cluster:
        for backend in ("asyncio", "trio"):
            compare(cluster, backend, seconds, times)


if __name__ == "__main__":
    main()
