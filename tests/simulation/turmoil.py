"""What can happen to a shared log: machines that are cut off, stand still or die, answers that are lost, a server that fails over.

Rule: as in `steps`. A fault is one step, and what ends it another.
"""

from __future__ import annotations

import random
from contextlib import suppress

import psycopg

from .plan import FLEET, LOSSES, OBSERVER, OPERATOR, WEIGHTS, Plan, Step
from .steps import MAX_CALLS, Steps

SECOND = 1_000_000_000
WORDS = ("append", "sign of life", "take-over", "giving up")
"""What may be lost on its way."""
GONE = ("kill", "power_cut", "die_inside", "hang", "fail_write", "fail_sync", "fail_any", "fill", "make_room", "zombie", "takeover")
"""What happens to disks alone, or otherwise here."""
TURMOIL = {
    "partition": 5,
    "heal": 7,
    "pause": 3,
    "resume": 5,
    "stale": 4,
    "lose": 7,
    "deliver": 4,
    "slow": 2,
    "refuse": 2,
    "fail_over": 2,
    "server_full": 1,
    "server_mends": 6,
    "step_server": 2,
    "crash": 4,
}


class SharedPlan(Plan):
    """The lot of one seed where the log is shared."""

    def __init__(self, seed):
        super().__init__(seed)
        chance = random.Random(f"shared {seed}")
        self.after_reboot = "restart"
        self.engine = chance.choice(("postgres", "etcd"))
        self.lease_s = chance.choice((2.0, 3.4, 6.0, 10.0))
        self.timeout_s = chance.choice((0.3, 1.0, 1.5)) * self.lease_s
        self.storm = chance.choice((0.2, 0.5, 1.0))
        """How often something goes wrong, against what callers do."""
        self.speed = chance.choice((0.5, 0.9, 1.0))
        base = 1_700_000_000 * SECOND
        self.starts_ns = [base + chance.choice((0, 0, -3600, 5, 86_400)) * SECOND for _ in range(chance.choice((2, 2, 3)))]

    def steps(self, count):
        chance = random.Random(f"steps {self.seed}")
        weights = {kind: weight for kind, weight in WEIGHTS.items() if kind not in GONE}
        weights |= {kind: weight * self.storm for kind, weight in TURMOIL.items()}
        for more, wanted in ((FLEET, self.evidence), (OBSERVER, self.watched), (OPERATOR, self.policed), (LOSSES, self.loses)):
            weights |= more if wanted else {}
        kinds = chance.choices(list(weights), list(weights.values()), k=count)
        return [Step(kind, chance.getrandbits(32)) for kind in kinds]


