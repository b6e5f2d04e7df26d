"""A log to look at: 46 minutes of three nodes, made by the library's own rules and the same each time.

    python docs/report_story.py DIRECTORY

Two rollouts, a controller that is killed and comes back, jobs in a crash loop until a pool has no port left, a port that somebody else
sits on, one that an operator takes out, a proxy whose evidence ends holds early.
"""

from __future__ import annotations

import heapq
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from portfsm import (
    Allocate,
    Block,
    Clear,
    CommandRejected,
    DefinePool,
    Join,
    Lease,
    Ledger,
    Open,
    PoolSpec,
    Release,
    Sweep,
    Unblock,
    Withdraw,
    decide,
)
from portfsm._ledger import apply_all
from portfsm.journals import FileJournal
from portfsm.states import PortState

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm import Command, Event

SECOND = 1_000_000_000
BEGINS_NS = 1_785_592_800 * SECOND
"""2026-08-01T14:00:00Z."""
LASTS_S = 46 * 60
NODES = ("node-a", "node-b", "node-c")
POOLS = (
    PoolSpec("http", ports="30000-30059", hold_s=10.0, floor_s=1.0, order="longest-idle", on_silence="free"),
    PoolSpec("grpc", ports="40000-40035,41500-41503", hold_s=60.0, order="lowest", on_silence="free"),
    PoolSpec("batch", ports="52000-52023", hold_s=20.0, order="random", on_silence="free"),
)
SERVICES = {"checkout": ("http", 9), "search": ("http", 14), "cart": ("http", 7), "ranker": ("grpc", 11), "ledger": ("grpc", 6)}
"""Service to its pool and its replicas on each node."""
LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Story:
    """A ledger, a clock, and what is still to come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._luck = random.Random(14_03_07)  # noqa: S311
        self._ledger = Ledger()
        self._coming: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._events: list[Event] = []
        self.now_ns = BEGINS_NS
        self._journal = self._open(1)

    def _open(self, epoch: int) -> FileJournal:
        journal = FileJournal(str(self._path))
        journal.open(f"controller-{epoch} pid {4000 + epoch * 711}")
        self.do(Open(epoch, f"controller-{epoch} pid {4000 + epoch * 711}", "boot-1", self.now_ns - BEGINS_NS + SECOND, self.now_ns))
        return journal

    def do(self, command: Command) -> tuple[Event, ...]:
        """Decide, apply, record."""
        events = decide(self._ledger, command, now_ns=self.now_ns)
        if events:
            apply_all(self._ledger, events)
            self._events += events
        return events

    def _end(self) -> None:
        """The file is closed, not the log: the controller was at work until then."""
        self._journal.append(self._events)
        self._events.clear()
        self._journal.close()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Let it happen in so many seconds."""
        self._number += 1
        heapq.heappush(self._coming, (self.now_ns + int(seconds * SECOND), self._number, what))

    def run(self) -> None:
        """Everything in its order."""
        for spec in POOLS:
            self.do(DefinePool(spec, seed="story"))
        self.do(Join("edge-1"))
        for number, (node, service) in enumerate((node, service) for node in NODES for service in SERVICES):
            for nth in range(SERVICES[service][1]):
                self.later(number * 0.9 + nth * 1.7, lambda service=service, node=node: self._replica(service, node))
        for node in NODES:
            self.later(30, lambda node=node: self._job(node, 0))
        self._episodes()
        self.later(2, self._tick)
        end_ns = BEGINS_NS + LASTS_S * SECOND
        while self._coming[0][0] <= end_ns:
            self.now_ns, _, what = heapq.heappop(self._coming)
            what()
        self._end()

    def _episodes(self) -> None:
        stranger = Block("http", 30017, node="node-c", reason="EADDRINUSE: nginx, pid 812", for_s=1500, cause="address-in-use", errno=98)
        reserved = Block("grpc", 41501, node="node-a", reason="reserved for the load test, ask dana")
        self.later(5 * 60, lambda: self.do(stranger))
        self.later(9 * 60, lambda: self._rollout("checkout"))
        self.later(12 * 60, lambda: self.do(reserved))
        self.later(17 * 60, self._crash)
        self.later(26 * 60, lambda: self._rollout("ranker"))
        for nth in range(170):
            self.later(31 * 60 + nth * 1.1, lambda: self._job("node-b", 1))
        self.later(38 * 60, lambda: self.do(Unblock("grpc", 41501, node="node-a", reason="load test is over")))

    def _tick(self) -> None:
        self.do(Sweep())
        self.later(0.5, self._tick)

    def _name(self, service: str) -> str:
        return f"{service}-{''.join(self._luck.choices(LETTERS, k=5))}"

    def _begin(self, pool: str, owner: str, node: str, service: str) -> Lease | None:
        try:
            event = self.do(Allocate(pool, owner=owner, node=node, service=service))[-1]
        except CommandRejected:
            return None
        return Lease(event.pool, event.node, event.port, event.owner, event.service, event.token, event.ts)

    def _replica(self, service: str, node: str) -> None:
        """A replica comes, serves, and is replaced."""
        lease = self._begin(SERVICES[service][0], self._name(service), node, service)
        if lease is None:
            self.later(3, lambda: self._replica(service, node))
            return
        self.later(self._luck.expovariate(1 / 1100) + 20, lambda: self._replace(lease))

    def _replace(self, lease: Lease) -> None:
        view = self._ledger.port(lease.pool, lease.port, node=lease.node)
        if view.state is not PortState.ALLOCATED or view.token != lease.token:
            return
        self.later(0.2, lambda: self._replica(lease.service, lease.node))
        self.do(Withdraw(lease))
        self.later(self._luck.uniform(1, 4), lambda: self._go(lease))

    def _go(self, lease: Lease) -> None:
        self.do(Release(lease))
        if lease.pool == "http" and self._luck.random() < 0.6:  # noqa: PLR2004
            self.later(self._luck.uniform(1.2, 6), lambda: self._clear(lease))

    def _clear(self, lease: Lease) -> None:
        view = self._ledger.port(lease.pool, lease.port, node=lease.node)
        if view.state is PortState.QUARANTINED and view.token == lease.token:
            self.do(Clear(lease.pool, lease.port, node=lease.node, reason=f"edge-1 let go at generation {self._ledger.seq}"))

    def _rollout(self, service: str) -> None:
        """Every replica is replaced within a minute."""
        leases = [
            Lease(view.pool, view.node, view.port, view.owner, view.service, view.token, view.since or 0)
            for view in self._ledger.ports(SERVICES[service][0], state=PortState.ALLOCATED)
            if view.service == service
        ]
        for nth, lease in enumerate(leases):
            self.later(nth * 2.1, lambda lease=lease: self._replace(lease))

    def _job(self, node: str, crashes: int) -> None:
        """A batch job: minutes long, or gone after seconds in a crash loop."""
        service = self._luck.choice(("mailer", "reports", "thumbnails"))
        lease = self._begin("batch", self._name("import" if crashes else service), node, "" if crashes else service)
        if lease is not None:
            self.later(self._luck.uniform(0.4, 3) if crashes else self._luck.expovariate(1 / 150) + 5, lambda: self.do(Release(lease)))
        if not crashes:
            self.later(self._luck.expovariate(1 / 16), lambda: self._job(node, 0))

    def _crash(self) -> None:
        """Killed; another opens the log four seconds later. What was to happen in between happens late."""
        self._end()
        self.now_ns += 4 * SECOND
        self._coming = [(max(when, self.now_ns), number, what) for when, number, what in self._coming]
        heapq.heapify(self._coming)
        self._journal = self._open(2)


def write(path: Path) -> None:
    """The story's log."""
    Story(path).run()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
