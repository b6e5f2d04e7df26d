"""A controller of replicas that live for half a second, behind a real HAProxy that it reloads.

Both sides run this same code. One opens its log with a witness: HAProxy is told at once, by its runtime API, and a port is free when
it has let go. The other has no witness and no hold: HAProxy hears with the next reload, and a port is free when it is released.

Rule: while HAProxy is being reloaded nothing is withdrawn (`_turn`). Else a file from before the withdrawal could come into
force after HAProxy was asked.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs
import msgspec
import structlog

import portfsm
from portfsm import PoolSpec
from portfsm.demo.haproxy.plan import CRASH_EVERY, HARD_STOP_S, HOLD_S, LIFE_S, OWN, POOL, POOL_SIZE, RELOAD_EVERY_S, SERVICES, Plan
from portfsm.demo.line import open_line
from portfsm.demo.processes import run_until_dismissed, say
from portfsm.errors import ReloadFailed
from portfsm.haproxy import RELAY_RULE, reload, render, write
from portfsm.witnesses import HAProxyWitness

if TYPE_CHECKING:
    from portfsm import Lease, PortManager
    from portfsm.demo.line import Line

REPORT_S = 0.2
START_S = 15.0
SPARE = 2
"""A replica waits with its end until its service has so many that HAProxy knows, itself among them."""


@attrs.define(eq=False)
class Controller:
    """As many workers as the pool has ports, each starting one replica after the other."""

    plan: Plan
    manager: PortManager
    witness: HAProxyWitness
    node: Line
    replicas: dict[str, Lease] = attrs.field(factory=dict)
    """Who serves now, by owner."""
    known: frozenset[str] = frozenset()
    """Whom HAProxy was told of."""
    started: int = 0
    reloads: int = 0
    cleared_ms: list[float] = attrs.field(factory=list)
    """From each withdrawal until every process of HAProxy had let go."""
    _turn: anyio.Lock = attrs.field(factory=anyio.Lock)
    _changed: anyio.Event = attrs.field(factory=anyio.Event)

    async def run(self) -> None:
        """Fill up and churn."""
        chance = random.Random(POOL_SIZE)  # noqa: S311  (the same on both sides)
        async with anyio.create_task_group() as group:
            group.start_soon(self.report_for_ever)
            group.start_soon(self.reload_for_ever)
            for number in range(POOL_SIZE):
                group.start_soon(self.work_for_ever, number, random.Random(chance.random()))  # noqa: S311
            while len(self.known) < POOL_SIZE - 1:  # noqa: ASYNC110
                await anyio.sleep(0.02)
            say({"said": "serving"})

    async def work_for_ever(self, number: int, chance: random.Random) -> None:
        """One replica after the other, each of another service than the one before."""
        life = number
        while True:
            owner, lease = await self.start(self.wanted(life), f"{number}.{life}")
            await anyio.sleep(chance.uniform(*LIFE_S))
            while self.sizes(known=True)[lease.service] < SPARE:  # noqa: ASYNC110  (clients shall not pay for a rolling restart)
                await anyio.sleep(0.02)
            await (self.crash if life % CRASH_EVERY == 0 else self.drain)(owner, lease)
            life += 1

    async def start(self, service: str, name: str) -> tuple[str, Lease]:
        """Lease first; then a process on the port; then HAProxy hears of it."""
        owner = f"{service}-{name}"
        while True:
            lease = await self.manager.allocate(POOL, owner=owner, service=service, wait_s=None)
            answer = await self.node.ask({"do": "start", "owner": owner, "service": service, "port": lease.port})
            if "error" not in answer:
                break
            await self.manager.release(lease, block=answer["error"], for_s=5.0)
        self.started += 1
        self.replicas[owner] = lease
        self._changed.set()
        return owner, lease

    async def drain(self, owner: str, lease: Lease) -> None:
        """Withdraw, write the file without it, and with evidence wait for it; only then stop the replica and release."""
        began = time.perf_counter()
        del self.replicas[owner]
        async with self._turn:
            await self.manager.withdraw(lease)
            await self.write()
            self._changed.set()
        if self.plan.evidence:
            await self.manager.wait_clear(lease)
            self.cleared_ms.append((time.perf_counter() - began) * 1000)
        await self.node.ask({"do": "stop", "owner": owner})
        await self.manager.release(lease)

    async def crash(self, owner: str, lease: Lease) -> None:
        """It is gone before anybody was told."""
        del self.replicas[owner]
        await self.node.ask({"do": "stop", "owner": owner})
        async with self._turn:
            await self.manager.release(lease)
            await self.write()
            self._changed.set()

    async def reload_for_ever(self) -> None:
        """Give HAProxy what changed. A reload that fails is tried again: what HAProxy does not know is not believed of it."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            try:
                async with self._turn:
                    known = frozenset(self.replicas)
                    await reload(self.plan.socket, generation=await self.write())
                    self.known, self.reloads = known, self.reloads + 1
            except ReloadFailed as error:
                structlog.get_logger().warning("reload_failed", error=str(error))
                self._changed.set()
            await anyio.sleep(RELOAD_EVERY_S)

    async def write(self) -> int:
        """Put the file for HAProxy in place; its generation."""
        generation = self.manager.seq  # before the replicas
        text = render(self.replicas.values(), generation=generation, services=SERVICES, relay=f"127.0.0.1:{self.plan.front}")
        await anyio.to_thread.run_sync(write, self.plan.config / "ports.cfg", text)
        return generation

    def sizes(self, *, known: bool) -> Counter[str]:
        """How many replicas each service has; with `known`, those that HAProxy was told of."""
        return Counter(lease.service for owner, lease in self.replicas.items() if not known or owner in self.known)

    def wanted(self, life: int) -> str:
        """The service whose turn it is, unless another has fewer than it needs."""
        sizes = self.sizes(known=False)
        needy = [service for service in SERVICES if sizes[service] < SPARE]
        return needy[life % len(needy)] if needy else SERVICES[life % len(SERVICES)]

    async def report_for_ever(self) -> None:
        """Say now and then how things stand."""
        while True:
            self.report()
            await anyio.sleep(REPORT_S)

    def report(self) -> None:
        """A line for whoever watches."""
        counts = self.manager.statistics(POOL)
        say({
            "said": "counts", "seq": self.manager.seq, "started": self.started, "reloads": self.reloads,
            "leased": counts.allocated, "quarantined": counts.quarantined, "free": POOL_SIZE - counts.allocated - counts.quarantined,
            "cleared_ms": statistics.median(self.cleared_ms) if self.cleared_ms else 0.0,
        })  # fmt: skip


async def run_controller(plan: Plan) -> None:
    """Join the witness, write HAProxy's first files, let the supervisor start it, and churn until dismissed."""
    witness = HAProxyWitness(plan.socket, proxy="haproxy", ports_file=plan.config / "ports.cfg")
    hold_s, witnesses = (HOLD_S, [witness]) if plan.evidence else (0.0, [])
    pools = [PoolSpec(POOL, ports=plan.ports, hold_s=hold_s)]
    async with portfsm.open_manager(plan.log, pools=pools, witnesses=witnesses) as manager, open_line(plan.node) as node:
        controller = Controller(plan, manager, witness, node)

        async def work() -> None:
            plan.config.mkdir(exist_ok=True)
            (plan.config / "own.cfg").write_text(OWN.format(front=plan.front, relay=RELAY_RULE, hard_stop=HARD_STOP_S))
            await controller.write()
            say({"said": "configured"})
            with anyio.fail_after(START_S):
                while not (await witness.preflight()).ready:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
            await controller.run()

        await run_until_dismissed(work, leash=plan.leash)
        controller.report()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    anyio.run(run_controller, msgspec.json.decode(sys.argv[1], type=Plan))
