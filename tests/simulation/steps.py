"""What can happen: callers that come, repeat themselves, come late or go; time; crashes; faults of the disk; a second controller.

Rule: each step makes all its choices with the generator it is given, and makes sense, if only as nothing, wherever it stands.
"""

from __future__ import annotations

import errno

from .groups import GroupSteps
from .world import CLOSE_S

SECOND = 1_000_000_000
PATIENCE = (0.0, 0.0, 0.0, 0.0, 0.5, 4.0, 30.0, None)
MAX_CALLS = 12
KINDS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.EIO)


class Steps(GroupSteps):
    """The part of the world that acts."""

    async def ready(self, chance):
        """A controller to call, or None while there is none. Sees to it that one comes."""
        lead = self.lead
        if lead is None:
            self.start(chance)
        elif lead.failed and not lead.leave.is_set():
            self.say(f"controller {lead.number} stops, since {type(lead.engine.writer.failure).__name__}")
            lead.leave.set()
        elif lead.open and not lead.hung and len(self.calls) < MAX_CALLS:
            open_zombies = [zombie for zombie in self.zombies if zombie.open]
            return chance.choice([lead, *open_zombies]) if open_zombies else lead
        return None

    def place(self, chance):
        return chance.choice(self.plan.nodes), chance.choice(self.plan.pools)

    def number(self, chance, pool, *, outside=0.1):
        first = {"low": 100, "old": 200, "rnd": 300}[pool]
        if pool in self.record.ahead.pools and chance.random() > outside:
            return chance.choice(sorted(self.record.ahead.pools[pool][0]))
        return first + chance.randint(-2, 7)

    def replica(self, chance):
        owner = chance.choice(list(self.plan.owners))
        service = self.plan.owners[owner] if chance.random() < 0.95 else chance.choice(self.plan.services)
        return owner, service

    # ------------------------------------------------------------------ callers

    async def allocate(self, chance):
        if controller := await self.ready(chance):
            self._allocate(chance, controller)

    def _allocate(self, chance, controller, wait_s=PATIENCE):
        (node, pool), (owner, service) = self.place(chance), self.replica(chance)
        port = self.number(chance, pool) if chance.random() < 0.15 else None
        options = {"ttl_s": chance.choice((2.0, 30.0))} if chance.random() < 0.1 else {}
        wait_s = chance.choice(wait_s)
        return self.call(controller, "allocate", pool, owner=owner, node=node, service=service, port=port, wait_s=wait_s, **options)

    async def renew(self, chance):
        lease = self.some_lease(chance, late=chance.random() < 0.2)
        if lease and (controller := await self.ready(chance)):
            self.call(controller, "renew", lease)

    def some_lease(self, chance, *, late=False):
        """A lease somebody was given: a present one, mostly, or one of long ago."""
        live = [lease for lease in self.leases if lease.token not in self.record.ended]
        pool = self.leases if late or not live else live
        return chance.choice(pool[-40:]) if pool else None

    async def release(self, chance):
        lease = self.some_lease(chance)
        if lease and (controller := await self.ready(chance)):
            self.call(controller, "release", lease)

    async def release_block(self, chance):
        lease = self.some_lease(chance)
        if lease and (controller := await self.ready(chance)):
            self.call(controller, "release", lease, block="in use", for_s=chance.choice((None, 1.0, 20.0)))

    async def late(self, chance):
        lease = self.some_lease(chance, late=True)
        if lease and (controller := await self.ready(chance)):
            how = chance.choice(("release", "withdraw", "block"))
            options = {"block": "late"} if how == "block" else {}
            self.call(controller, "withdraw" if how == "withdraw" else "release", lease, **options)

    async def withdraw(self, chance):
        lease = self.some_lease(chance)
        if lease and (controller := await self.ready(chance)):
            self.call(controller, "withdraw", lease)

    async def release_owner(self, chance):
        if controller := await self.ready(chance):
            self.call(controller, "release_owner", chance.choice(list(self.plan.owners)), node=chance.choice((None, *self.plan.nodes)))

    async def adopt(self, chance):
        if controller := await self.ready(chance):
            (node, pool), (owner, service) = self.place(chance), self.replica(chance)
            self.call(controller, "adopt", pool, self.number(chance, pool, outside=0.3), owner=owner, node=node, service=service)

    async def _operator(self, chance, name, **options):
        if controller := await self.ready(chance):
            node, pool = self.place(chance)
            self.call(controller, name, pool, self._likely(chance, name, node, pool), node=node, **options)

    def _likely(self, chance, name, node, pool):
        """A number for which the call means something, more often than not."""
        state = {"unblock": "BLOCKED", "free": "QUARANTINED", "hold": "QUARANTINED"}.get(name)
        fit = [key[2] for key, port in self.record.ahead.ports.items() if key[:2] == (node, pool) and port.state == state]
        return chance.choice(fit) if fit and chance.random() < 0.7 else self.number(chance, pool)

    async def block(self, chance):
        await self._operator(chance, "block", reason="tests", for_s=chance.choice((None, 1.0, 30.0)))

    async def unblock(self, chance):
        await self._operator(chance, "unblock")

    async def hold(self, chance):
        await self._operator(chance, "hold", hold_s=chance.choice((0.0, 0.3, 5.0, 60.0)))

    async def free(self, chance):
        await self._operator(chance, "free", reason="tests")

    async def crowd(self, chance):
        """Replicas nobody knew before, more than there is room for, some while after others have gone."""
        node, pool = self.place(chance)
        if chance.random() < 0.7:
            self.advance_ns(round(self.plan.holds[pool] * 0.6 * SECOND))
        for _ in range(chance.randint(2, 5)):
            if controller := await self.ready(chance):
                owner, options = f"c{chance.getrandbits(20)}", {"port": None, "wait_s": chance.choice(PATIENCE)}
                self.call(controller, "allocate", pool, owner=owner, node=node, service="", **options)

    async def define(self, chance):
        """A pool grows, shrinks, holds for longer, has another band or other quotas, while everything goes on."""
        if controller := await self.ready(chance):
            self.call(controller, "define", self.plan.spec(chance.choice(self.plan.pools), chance, same=chance.random() < 0.3))

    async def sweep(self, chance):
        if controller := await self.ready(chance):
            self.call(controller, "sweep")

    async def cancel(self, chance):
        if self.calls:
            call = chance.choice(self.calls)
            self.say(f"  call {call.number} is cancelled")
            call.cancel()

    async def twice(self, chance):
        """A command, its answer lost, and the same command again: the same answer, and nothing new on record."""
        await self.drain()
        controller = await self.ready(chance)
        if controller is None or controller is not self.lead or self.calls:
            return
        first = self._any_call(chance, controller)
        await self.drain()
        if first.error is not None or not first.answered or self.lead is not controller or controller.failed:
            return
        count = len(self.record.events)
        again = self.call(controller, first.name, *first.args, **first.options)
        await self.drain()
        self._check_repeat(first, again, count, controller)

    def _any_call(self, chance, controller):
        (node, pool), lease = self.place(chance), self.some_lease(chance)
        if lease is None or chance.random() < 0.3:
            return self._allocate(chance, controller, (0.0,))
        name = chance.choice(("release", "release", "withdraw", "release_owner", "block", "unblock", "free", "sweep"))
        if name in ("release", "withdraw"):
            return self.call(controller, name, lease)
        if name == "release_owner":
            return self.call(controller, name, lease.owner)
        options = {"reason": "twice"} if name in ("block", "free") else {}
        if name == "sweep":
            return self.call(controller, name)
        return self.call(controller, name, pool, self._likely(chance, name, node, pool), node=node, **options)

    def _check_repeat(self, first, again, count, controller):
        if controller.failed or controller is not self.lead:
            return
        retired = type(again.error).__name__ == "PortOutOfRange" and first.name in ("unblock", "free")
        if any(event.cause != "evidence" for event in self.record.events[count:]):
            self.fail("repeat", f"{first.sentence} was repeated, and something was recorded")
        elif again.error is not None and not retired:
            self.fail("repeat", f"{first.sentence} was repeated, and refused: {again.error!r}")
        elif first.name == "allocate" and again.result != first.result:
            self.fail("repeat", f"{first.sentence} gave {first.result} and then {again.result}")
        self.hits["answered twice"] += 1

    # ------------------------------------------------------------------ time

    async def advance(self, chance):
        lead = self.lead
        dues = [port.until for port in self.record.ahead.ports.values() if port.until]
        ns = chance.choice((SECOND // 1000, SECOND // 3, SECOND, 7 * SECOND, 40 * SECOND))
        if dues and lead is not None and lead.open and chance.random() < 0.5:
            ns = max(0, chance.choice(dues) - lead.engine.now() + chance.choice((-1, 0, 1)))
        self.say(f"{ns / 1e9:.9g} s pass")
        self.advance_ns(ns)

    async def idle(self, chance):
        for _ in range(chance.randint(1, 12)):
            await self.turn()

    async def settle(self, chance):
        await self.drain()

    async def step_wall(self, chance):
        seconds = chance.choice((-3600.0, -2.0, 2.0, 3600.0, 1e7))
        if self.plan.after_reboot == "remaining":
            seconds = -abs(seconds)
        self.say(f"the wall clock is set by {seconds:g} s")
        self.hits["wall clock step"] += 1
        self.clock.step_wall(seconds)

    # ------------------------------------------------------------------ controllers

    async def kill(self, chance):
        reboot = chance.random() < 0.3
        self.hits["kill" + (" and restart of the machine" if reboot else "")] += 1
        self.say("all processes are killed" + (", and the machine restarts" if reboot else ""))
        await self.die(power=False, reboot=reboot, seed=0, down_s=chance.choice((0.0, 1.0, 15.0)), step_s=self._step_at_boot(chance))

    async def power_cut(self, chance):
        self.hits["power cut"] += 1
        self.say("the power fails")
        seed = chance.getrandbits(32)
        await self.die(power=True, reboot=True, seed=seed, down_s=chance.choice((0.0, 1.0, 15.0)), step_s=self._step_at_boot(chance))

    def _step_at_boot(self, chance):
        seconds = chance.choice((0.0, 0.0, -3600.0, 5.0, 3600.0))
        return min(seconds, 0.0) if self.plan.after_reboot == "remaining" else seconds

    async def die_inside(self, chance):
        self.disk.cut_in = chance.randint(0, 45)
        self.disk.cut_how = (chance.random() < 0.6, chance.getrandbits(32))

    async def leave(self, chance):
        if self.lead is not None and self.lead.open:
            self.hits["left"] += 1
            self.say(f"controller {self.lead.number} is told to leave")
            self.lead.leave.set()

    async def hang(self, chance):
        """The disk hangs: for a while, or until the controller has given it up."""
        lead = self.lead
        if lead is None or not lead.open or lead.hung:
            return
        self.say("the disk hangs")
        self.hits["disk hangs"] += 1
        lead.hung = lead.provoked = True
        if chance.random() < 0.5:
            self.advance_ns(chance.choice((1, 12, 50)) * SECOND)
            await self.idle(chance)
        else:
            await self._leave_hanging(lead)
        lead.hung = False

    async def _leave_hanging(self, lead):
        lead.leave.set()
        for _ in range(8):
            await self.turn()
        self.loop_advance(CLOSE_S + 1)
        for _ in range(20):
            await self.turn()
        if not lead.gone:
            self.fail("silence", f"controller {lead.number} does not get away from a disk that hangs")
        if isinstance(lead.error, TimeoutError | type(None)):
            self.hits["left before the disk hung"] += 1
        await self.die(power=False, reboot=False, seed=0)

    async def zombie(self, chance):
        """The lock is lost and another controller takes over, while the first one lives on."""
        if self.lead is None or not self.lead.open or self.lead.failed or self.zombies:
            return
        self.hits["takeover"] += 1
        self.say(f"controller {self.lead.number} loses its lock, and does not know")
        self.record.promise(self.lead)
        self.zombies.append(self.lead)
        self.lead.provoked = True
        self.disk.lose_locks()
        self.start(chance)

    async def takeover(self, chance):
        if self.zombies:
            self.say(f"controller {self.zombies[0].number}, long superseded, leaves")
            self.zombies[0].leave.set()

    # ------------------------------------------------------------------ the disk

    def provoke(self, what):
        self.say(f"the disk will fail: {what}")
        self.disk.provoked = True
        for controller in self.processes():
            controller.provoked = True

    async def fail_write(self, chance):
        kind = chance.choice((errno.EIO, "short", errno.EINTR, errno.ENOSPC))
        self.disk.fail(at=chance.randint(0, 3), kind=kind, persistent=chance.random() < 0.3, only={"pwrite"})
        self.provoke(f"a write, {kind}")

    async def fail_sync(self, chance):
        self.disk.fail(at=chance.randint(0, 3), kind=errno.EIO, persistent=chance.random() < 0.2, only={"fdatasync", "fsync"})
        self.provoke("a sync")

    async def fail_any(self, chance):
        kind = chance.choice(KINDS)
        self.disk.fail(at=self.disk.calls + chance.randint(0, 30), kind=kind, persistent=chance.random() < 0.2)
        self.provoke(f"some call, {errno.errorcode[kind]}")

    async def fill(self, chance):
        self.disk.capacity = self.disk.used() + chance.choice((0, 100, 1000))
        self.provoke("it is nearly full")

    async def make_room(self, chance):
        self.say("the disk is whole again")
        self.disk.mend()
