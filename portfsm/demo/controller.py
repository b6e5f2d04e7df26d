"""A controller that can be killed at any moment: the example to read first.

It keeps twenty replicas of five services running. Demand wanders from service to service, and the replicas
follow: one is stopped here, one of another service started there. Every port comes from a `portfsm` pool, and three rules are all it takes:

1. **Lease first.** A replica is started on a port only after `allocate` has returned, so there is no replica the log does not
   know.
2. **Release last.** First the proxies are told, then the replica is stopped, then the port is released; from there on the pool holds it
   back until no proxy can still route to it.
3. **After a crash, compare.** Open the log, ask the node who lives, release the leases of those who do not. No list of our own is
   kept anywhere: the log is the list.

Nothing here handles a crash. It would not get the chance.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import attrs
import msgspec
import structlog

import portfsm
from portfsm import PoolSpec, PortState
from portfsm.demo.line import open_line
from portfsm.demo.plan import POOL, SERVICES, Plan
from portfsm.demo.processes import run_until_dismissed, say

if TYPE_CHECKING:
    from portfsm import Lease, PortManager
    from portfsm.demo.line import Line

WAVE = 5
"""After so many moves demand goes on to the next service."""
REPORT_S = 0.2


@attrs.define
class Controller:
    """Keeps `plan.replicas` replicas running and always some of them on the move."""

    plan: Plan
    manager: PortManager
    node: Line
    proxy: Line
    acks: Acks
    replicas: dict[str, Lease] = attrs.field(factory=dict)
    """Who serves now, by owner, oldest first."""
    started: int = 0
    begun: int = 0
    moved: int = 0

    async def run(self) -> None:
        """Fill up, then keep everything moving."""
        async with anyio.create_task_group() as group:
            group.start_soon(report_for_ever, self)
            await self.fill()
            say({"said": "serving"})
            for _ in range(self.plan.movers):
                group.start_soon(self.move_for_ever)

    async def recover(self) -> tuple[int, int]:
        """Make log and world agree; return how many replicas were found alive and how many leases had lost theirs."""
        alive = {replica["owner"] for replica in (await self.node.ask({"do": "list"}))["replicas"]}
        held = [view.owner for view in self.manager.ports(POOL, state=PortState.ALLOCATED)]
        leases = sorted((lease for owner in held for lease in self.manager.find(owner)), key=lambda lease: lease.token)
        self.replicas = {lease.owner: lease for lease in leases if lease.owner in alive}
        await self.publish()
        lost = [lease for lease in leases if lease.owner not in alive]
        for lease in lost:
            await self.release(lease)
        return len(self.replicas), len(lost)

    async def fill(self) -> None:
        """Start what is missing, each time of the service that has the fewest."""
        while len(self.replicas) < self.plan.replicas:
            sizes = self.sizes()
            await self.start(min(SERVICES, key=lambda service: sizes[service]))

    async def move_for_ever(self) -> None:
        """Stop a replica of the service that has the most, and start one of the service that is in demand."""
        while True:
            wanted = SERVICES[self.begun // WAVE % len(SERVICES)]
            self.begun += 1
            await self.stop(self.spare(besides=wanted))
            await self.start(wanted)
            self.moved += 1
            await anyio.sleep(self.plan.pause_s)

    async def start(self, service: str) -> None:
        """Lease a port, start a replica on it, tell the proxies."""
        self.started += 1
        owner = f"{service}-{self.manager.epoch}.{self.started}"  # never used before: each opening has its own epoch
        while True:
            lease = await self.manager.allocate(POOL, owner=owner, service=service, wait_s=None)
            self.acks.note("allocated", lease)
            answer = await self.node.ask({"do": "start", "owner": owner, "service": service, "port": lease.port})
            if "error" not in answer:
                break
            await self.manager.release(lease, block=answer["error"])  # somebody else sits there: not our port any more
        self.replicas[owner] = lease
        await self.publish()

    async def stop(self, owner: str) -> None:
        """Tell the proxies, stop the replica, release its port. In this order."""
        lease = self.replicas.pop(owner)
        await self.publish()
        await self.node.ask({"do": "stop", "owner": owner})
        await self.release(lease)

    async def release(self, lease: Lease) -> None:
        """Give the port back to the pool, which holds it for `hold_s` from now."""
        self.acks.note("releasing", lease)
        await self.manager.release(lease)
        self.acks.note("released", lease)

    async def publish(self) -> None:
        """Send the proxies the present routing table, stamped with a log position that no crash can take back."""
        table: dict[str, list[int]] = {service: [] for service in SERVICES}
        for lease in self.replicas.values():
            table[lease.service].append(lease.port)
        await self.proxy.ask({"generation": self.manager.seq, "table": table})

    def spare(self, *, besides: str) -> str:
        """The oldest replica of the service that has the most, other than `besides`."""
        sizes = self.sizes()
        service = max((service for service in SERVICES if service != besides), key=lambda service: sizes[service])
        return next(owner for owner, lease in self.replicas.items() if lease.service == service)

    def sizes(self) -> Counter[str]:
        """How many replicas each service has."""
        return Counter(lease.service for lease in self.replicas.values())


class Acks:
    """What the pool has promised, noted outside the log as soon as it was: the demo holds the log to it afterwards."""

    def __init__(self, path: os.PathLike[str]) -> None:
        # One write() a note: what was written before a kill -9 is in the file, whole.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, lease: Lease) -> None:
        """Note it with the time of a stopwatch that the log does not know."""
        fact = {"what": what, "port": lease.port, "owner": lease.owner, "service": lease.service, "token": lease.token}
        os.write(self._file, msgspec.json.encode({**fact, "stopwatch_ns": time.monotonic_ns()}) + b"\n")


async def run_controller(plan: Plan) -> None:
    """Open the log, take over what is there, and churn until dismissed."""
    began = time.monotonic()
    async with portfsm.open_manager(plan.log, pools=[PoolSpec(POOL, ports=plan.ports, hold_s=plan.hold_s)]) as manager:
        opened = {"said": "opened", "seq": manager.seq, "opening_s": time.monotonic() - began}
        async with open_line(plan.node) as node, open_line(plan.proxy) as proxy:
            controller = Controller(plan, manager, node, proxy, Acks(plan.acks))
            kept, lost = await controller.recover()
            say({**opened, "kept": kept, "lost": lost})
            await run_until_dismissed(controller.run, leash=plan.leash)
            say({"said": "closing", "seq": manager.seq, "digest": manager.digest()})


async def report_for_ever(controller: Controller) -> None:
    """Say now and then how things stand, for whoever watches."""
    while True:
        counts = attrs.asdict(controller.manager.statistics(POOL))
        say({"said": "counts", "seq": controller.manager.seq, "replicas": len(controller.replicas), "moved": controller.moved, **counts})
        await anyio.sleep(REPORT_S)


if __name__ == "__main__":
    # Every event the manager records is logged, too; stdout belongs to the supervisor.
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    anyio.run(run_controller, msgspec.json.decode(sys.argv[1], type=Plan))
