"""The world of a log that several controllers share: one leads, others wait, and whoever lost the lead may not know it yet.

Rule: `lead` is who decided last on what the log holds; everyone whose epoch is older is superseded. What the log holds is the server's to say.
"""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial

import attrs

import portfsm._cache
import portfsm._leading
import portfsm._writer
import portfsm.journals.etcd
import portfsm.journals.postgres
from portfsm.errors import JournalError, JournalUnreadable, OutcomeUnknown
from portfsm.journals import _etcd_client, _etcd_lead

from .cluster import Cluster, send
from .machines import HERE, SECOND, Machine, SharedController, Sleeps, Times
from .server import Server
from .session import Session
from .world import Silent, World

GRANTS = ("allocate", "allocate_group", "adopt", "renew")
"""Calls whose answer is a lease."""


class SharedWorld(World):
    """Has no disk: what stands for it is the server."""

    def __init__(self, plan, chance, *, strict=False):
        super().__init__(plan, chance, strict=strict)
        self.server = self.disk = Cluster(self) if plan.engine == "etcd" else Server(self)
        self.machines = [Machine(f"m{number}", self.server, start_ns=start) for number, start in enumerate(plan.starts_ns)]
        self.alive = []
        self.leapt_ns = 0
        """How much time has passed in which nobody had a turn."""

    def replaced(self):
        postgres, etcd = portfsm.journals.postgres, portfsm.journals.etcd
        timed = (portfsm._leading, portfsm._writer, portfsm._cache, postgres, _etcd_client, _etcd_lead)
        times = [(module, "time", Times) for module in timed]
        return [
            *times, (portfsm._leading, "anyio", Sleeps), (postgres, "_log", Silent()), (postgres, "Session", self._session),
            (etcd, "_log", Silent()), (_etcd_client.Client, "_send", send), (_etcd_lead.socket, "gethostname", lambda: "host"),
            (_etcd_lead.os, "getpid", lambda: 1),
        ]  # fmt: skip

    @staticmethod
    def _session(place, *, timeout_s, writing):
        return Session(HERE.get(), place)

    # ------------------------------------------------------------------ turns

    def processes(self):
        return self.alive

    async def work(self, controller):
        asked, machine = HERE.set(controller), controller.machine
        if machine.stops_in_its_next_job:
            machine.stops_in_its_next_job = False
            self.say(f"{machine.name} stands still in the middle of its next job")
            self.hits["stopped before its answer was heard"] += 1
            machine.pause(suspended=self.chance.random() < 0.4)
        try:
            controller.worker.step()
        finally:
            controller.waited_s = 0.0
            HERE.reset(asked)

    def bury(self):
        for controller in [controller for controller in self.alive if controller.gone]:
            self.ended(controller)
            self._forget(controller)

    def _forget(self, controller):
        self.alive.remove(controller)
        controller.machine.controller = None
        self.lead = None if controller is self.lead else self.lead
        self.zombies = [zombie for zombie in self.zombies if zombie is not controller]

    def advance_ns(self, ns):
        self.true_ns += ns
        self.leapt_ns += ns
        leap = self.leapt_ns > self.plan.lease_s * SECOND / (7 if self.plan.engine == "etcd" else 4)
        for machine in self.machines:
            waits = machine.controller is not None and machine.controller.worker.jobs
            if machine.paused or machine.link.cut or waits or self.server.provoked or leap:
                machine.disturbed_ns = self.true_ns
            machine.advance(ns)

    async def turn(self, *, speed=None):
        self.leapt_ns = 0
        await super().turn(speed=speed)

    async def pass_time(self, ns):
        """Time goes on in pieces, in which everybody does what is due. Smaller ones with etcd, whose leases may be little more than half as long."""
        pieces = 8 if self.plan.engine == "etcd" else 5
        while ns > 0:
            piece = min(ns, round(self.plan.lease_s * SECOND / pieces))
            ns -= piece
            self.advance_ns(piece)
            for _ in range(4):
                await self.turn()
            self.check_succession()

    # ------------------------------------------------------------------ controllers

    def start(self, chance, machine=None):
        machine = machine or next(machine for machine in self.machines if machine.controller is None)
        self.opened_count += 1
        specs = self.plan.specs(chance, same=chance.random() < 0.6)
        controller = machine.controller = SharedController(self, self.opened_count, specs, self.history(), machine)
        self.alive.append(controller)
        controller.provoked = controller.hindered or self.server.provoked
        self.say(f"controller {controller.number} starts on {machine.name}")
        controller.task = self.spawn(controller, controller.live())

    def spawn(self, controller, work):
        here = contextvars.copy_context()
        here.run(HERE.set, controller)
        return asyncio.get_running_loop().create_task(work, context=here)

    def opened(self, controller):
        super().opened(controller)
        self.ask_everybody(controller)

    def ask_everybody(self, controller):
        """Proxies that joined while it waited, and of which its configuration does not know."""
        asked = controller.manager._warden._posts
        for proxy in self.proxies.all if self.plan.evidence else ():
            if proxy.name not in asked:
                self.call(controller, "join", self.proxies.witness(controller, proxy))

    def build(self, journal, clock, *, close_s):
        engine = super().build(journal, clock, close_s=close_s)
        decided, push = self.by_journal[id(journal)].decided, engine.writer.push

        def noted(events):
            decided.update((event.seq, event) for event in events)
            push(events)

        engine.writer.push = noted
        engine.writer._native = attrs.evolve(
            engine.writer._native, post=self._poster(self.by_journal[id(journal)], engine.writer._native.post)
        )
        return engine

    def _poster(self, controller, post):
        """What a thread tells a loop that stands still is heard when that goes on."""

        def told(*args):
            if controller.machine.paused:
                controller.machine.held.append(partial(contextvars.copy_context().run, self._if_alive, controller, post, *args))
            else:
                post(*args)

        return told

    @staticmethod
    def _if_alive(controller, post, *args):
        if not controller.dead:
            post(*args)

    def decided_at(self, controller):
        return self.true_ns - controller.machine.missed_ns  # what is still on its way when a process stops, it did before

    def may_refuse(self, controller):
        return True  # where nobody said in time who leads, and then it must

    def takes_lead(self, controller):
        self.hits["took the lead"] += 1
        self.say(f"controller {controller.number} leads, with epoch {controller.epoch}")
        self.lead = controller
        self.zombies = [other for other in self.alive if other.wrote is not None or 0 < other.epoch < controller.epoch]
        self.record.uncertain |= self.record.ahead_tokens()

    def excuses(self, controller):
        return controller.deposed or not self.is_well(controller) or super().excuses(controller)

    def is_well(self, controller):
        """Nothing has hindered it for a while."""
        return self.true_ns - controller.machine.disturbed_ns > 2 * self.plan.lease_s * SECOND

    def deposed(self, epoch, *, given_up):
        """Whoever had this epoch has the lead no more."""
        self.hits["lead was given up" if given_up else "lead was lost"] += 1
        for controller in self.alive:
            well = controller.open and self.is_well(controller) and not (controller.failed or controller.superseded)
            if not given_up and controller.epoch == epoch and well:
                self.fail("deposed", f"controller {controller.number} lost the lead, and nothing was wrong with it")

    def destroy(self, controller):
        """Whoever calls this awaits `dispose` next."""
        self.record.promise(controller)
        if controller.epoch:
            self.record.uncertain |= self.record.ahead_tokens()

    async def kill_process(self, controller):
        self.destroy(controller)
        await self.dispose([controller])
        self._forget(controller)
        self.record.judge(self.server.events(), "this crash")
        self.check()

    async def one_controller(self, chance):
        self.server.mend()
        self.server.step(self.server.furthest_ns - self.server.offset_ns)  # else a lease given before it was set back lasts as much longer
        for machine in self.machines:
            self.whole(machine)
        for controller in list(self.alive):
            if controller.manager is None:
                await self.kill_process(controller)
            elif controller is not self.lead or controller.failed or controller.deposed:
                controller.leave.set()
        for _ in range(50):
            await self.pass_time(round(self.plan.lease_s * SECOND / 2))
            await self.drain()
            if self.lead is not None and self.lead.open and not self.lead.failed and self.alive == [self.lead]:
                self.server.patient = True
                return self.ask_everybody(self.lead)
            if not self.alive:
                self.start(chance)
            for controller in self.alive:
                if controller.failed:
                    controller.leave.set()
        return self.fail("stuck", "no controller can take the lead, though nothing is wrong any more")

    def whole(self, machine):
        """Nothing is wrong with a machine and its way to the server from now on."""
        if machine.paused:
            machine.resume()
        machine.stops_in_its_next_job = False
        machine.link.cut, machine.link.loses, machine.link.slow_ns = False, [], 0
        machine.disturbed_ns = self.true_ns

    async def back_up(self, chance):
        self.backup = self.server.copied()

    async def go_back(self, chance):
        """Whoever has the log open ends, as one must before a server is restored; but for a leader that nobody reached."""
        older = self.older_one(chance, type(self.server)(self))
        lives = self.lead is not None and self.lead.open and chance.random() < 0.5 and older.events() != self.server.events()
        stale = self.lead if lives else None
        for controller in [controller for controller in self.alive if controller is not stale]:
            await self.kill_process(controller)
        if stale is not None:
            self.hits["leads what is gone"] += 1
            self.record.uncertain |= self.record.ahead_tokens()
            stale.superseded, stale.wrote = True, self.server.tops.get(stale.epoch, 0)
            self._disturb(stale.machine)
        self.lead, self.zombies = None, [stale] if stale is not None else []
        self.server.go_back_to(older)
        self.server.life += chance.random() < 0.5  # a pooler keeps connections
        self.server.late.clear()  # and not what was on its way

    # ------------------------------------------------------------------ judging

    waits_since = (0, 0)
    """Who waits though nobody leads, and since when."""

    def check_succession(self):
        """Who waits for the lead has it within a lease, once it is free and nothing is wrong with the way to it."""
        free = self.server.free and not self.server.provoked
        able = [c for c in self.alive if c.manager is None and not (c.epoch or c.gone or c.stuck or c.hindered)]
        number, since_ns = self.waits_since
        if not free or not able or able[0].number != number:
            self.waits_since = able[0].number if free and able else 0, self.true_ns
        elif self.true_ns - since_ns > self.plan.lease_s * SECOND:
            self.fail("nobody leads", f"controller {number} waits for a lead that has been free for a lease")

    def watch_zombie(self, zombie):
        wrote = self.server.tops.get(zombie.epoch, 0) if zombie.wrote is None else zombie.wrote
        if zombie.manager is not None and (zombie.epoch or zombie.wrote) and zombie.manager.durable_seq > wrote:
            self.fail("two writers", f"controller {zombie.number} takes for durable what it wrote after another took over")

    def _check_zombie(self, call):
        self.watch_zombie(call.controller)

    def answered(self, call):
        controller = call.controller
        if call.answered and call.name in GRANTS and controller.deposed and self.decided_at(controller) > controller.over_ns:
            self.fail("stale", f"controller {controller.number} answered {call.sentence} out of its memory, long after its lease was over")
        leases = call.result if isinstance(call.result, tuple) else (call.result,)
        if call.refused and call.answered and any(lease.token in call.refused for lease in leases):
            self.fail("taken back", f"what call {call.number} {call.sentence} was given is taken back, and it is not told")
        if isinstance(call.error, JournalError) and not isinstance(call.error, OutcomeUnknown | JournalUnreadable):
            self.check_nothing_written(call)
        super().answered(call)

    def check_nothing_written(self, call):
        """Who is told that nothing was written, finds nothing of it in the log."""
        for event in self.server.events()[call.before_seq :]:
            if event.seq == call.token and event == call.controller.decided.get(event.seq):
                self.fail("written", f"call {call.number} {call.sentence} was told {call.error}, and {event.seq} is in the log")

    def begun(self, call):
        call.before_seq = len(self.server.events())
        super().begun(call)

    def probe(self, seed):
        super().probe(seed)
        epochs = [event.data["epoch"] for event in self.server.events() if event.kind == "opened"]
        if epochs != sorted(set(epochs)):
            self.fail("epochs", f"the log has openings with epochs {epochs}")
