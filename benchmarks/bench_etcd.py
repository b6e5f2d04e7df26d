"""The manager on a real etcd: grouped callers against one transaction a call, and reading the log back.

    python benchmarks/bench_etcd.py [SECONDS] [ROUNDS]
    python benchmarks/bench_etcd.py takeover [ROUNDS]

One member on this machine, fsync as it comes; client and server share its processors. Grouped: so many callers, each awaiting its
own lease and releasing it. One transaction a call: the same journal, each event appended and awaited alone. Replay: `read_journal` of
what the grouped callers wrote, every byte proven. Take-over: a leading process is killed with -9 while it works, another waits with
`role="lead-or-wait"`; seconds from the kill to its first answer, replay included.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
from common import machine, owner, rounds, spread

from portfsm import Event, EventKind, PoolSpec, open_manager, read_journal
from portfsm.journals.etcd import EtcdJournal
from tests.etcd.leader import Leader
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


def taken_over(url: str, place: Path, lease_s: float) -> float:
    """Seconds more than the lease; the kill comes at any time between two signs of life."""
    first = Leader(url, "first", place, lease_s)
    first.until("given", 100)
    second = Leader(url, "second", place, lease_s)
    try:
        time.sleep(1.0)  # it stands by
        time.sleep(random.random() * lease_s / 2)
        first.process.kill()
        killed = time.monotonic()
        return second.until("leads") - killed - lease_s
    finally:
        first.kill()
        second.kill()


def takeovers(times: int) -> None:
    """With a short lease and with the default."""
    with tempfile.TemporaryDirectory() as place, Cluster(Path(place)) as cluster:
        for lease_s in (3.0, 10.0):
            found = [taken_over(cluster.url(f"log-{next(_number)}"), Path(place), lease_s) for _ in range(times)]
            print(f"take-over after kill -9, lease {lease_s:g} s: lease {spread(found, ' s')} (target lease + 0.5 s)")


def main() -> None:
    """On both loops."""
    if sys.argv[1:2] == ["takeover"]:
        return takeovers(int(sys.argv[2]) if len(sys.argv) > 2 else 7)
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(machine())
    with tempfile.TemporaryDirectory() as place, Cluster(Path(place)) as cluster:
        for backend in ("asyncio", "trio"):
            compare(cluster, backend, seconds, times)
    return None


if __name__ == "__main__":
    main()
