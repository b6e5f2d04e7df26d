"""What was decided, in order, by whom and when; what of it is promised to be kept; and what a reader of the disk must find.

Rule: every decision is heard here in the moment it is made, and judged by the model at once. `events` is what the log may hold: a
prefix of it, never shorter than `promised`, is what every reading of the disk must give.
"""

from __future__ import annotations

from portfsm._ledger import Ledger
from portfsm._replay import replay
from portfsm.specs import PoolSpec

from .rules import Contract


class Record:
    def __init__(self, world):
        self.world = world
        self.events, self.times = [], []
        self.ends = {0}
        """Lengths at which a decision ended: a batch is kept whole or not at all."""
        self.promised = 0
        """The last seq that anybody was told is durable."""
        self.ahead, self.shown, self.shadow = Contract(), Contract(), Ledger()
        """The model of what was decided, the model of what was published, and a second ledger that only ever replays."""
        self.holds_before = {}
        self.ended, self.received, self.uncertain = {}, set(), set()
        """Tokens: of ended leases (with the seq of the end), of leases some caller has, of leases whose callers died with the controller."""

    def pushed(self, controller, events):
        """The engine decided on `events`."""
        if controller.dead or controller.superseded or self.world.over:
            return
        if not controller.pushed:
            controller.pushed = True
            self.recover(controller, events[0].seq - 1)
        self.world.before_a_decision(controller)
        for event in events:
            self.take(controller, event)
        self.ends.add(len(self.events))
        self.shadow.fold(events)

    def take(self, controller, event):
        world = self.world
        if event.seq != len(self.events) + 1:
            world.fail("order", f"event {event.seq} was decided as number {len(self.events) + 1}")
            return
        world.hits[f"event {event.kind} {event.cause}".strip()] += 1
        world.say(f"    → {sentence(event)}")
        world.explain(controller, event)
        self._count(event)
        self.events.append(event)
        self.times.append(world.decided_at(controller))
        if event.kind in ("released", "blocked") and event.token:
            self.ended[event.token] = event.seq
        try:
            self.ahead.take(event, self.times[-1])
        except AssertionError as broken:
            world.fail("contract", f"{sentence(event)}: {broken}")

    def _count(self, event):
        """Note what is worth knowing that it happened."""
        hits = self.world.hits
        if event.kind == "pool_defined" and event.pool in self.ahead.pools:
            was, now = len(self.ahead.pools[event.pool][0]), PoolSpec(event.pool, ports=event.data["ports"]).size
            hits["pool grew"] += now > was
            hits["pool shrank"] += now < was
        if event.kind == "freed":
            hits["port retired"] += event.port not in self.ahead.pools[event.pool][0]

    def promise(self, controller):
        """Note what the controller says would survive a crash now."""
        if controller is None or controller.dead or controller.superseded or controller.manager is None:
            return
        self.promised = max(self.promised, controller.manager.durable_seq)

    def recover(self, controller, base):
        """A controller has read the log and found `base` events: judge them, and forget what was lost."""
        world = self.world
        world.takes_lead(controller)
        found = world.disk.events()
        self.judge(found, "the opening")
        if len(found) != base:
            world.fail("recovery", f"the log has {len(found)} events and the controller read {base}")
        if world.zombies:
            self.uncertain |= self.ahead_tokens()
        for zombie in world.zombies:
            zombie.superseded, zombie.durable_at_takeover = True, zombie.manager.durable_seq if zombie.manager else 0
        if base < len(self.events):
            world.hits["events lost before anybody was told"] += 1
            world.say(f"  {len(self.events) - base} events that nobody was told of are gone")
            self._forget(base)
        self.holds_before = {name: hold for name, (_, hold) in self.ahead.pools.items()}

    def holds(self, found):
        """Whether these events are the beginning of what was sent, in whole decisions."""
        return found == self.events[: len(found)] and len(found) in self.ends

    def forget_all(self, base):
        """The log is an older one, and what it was promised to have is gone with it."""
        self._forget(base)
        self.promised = base
        self.received = {token for token in self.received if token <= base}
        self.uncertain = {token for token in self.uncertain if token <= base}
        self.shown = Contract()
        for event, time in zip(self.events, self.times, strict=True):
            self.shown.take(event, time)

    def _forget(self, base):
        del self.events[base:], self.times[base:]
        self.ends = {end for end in self.ends if end <= base} | {base}
        self.ended = {token: seq for token, seq in self.ended.items() if seq <= base}
        self.ahead, self.shadow = Contract(), replay(self.events)
        for event, time in zip(self.events, self.times, strict=True):
            self.ahead.take(event, time)
        self.uncertain |= self.ahead_tokens()  # an end that was lost leaves a lease of which nobody knows

    def ahead_tokens(self):
        """Leases in force, also those that nobody was told of."""
        return {port.token for port in self.ahead.ports.values() if port.state == "ALLOCATED"}

    def judge(self, found, when):
        """What a disk holds must be what was sent, from the start, at least what was promised, in whole decisions."""
        fail = self.world.fail
        if len(found) < self.promised:
            lost = sentence(self.events[len(found)])
            fail("acknowledged", f"at {when} the log ends at {len(found)}, and {self.promised} was promised: gone is {lost}")
        if found != self.events[: len(found)]:
            fail(
                "invented",
                f"at {when} the log holds what was never sent: {next(e for e, s in zip(found, self._padded(), strict=False) if e != s)}",
            )
        if len(found) not in self.ends:
            fail("half a decision", f"at {when} the log ends at {len(found)}, in the middle of a decision")

    def _padded(self):
        return [*self.events, *[None] * 10_000]

    def show(self, event):
        """A watcher saw `event`."""
        place = event.seq - 1
        if place >= len(self.events) or self.events[place] != event:
            self.world.fail("published", f"published, and never decided like this: {sentence(event)}")
            return
        if event.seq == self.shown.seq + 1:
            self.shown.take(event, self.times[place])
            self.world.proxies.show(event, self.times[place])


def sentence(event):
    """An event as people say it."""
    place = f"{event.pool} {event.port}" + (f" on {event.node}" if event.node else "") if event.port else event.pool
    who = f" {event.owner}/{event.service}" if event.owner else ""
    token = f" lease {event.token}" if event.token and event.token != event.seq else ""
    why = f" ({event.cause})" if event.cause else ""
    return f"{event.seq} {place} {event.kind}{who}{token}{why}".replace("  ", " ")
