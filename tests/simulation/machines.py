"""Several machines: each has its own clocks, its own way to the server, and a controller that leads or waits for the lead.

Rule: the library asks for the monotonic time, and for a sleep, in three modules that take no clock. `HERE` tells whose code runs, and with it
whose time is meant.
"""

from __future__ import annotations

from contextvars import ContextVar

from portfsm.journals._etcd_url import Place as EtcdPlace
from portfsm.journals._pg_place import Place
from portfsm.journals.etcd import EtcdJournal
from portfsm.journals.postgres import PostgresJournal
from portfsm.testing import ManualClock
from portfsm.testing.simulation import SteppedWorker

from .link import Link
from .world import Controller

HERE = ContextVar("HERE")
SECOND = 1_000_000_000
ETCD = EtcdPlace(("etcd:2379",), "ports")


class MachineClock(ManualClock):
    """Its boots are no other machine's."""

    def __init__(self, name, *, start_ns):
        super().__init__(start_ns=start_ns)
        self.name = name

    def boot_id(self):
        return f"{self.name} {super().boot_id()}"


class Machine:
    def __init__(self, name, server, *, start_ns):
        self.name, self.clock, self.link = name, MachineClock(name, start_ns=start_ns), Link(server)
        self.controller = None
        self.monotonic_ns = 0
        self.paused = self.suspended = False
        """Nothing of it runs; and if it is suspended, its monotonic clock stands still as well."""
        self.held = []
        """What its writer's thread has told a loop that stands still."""
        self.stops_in_its_next_job = False
        """It will stand still when the server has answered, and before anybody hears of that."""
        self.missed_ns = 0
        self.disturbed_ns = 0
        """When it last could not do what it wanted to, in true time."""

    def advance(self, ns):
        if self.paused:  # nobody looks at its clocks before it goes on
            self.missed_ns += ns
            return
        self.monotonic_ns += ns
        self.clock.advance(ns / 1e9)

    def pause(self, *, suspended):
        self.paused, self.suspended = True, suspended

    def resume(self):
        ns, self.missed_ns, self.paused = self.missed_ns, 0, False
        self.monotonic_ns += 0 if self.suspended else ns
        self.clock.advance(ns / 1e9)
        held, self.held = self.held, []
        for tell in held:
            tell()


class TimedWorker(SteppedWorker):
    """Knows since when its next job waits."""

    def __init__(self, world):
        super().__init__()
        self.world, self.since_ns = world, 0

    def run(self, job):
        if not self.jobs:
            self.since_ns = self.world.true_ns
        super().run(job)

    def step(self):
        self.since_ns = self.world.true_ns
        return super().step()


class SharedController(Controller):
    """A process on one of the machines."""

    role = "lead-or-wait"

    def __init__(self, world, number, specs, history, machine):
        super().__init__(world, number, specs, history)
        self.machine, self.worker = machine, TimedWorker(world)
        self.kept = None
        self.over_ns = 0
        """When the lease of its last sign of life that was answered is over, by its own clock and in true time."""
        self.waited_s = 0.0
        """How long its present job had waited for an answer before it was begun."""
        self.decided = {}
        """seq -> what it decided."""

    clock = property(lambda self: self.machine.clock)

    @property
    def stuck(self):
        waited_ns = self.world.true_ns - self.worker.since_ns
        return self.machine.paused or (self.machine.link.cut and waited_ns < self.world.plan.timeout_s * SECOND)

    @property
    def hindered(self):
        """What it asks the server may be lost."""
        return bool(self.machine.link.cut or self.machine.link.loses)

    @property
    def epoch(self):
        """0 before it has taken the lead."""
        kept = self.kept
        if isinstance(kept, EtcdJournal):
            return kept._epoch if kept._lead is not None or self.pushed else 0
        return kept._row.epoch if kept is not None else 0

    @property
    def deposed(self):
        """Another has taken the lead, whether it knows or not."""
        return self.wrote is not None or 0 < self.epoch != self.world.server.epoch

    def journal(self):
        plan = self.world.plan
        if plan.engine == "etcd":
            self.kept = EtcdJournal(ETCD, clock=self.clock, lease_s=plan.lease_s, segment_bytes=plan.segment_bytes)
        else:
            self.kept = PostgresJournal(Place("the shared log", "ports", {}), lease_s=plan.lease_s, timeout_s=plan.timeout_s)
        return self.kept


class Times:
    """In the place of the module `time`: the time of whoever asks."""

    @staticmethod
    def monotonic():
        here = HERE.get()
        return here.machine.monotonic_ns / 1e9 + here.waited_s

    @staticmethod
    def sleep(seconds):
        HERE.get().world.advance_ns(round(seconds * 1e9))


class Sleeps:
    """In the place of the module `anyio` where one sleeps between signs of life."""

    @staticmethod
    async def sleep(seconds):
        clock = HERE.get().clock
        await clock.sleep_until(clock.boot_ns() + round(seconds * 1e9))