class Turmoil(Steps):
    """The part of the world that acts."""

    async def ready(self, chance):
        for machine in self.machines:
            if machine.controller is None and not machine.paused:
                self.start(chance, machine)
        for controller in self.alive:
            if controller.failed and not controller.leave.is_set():
                self.say(f"controller {controller.number} stops, since {type(controller.engine.writer.failure).__name__}")
                controller.leave.set()
        able = [controller for controller in self.alive if controller.open and not controller.machine.paused]
        if not able and chance.random() < 0.5:
            await self.pass_time(round(self.plan.lease_s * SECOND / 4))
        if not able or len(self.calls) >= MAX_CALLS:
            return None
        return self.lead if self.lead in able and chance.random() < 0.7 else chance.choice(able)

    # ------------------------------------------------------------------ time

    async def advance(self, chance):
        lead = self.lead
        dues = [port.until for port in self.record.ahead.ports.values() if port.until]
        ns = chance.choice((SECOND // 1000, SECOND // 3, SECOND, 7 * SECOND, 40 * SECOND))
        if dues and lead is not None and lead.open and chance.random() < 0.5:
            ns = min(max(0, chance.choice(dues) - lead.engine.now() + chance.choice((-1, 0, 1))), 100 * SECOND)
        self.say(f"{ns / 1e9:.9g} s pass")
        await self.pass_time(ns)

    async def step_wall(self, chance):
        machine, seconds = chance.choice(self.machines), chance.choice((-3600.0, -2.0, 2.0, 3600.0, 1e7))
        self.say(f"the wall clock of {machine.name} is set by {seconds:g} s")
        self.hits["wall clock step"] += 1
        machine.clock.step_wall(seconds)

    async def step_server(self, chance):
        seconds = chance.choice((-3600.0, -1.0, 0.5, 1.0, 3600.0)) * self.plan.lease_s
        self.say(f"the server's clock is set by {seconds:g} s")
        self.hits["server's clock step"] += 1
        self.server.step(round(seconds * SECOND))
        self._disturb(*self.machines)

    # ------------------------------------------------------------------ machines

    def _some_machine(self, chance):
        lead = self.lead.machine if self.lead is not None else None
        return lead if lead is not None and chance.random() < 0.6 else chance.choice(self.machines)

    def _disturb(self, *machines):
        for machine in machines:
            machine.disturbed_ns = self.true_ns
            if machine.controller is not None:
                machine.controller.provoked = True

    async def partition(self, chance):
        machine = self._some_machine(chance)
        if not machine.link.cut:
            self.say(f"{machine.name} is cut off from the server")
            self.hits["partition"] += 1
            self._disturb(machine)
            machine.link.cut = True
            machine.link.loses += chance.choice(([], [], [("answer lost", None)], [("late", None)]))

    async def heal(self, chance):
        for machine in self.machines:
            if machine.link.cut:
                self.say(f"{machine.name} reaches the server again")
                self._disturb(machine)
                machine.link.cut = False

    async def pause(self, chance):
        machine = self._some_machine(chance)
        if not machine.paused:
            suspended = chance.random() < 0.4
            self.say(f"{machine.name} {'is suspended' if suspended else 'stands still'}")
            self.hits["machine suspended" if suspended else "process paused"] += 1
            self._disturb(machine)
            if chance.random() < 0.4:
                machine.stops_in_its_next_job = True
            else:
                machine.pause(suspended=suspended)

    async def resume(self, chance):
        for machine in self.machines:
            if machine.paused:
                self.say(f"{machine.name} goes on, {machine.missed_ns / 1e9:.3g} s later")
                self._disturb(machine)
                machine.resume()

    async def stale(self, chance):
        """The leader stands still until another leads, wakes up, and is asked for what it may not give."""
        stale = self.lead
        if stale is None or not stale.open or stale.stuck:
            return
        await self.pause(chance) if chance.random() < 0.1 else stale.machine.pause(suspended=chance.random() < 0.4)
        self.say(f"{stale.machine.name} stands still for longer than a lease")
        self._disturb(stale.machine)
        await self.pass_time(round((self.plan.lease_s + 1) * SECOND))
        await self.resume(chance)
        if stale.open:
            self.hits["stale leader was asked" if stale.deposed else "leader slept and still leads"] += 1
            for _ in range(3):
                lease = self.some_lease(chance) if chance.random() < 0.4 else None
                self.call(stale, "renew", lease) if lease else self._any_call(chance, stale)
                await self.turn()

    async def crash(self, chance):
        machine = self._some_machine(chance)
        if machine.controller is None or machine.paused:
            return
        self.say(f"controller {machine.controller.number} on {machine.name} is killed")
        self.hits["kill"] += 1
        await self.kill_process(machine.controller)
        if chance.random() < 0.3:
            self.say(f"{machine.name} restarts")
            self.hits["machine restarted"] += 1
            machine.clock.reboot()
            self.true_ns += 1  # log time goes on by a nanosecond at least

    # ------------------------------------------------------------------ the server

    async def lose(self, chance):
        machine = self._some_machine(chance)
        how = chance.choice(("question lost", "answer lost", "answer lost", "late"))
        what = chance.choice((None, None, *WORDS))
        self.say(f"{machine.name}'s next {what or 'question'}: {how}")
        self.hits[how] += 1
        self._disturb(machine)
        machine.link.loses.append((how, what))

    async def deliver(self, chance):
        """What nobody waits for any more arrives."""
        late, self.server.late = self.server.late, []
        for word, act in late:
            self.say(f"what was late arrives: {word}")
            self.hits["what was late arrived"] += 1
            with suppress(psycopg.Error):
                act()
            self._disturb(*self.machines)

    async def slow(self, chance):
        machine = self._some_machine(chance)
        self.say(f"{machine.name}'s next answer is slow")
        self._disturb(machine)
        machine.link.slow_ns = round(chance.choice((0.2, 0.5, 1.2)) * self.plan.lease_s * SECOND)

    def _provoke(self, what):
        self.say(f"the server {what}")
        self.hits[f"server {what}"] += 1
        self._disturb(*self.machines)

    async def refuse(self, chance):
        if chance.random() < 0.5:
            self.server.down = True
            self._provoke("answers nobody")
        else:
            self.server.read_only = True
            self._provoke("takes no writes")

    async def fail_over(self, chance):
        """Nothing committed is lost, and every connection is."""
        self.server.life += 1
        self.server.down = chance.random() < 0.5
        self._provoke("fails over to its stand-by")

    async def server_full(self, chance):
        self.server.full = True
        self._provoke("is full")

    async def server_mends(self, chance):
        if self.server.provoked:
            self.say("the server is well again")
            self.server.mend()
            self._disturb(*self.machines)
