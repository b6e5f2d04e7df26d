"""Hours of mixed work on one manager: does anything grow that should not?

    python benchmarks/soak.py [MINUTES] [file|postgres|etcd] [CALLERS]

Callers take ports, alone and in groups, wait and are cancelled while they wait, drain, renew leases, let leases expire, report ports that
cannot be used and die without a word (then `release_owner`); a proxy confirms each release; watchers and followers come and go, metrics are
scraped, the pool is redefined. Once a second, what the process uses is noted; a line a minute is printed. Exit 1 if the last quarter of
the run uses more memory or objects than the second, beyond a twentieth; if a file or task is left after the manager is closed; or if
the log does not replay to what the manager said last.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from common import machine

from portfsm import PoolSpec, PortfsmError, PortManager, Request, follow, open_manager, read_journal, replay
from portfsm.contrib.metrics import metrics_of
from portfsm.evidence import Verdict
from portfsm.journals.postgres import PostgresJournal
from portfsm.testing import FakeWitness
from tests import real_postgres
from tests.etcd.server import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.contrib.metrics import Metrics

NODES = ("a", "b", "c")
POOLS = (
    PoolSpec("http", ports="30000-30199", hold_s=2.0, order="longest-idle"),
    PoolSpec("grpc", ports="31000-31199", hold_s=0.2),
)
PAGE = os.sysconf("SC_PAGE_SIZE")
GROWTH = 1.05


class Work:
    """What callers do, and how often each was done."""

    def __init__(self, manager: PortManager, seed: int) -> None:
        self.manager, self.chance, self.done = manager, random.Random(seed), Counter[str]()
        self.numbers = itertools.count()
        self.kinds = {self.single: 8, self.group: 2, self.drained: 2, self.expiring: 2, self.impatient: 4, self.unusable: 1, self.dead: 1}

    async def caller(self) -> None:
        while True:
            (kind,) = self.chance.choices(list(self.kinds), list(self.kinds.values()))
            try:
                await kind(f"replica-{next(self.numbers):012d}", self.chance.choice(NODES))
                self.done[kind.__name__] += 1
            except PortfsmError as error:
                self.done[type(error).__name__] += 1
            await anyio.sleep(self.chance.random() * 0.2)

    async def single(self, owner: str, node: str) -> None:
        service = f"service-{self.chance.randrange(50)}"
        async with self.manager.lease("http", owner=owner, node=node, service=service, wait_s=10.0):
            await anyio.sleep(self.chance.random() * 0.5)

    async def group(self, owner: str, node: str) -> None:
        asked = [Request("http", owner, node=node), Request("grpc", owner, node=node, count=2, contiguous=True)]
        for lease in await self.manager.allocate_group(asked, wait_s=10.0):
            await self.manager.release(lease)

    async def drained(self, owner: str, node: str) -> None:
        lease = await self.manager.allocate("http", owner=owner, node=node, wait_s=10.0)
        await self.manager.withdraw(lease)
        await self.manager.wait_clear(lease, timeout_s=5.0)
        await self.manager.release(lease)

    async def expiring(self, owner: str, node: str) -> None:
        lease = await self.manager.allocate("grpc", owner=owner, node=node, ttl_s=0.5, wait_s=10.0)
        for _ in range(self.chance.randrange(3)):
            await anyio.sleep(0.1)
            await self.manager.renew(lease)

    async def impatient(self, owner: str, node: str) -> None:
        with anyio.move_on_after(self.chance.random() * 0.02):
            await self.manager.allocate("grpc", owner=owner, node=node, ttl_s=5.0, wait_s=None)

    async def unusable(self, owner: str, node: str) -> None:
        lease = await self.manager.allocate("grpc", owner=owner, node=node, wait_s=10.0)
        await self.manager.release(lease, block="address in use", for_s=0.5)

    async def dead(self, owner: str, node: str) -> None:
        await self.manager.allocate("http", owner=owner, node=node, wait_s=10.0)
        await self.manager.release_owner(owner)


async def onlookers(manager: PortManager, log: str, metrics: Metrics, witness: FakeWitness) -> None:
    """A follower of the log; and once a second a new watcher, a scrape, and another size of a pool."""
    async with follow(log) as follower:
        for number in itertools.count():
            await follower.reached(manager.durable_seq)
            async for _ in manager.watch(after=max(manager.durable_seq - 100, 0)):
                break
            list(metrics.collect())
            await manager.define(PoolSpec("grpc", ports=f"31000-31{199 - number % 2}", hold_s=0.2))
            for kept in (witness.asked, witness.rounds, witness.withdrawn):
                kept.clear()
            await anyio.sleep(1.0)


class Use:
    """What this process uses, once a second."""

    def __init__(self) -> None:
        self.memory: list[int] = []
        self.objects: list[int] = []

    async def note(self, work: Work, minutes: float) -> None:
        began = time.monotonic()
        for second in itertools.count(1):
            await anyio.sleep(max(0.0, began + second - time.monotonic()))
            self.memory.append(resident())
            if second % 10 == 0:
                gc.collect()
                self.objects.append(len(gc.get_objects()))
            if second % 60 == 0:
                print(f"{second // 60:4d} min  seq {work.manager.durable_seq:,}  {self.line()}  calls {work.done.total():,}", flush=True)
            if time.monotonic() - began >= minutes * 60:
                return

    def line(self) -> str:
        threads, tasks = threading.active_count(), len(anyio.get_running_tasks())
        return f"{self.memory[-1] / 1e6:.1f} MB  objects {self.objects[-1]:,}  files {left_open()}  threads {threads}  tasks {tasks}"


def left_open() -> int:
    """Descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def grown(values: list[int]) -> float:
    """The last quarter against the second."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[-quarter:]) / statistics.median(values[quarter : 2 * quarter])


async def soak(log: str, minutes: float, callers: int) -> list[str]:
    """What is wrong."""
    found, witness, use = [], FakeWitness("proxy", [Verdict.CLEAR]), Use()
    before = len(anyio.get_running_tasks())
    async with open_manager(log, pools=POOLS, witnesses=[witness]) as manager, metrics_of(manager) as metrics:
        work = Work(manager, 1)
        async with anyio.create_task_group() as tasks:
            for _ in range(callers):
                tasks.start_soon(work.caller)
            tasks.start_soon(onlookers, manager, log, metrics, witness)
            await use.note(work, minutes)
            tasks.cancel_scope.cancel()
    digest = manager.digest()
    print("   ", ", ".join(f"{name} {count:,}" for name, count in work.done.most_common()))
    for name, values in (("memory", use.memory), ("objects", use.objects)):
        print(f"    {name}: last quarter against the second {grown(values):.3f}")
        if grown(values) > GROWTH:
            found.append(f"{name} grows with the work")
    if len(anyio.get_running_tasks()) != before:
        found.append("tasks are left")
    if (await anyio.to_thread.run_sync(lambda: replay(read_journal(log)))).digest() != digest:
        found.append("the log does not replay to what the manager said")
    return found


@contextmanager
def new_log(kind: str) -> Iterator[str]:
    """An empty one, on a server of its own if it needs one."""
    if kind == "postgres":
        folder = real_postgres.new_folder()
        server = real_postgres.Server(folder).make().start()
        try:
            PostgresJournal.from_url(server.url("soak")).init()
            yield server.url("soak")
        finally:
            server.stop()
            shutil.rmtree(folder)
        return
    with tempfile.TemporaryDirectory() as place:
        if kind == "etcd":
            with Cluster(Path(place)) as cluster:
                yield cluster.url("soak")
        else:
            yield str(Path(place) / "log")


def main() -> int:
    """One run."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    kind = sys.argv[2] if len(sys.argv) > 2 else "file"
    callers = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    print(f"{machine()}: {kind}, {callers} callers, {minutes:g} minutes")
    with new_log(kind) as log:
        before = left_open()
        found = anyio.run(soak, log, minutes, callers)
        if left_open() > before:
            found.append(f"{left_open() - before} descriptors are left")
    print("all is well" if not found else "; ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
