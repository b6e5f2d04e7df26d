"""The world of one seed: a clock, a disk, controllers that live and die, callers, proxies; and the turns in which all of it goes on.

Rule: whatever happens, happens in `turn`, in an order the seed decides. Checks never raise where they notice something, since that may
be deep inside the library: they call `fail`, and the next turn ends the story.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from unittest import mock

import anyio

import portfsm._cache
import portfsm._log
import portfsm.journals._snapshots
import portfsm.journals.file
import portfsm.manager
from portfsm._engine import Engine
from portfsm.errors import JournalError, PortfsmError
from portfsm.journals import FileJournal
from portfsm.manager import open_manager
from portfsm.testing import ManualClock
from portfsm.testing.simulation import SteppedWorker

from .audit import Audit
from .calls import Call, Judge
from .losses import Losses
from .power import PATH, PowerCut, PowerDisk
from .proxies import Proxies
from .record import Record

CLOSE_S = 30.0
QUIET = 10
"""Turns without a job after which nothing more can happen by itself."""


class Violation(Exception):
    """The library broke a promise: `name` says which, `text` how."""

    def __init__(self, name, text):
        super().__init__(f"{name}: {text}")
        self.name = name


class Controller:
    """One process that opens the log."""

    role = "lead"
    wrote = None
    """Up to where, in a log that has forgotten it."""

    def __init__(self, world, number, specs, history):
        self.world, self.number, self.specs, self.history = world, number, specs, history
        self.worker = SteppedWorker()
        self.engine = self.manager = self.error = self.task = None
        self.leave = asyncio.Event()
        self.pushed = self.dead = self.superseded = self.gone = self.hung = self.provoked = False
        self.durable_at_takeover = 0

    clock = property(lambda self: self.world.clock)
    stuck = property(lambda self: self.hung)
    """Its journal does nothing at the moment."""

    def journal(self):
        plan, disk = self.world.plan, self.world.disk
        return FileJournal(PATH, disk=disk, clock=self.clock, segment_bytes=plan.segment_bytes, reserve_bytes=plan.reserve_bytes)

    @property
    def failed(self):
        return self.engine is not None and self.engine.writer.failure is not None

    @property
    def open(self):
        return self.manager is not None and not self.gone and not self.leave.is_set()

    async def live(self):
        world = self.world
        journal = self.journal()
        world.by_journal[id(journal)] = self
        try:
            async with open_manager(
                journal, pools=self.specs, clock=self.clock, after_reboot=world.plan.after_reboot, holder=f"c{self.number}", close_s=CLOSE_S,
                witnesses=world.proxies.witnesses(self), address_of=str, history=self.history, role=self.role,
            ) as manager:  # fmt: skip
                self.manager = manager
                world.opened(self)
                await self.leave.wait()
        except PortfsmError as error:
            self.error = error
        finally:
            self.gone = True

    async def follow(self, manager):
        """A watcher, on whose word the proxies are configured."""
        try:
            async for event in manager.watch():
                if not self.dead and self.wrote is None:
                    self.world.record.show(event)
        except JournalError:
            pass


class World(Judge, Audit, Losses):
    def __init__(self, plan, chance, *, strict=False):
        self.plan, self.chance = plan, chance
        self.hits, self.routed, self.turns = Counter(), 0, 0
        self.clock, self.disk = ManualClock(), PowerDisk(self.hits)
        self.true_ns = 0
        self.lead, self.zombies, self.opened_count = None, [], 0
        self.by_journal = {}
        self.calls, self.call_count = [], 0
        self.leases = []
        self.missed = {}
        """(controller, token) -> when the looks began that missed the lease, since it was last seen."""
        self.terms, self.opened_at, self.ready_at = {}, 0, 0
        """token -> true time from which its ttl counts, at least and at most, and the ttl."""
        self.claims = {}
        """place -> the controller that refused a claim of it."""
        self.story, self.violation, self.over = [], None, False
        self.record = Record(self)
        self.proxies = Proxies(self, strict=strict)

    # ------------------------------------------------------------------ telling

    def say(self, text):
        self.story.append(text)

    def fail(self, name, text):
        if self.violation is None:
            self.violation = Violation(name, text)
            self.say(f"!! {name}: {text}")

    def check(self):
        if self.violation is not None:
            raise self.violation

    def replaced(self):
        """What else of the library is another's while the story lasts: module, name, what stands there."""
        return ()

    # ------------------------------------------------------------------ turns

    def processes(self):
        return [controller for controller in (*self.zombies, self.lead) if controller is not None]

    async def turn(self, *, speed=None):
        """Perhaps the disk does a job, then the loop goes round once."""
        self.turns += 1
        for controller in self.processes():
            if controller.worker.jobs and not controller.stuck and self.chance.random() < (speed or self.plan.speed):
                await self.work(controller)
        await asyncio.sleep(0)
        self.bury()
        self.check()

    async def work(self, controller):
        """Its journal does the next job."""
        with suppress(PowerCut):
            controller.worker.step()
        if self.disk.is_cut:
            await self.die_of_the_cut()

    async def drain(self):
        """Turns until nothing more can happen unless time goes on."""
        quiet = 0
        for _ in range(4000):
            busy = self.proxies.asking or any(c.worker.jobs for c in self.processes() if not c.stuck)
            quiet = 0 if busy else quiet + 1
            if quiet > (3 * QUIET if self.plan.evidence else QUIET):  # from an answer to the end of a wait it is a longer way
                return self.rest()
            await self.turn(speed=1.0)
        return self.fail("livelock", "there is always something more to do")

    def bury(self):
        """Notice controllers that are gone."""
        if self.lead is not None and self.lead.gone:
            self.ended(self.lead)
            self.lead = None
        self.zombies = [zombie for zombie in self.zombies if not zombie.gone]

    # ------------------------------------------------------------------ controllers

    def build(self, journal, clock, *, close_s):
        """In the place of `Engine`: the same, with our worker, and heard at the moment it decides."""
        controller = self.by_journal[id(journal)]
        engine = controller.engine = Engine(journal, clock, close_s=close_s, worker=controller.worker)
        push = engine.writer.push

        def heard(events):
            self.record.pushed(controller, events)
            push(events)

        engine.writer.push = heard
        return engine

    def start(self, chance):
        """A controller process begins to open the log."""
        self.opened_count += 1
        specs = self.plan.specs(chance, same=chance.random() < 0.6)
        self.lead = Controller(self, self.opened_count, specs, self.history())
        self.lead.provoked = self.disk.provoked
        shape = ", ".join(f"{spec.name} {spec.ranges} hold {spec.hold_s:g} s" for spec in specs)
        self.say(f"controller {self.lead.number} opens the log: {shape}")
        self.lead.task = self.spawn(self.lead, self.lead.live())

    def opened(self, controller):
        """Its manager takes calls from now on."""
        record, engine = self.record, controller.engine
        self.ready_at = self.true_ns
        self.say(f"controller {controller.number} is open at seq {controller.manager.seq}")
        if engine.cache.recovered:
            self.hits["mended: " + ("torn" if "torn" in engine.cache.recovered else "unsealed")] += 1
        self.hits["opened from a snapshot"] += engine.cache._seq > 0
        self.check_restarted()
        record.promise(controller)
        for event in record.events[record.shown.seq : controller.manager.seq]:
            record.show(event)
        controller.watcher = asyncio.ensure_future(controller.follow(controller.manager))
        self.prove(controller)

    def ended(self, controller):
        """A controller has left, by itself or by an error."""
        self.say(f"controller {controller.number} is gone{f': {controller.error}' if controller.error else ''}")
        if controller.error is not None:
            self.hits[f"controller ended by {type(controller.error).__name__}"] += 1
            if not self.excuses(controller):
                self.fail("unprovoked", f"controller {controller.number} ended by {controller.error!r}")
        if controller.error is not None or controller.failed:
            self.record.uncertain |= self.record.ahead_tokens()
        if self.disk.provoked and self.chance.random() < 0.5:
            self.disk.mend()

    def spawn(self, controller, work):
        """A task of a controller's process."""
        return asyncio.ensure_future(work)

    def excuses(self, controller):
        """Whether the journal of a controller may fail."""
        return controller.provoked or controller.superseded or self.disk.provoked

    def decided_at(self, controller):
        """True time of what a controller decides now."""
        return self.true_ns

    def may_refuse(self, controller):
        """Whether a call may be refused though what it asks for is recorded."""
        return False

    def takes_lead(self, controller):
        """A controller has read the log, and decides for the first time."""

    async def die(self, *, power, reboot, seed, down_s=0.0, step_s=0.0):
        """Every process dies; without power, so does what the disk had not synced."""
        self.record.promise(self.lead)
        await self.dispose(self.processes())
        self.lead, self.zombies = None, []
        self.record.uncertain |= self.record.ahead_tokens()
        self.disk = self.disk.without_power(seed) if power else self.disk.after_kill()
        if reboot:
            down_s = max(down_s, 1e-9)  # log time goes on by a nanosecond at least
            self.clock.reboot(down_s=down_s)
            self.true_ns += round(down_s * 1e9)
            self.clock.step_wall(step_s)
        self.record.judge(self.disk.events(), "this crash")
        self.check()

    async def one_controller(self, chance):
        """For the end: whatever is left of the faults and of earlier controllers ends; one opens and has the log for itself."""
        self.disk.mend()
        self.disk.cut_in = -1
        for controller in self.processes():
            if controller.failed or controller.provoked or controller is not self.lead:
                controller.leave.set()
        for _ in range(50):
            await self.drain()
            self.disk.mend()
            if self.lead is not None and self.lead.open and not self.lead.failed:
                return
            if self.lead is None:
                self.start(chance)
            elif self.lead.failed:
                self.lead.leave.set()
        self.fail("stuck", "no controller can open the log, though nothing is wrong with the disk")

    async def dispose(self, controllers):
        for controller in controllers:
            controller.dead = True
            controller.worker.kill()
        doomed = [call.task for call in self.calls if call.controller in controllers]
        for call in [call for call in self.calls if call.controller in controllers]:
            call.dead = True
            self.calls.remove(call)
        doomed += [controller.task for controller in controllers]
        doomed += [controller.watcher for controller in controllers if controller.manager is not None]
        while doomed:
            for task in doomed:
                task.cancel()
            await asyncio.sleep(0)
            doomed = [task for task in doomed if not task.done()]

    async def die_of_the_cut(self):
        power, seed = self.disk.cut_how
        self.hits["died inside a disk call: " + ("power" if power else "killed")] += 1
        self.say(f"  {'the power fails' if power else 'the process is killed'} in the middle of a call of the disk")
        await self.die(power=power, reboot=power, seed=seed, down_s=1.0)

    # ------------------------------------------------------------------ callers

    def call(self, controller, name, *args, then=None, **options):
        """A caller makes a call of the manager, and with its answer what is to be done `then`."""
        self.call_count += 1
        call = Call(self, self.call_count, controller, name, args, options)
        call.then = then
        call.scope = anyio.CancelScope() if self.call_count % 2 else None
        self.calls.append(call)
        self.say(f"  call {call.number}: {call.sentence}")
        call.task = self.spawn(controller, call.perform())
        call.task.add_done_callback(call.broke)
        return call

    # ------------------------------------------------------------------ time

    def advance_ns(self, ns):
        self.true_ns += ns
        self.clock.advance(ns / 1e9)

    @staticmethod
    def loop_advance(seconds):
        asyncio.get_running_loop().advance(seconds)


class Silent:
    def warning(self, *_, **__):
        pass

    error = info = warning


def _replaced(world):
    return [
        (portfsm.manager, "Engine", world.build),
        (portfsm.manager.os, "urandom", world.chance.randbytes),
        (portfsm._log, "_log", Silent()),
        (portfsm.journals.file, "_log", Silent()),
        (portfsm.journals._snapshots, "_log", Silent()),
        (portfsm._cache, "SNAPSHOT_EVERY", world.plan.snapshot_every),
        (portfsm._cache, "SNAPSHOT_AT_CLOSE", world.plan.snapshot_every),
    ]


@contextmanager
def sealed(world):
    """The library inside the world: its engines built here, no randomness of the system, nothing written to the terminal."""
    with ExitStack() as stack:
        for place, name, new in [*_replaced(world), *world.replaced()]:
            stack.enter_context(mock.patch.object(place, name, new))
        yield
