"""What must hold between steps, and what must hold once nothing more can happen by itself.

Rule: the views show exactly what the model says of the published events; what is on the disk leads to the state in memory, to
the digest; and nobody waits, and no port is kept, without a reason.
"""

from __future__ import annotations

from portfsm._replay import replay
from portfsm.states import PortState

_HELD = ("ALLOCATED", "QUARANTINED", "BLOCKED")


class Audit:
    """The part of the world that looks at the whole."""

    audited = (0, 0, 0)

    # ------------------------------------------------------------------ after every step

    def audit(self):
        """After a step."""
        lead, record = self.lead, self.record
        self.proxies.route()
        if lead is None or not lead.open or lead.superseded:
            return
        record.promise(lead)
        self.hits["disk was full"] += lead.engine.cache.full
        for zombie in self.zombies:
            self.watch_zombie(zombie)
        if (lead.number, record.shadow.seq, record.shown.seq) == self.audited:
            return
        self.audited = lead.number, record.shadow.seq, record.shown.seq
        if lead.engine.ahead.digest() != record.shadow.digest():
            self.fail("live is not replay", "what was decided on is not what the events lead to")
        if lead.engine.ahead.proxies != record.ahead.required:
            self.fail("required", f"the proxies {lead.engine.ahead.proxies} are asked, and recorded are {record.ahead.required}")
        if lead.manager.seq == record.shown.seq:
            self.compare_views(lead.manager)

    def watch_zombie(self, zombie):
        if zombie.superseded and zombie.manager is not None:
            if zombie.manager.durable_seq > zombie.durable_at_takeover:
                self.fail("two writers", f"controller {zombie.number} made events durable after another took over")

    def compare_views(self, manager):
        """The public views against the model, port by port, and the sums."""
        shown = self.record.shown
        views = {(v.node, v.pool, v.port): (v.state.value, v.owner, v.service, v.token, v.until or 0) for v in manager.ports()}
        model = {
            key: (p.state, p.owner, p.service, p.token, p.until if p.state != "ALLOCATED" else 0)
            for key, p in shown.ports.items()
            if p.state != "FREE"
        }
        for node, name in {key[:2] for key, p in shown.ports.items() if p.seq and key[1] in shown.lost}:
            keys = [(node, name, number) for number in shown.pools[name][0]]
            model |= {
                key: ("QUARANTINED", "", "", shown.ports[key].token if key in shown.ports else 0, shown.lost[name].until)
                for key in keys
                if shown.is_lost(key)
            }
        if views != model:
            odd = next(key for key in {**views, **model} if views.get(key) != model.get(key))
            self.fail("views", f"port {odd} reads {views.get(odd)} and is {model.get(odd)}")
        for name in self.plan.pools:
            for node in self.plan.nodes:
                self.compare_sums(manager, node, name)

    def compare_sums(self, manager, node, name):
        if name not in self.record.shown.pools:
            return
        numbers, _ = self.record.shown.pools[name]
        there = [(key[2], p.state) for key, p in self.record.shown.ports.items() if key[:2] == (node, name) and p.state != "FREE"]
        inside = [state for number, state in there if number in numbers]
        inside += ["QUARANTINED"] * sum(self.record.shown.is_lost((node, name, number)) for number in numbers)
        found = manager.statistics(name, node=node)
        counts = [inside.count(state) for state in _HELD]
        wanted = (len(numbers), len(numbers) - len(inside), *counts, sum(number not in numbers for number, _ in there))
        seen = (found.size, found.free, found.allocated, found.quarantined, found.blocked, found.retired)
        if seen != wanted:
            self.fail("sums", f"{name} on {node!r} counts {seen}, and is {wanted}")

    def probe(self, seed):
        """What if the power failed now: what would be found, and would it lead to the state that is shown?"""
        record, lead = self.record, self.lead
        record.promise(lead)
        found = self.disk.without_power(seed).events()
        record.judge(found, "a power cut that might be now")
        if lead is not None and lead.open and not lead.superseded:
            digest = replay(found[: lead.manager.seq]).digest()
            if digest != lead.manager.digest() and not self.violation:
                self.fail("live is not replay", f"the disk leads to another state at seq {lead.manager.seq}")

    def check_restarted(self):
        """After a restart of the machine every hold begins again in full."""
        record = self.record
        openings = [event for event in record.events if event.kind == "opened"]
        if self.plan.after_reboot != "restart" or len(openings) < 2 or openings[-1].data["boot"] == openings[-2].data["boot"]:
            return
        for key, port in record.ahead.ports.items():
            least = record.times[openings[-1].seq - 1] + record.holds_before[key[1]]
            if port.seq > openings[-1].seq and record.events[port.seq - 1].cause != "reboot":
                continue  # it began behind the opening
            if port.state == "QUARANTINED" and port.free_at < least:
                self.fail("reboot", f"port {key} is quarantined until {port.free_at}, and its hold should have begun again: {least}")

    # ------------------------------------------------------------------ when nothing more can happen by itself

    def rest(self):
        """The loop and the disk have nothing to do."""
        lead = self.lead
        if lead is not None and lead.open and not lead.stuck and not lead.failed and not lead.superseded:
            self._check_silence(lead)
            self._check_waiters(lead)
            self._check_leaks()
            for token in sorted(self.record.ahead_tokens() & set(self.terms)):
                if self._long_overdue(token) and token in self.record.received:
                    self.fail("never ends", f"lease {token} was not renewed in its time, and is still in force")
        self.check()

    def _check_silence(self, lead):
        for call in self.calls:
            if call.controller is lead and not call.rests:
                self.fail("silence", f"call {call.number} {call.sentence} gets no answer")
        if self.record.shown.seq != lead.manager.seq:
            self.fail("watch", f"a watcher saw events up to {self.record.shown.seq}, published are those up to {lead.manager.seq}")

    def _check_waiters(self, lead):
        """Whoever is first in a queue has no port to wait for; and its time is not up."""
        waiting = [call for call in self.calls if call.waits and call.controller is lead]
        for place in {place: None for call in waiting for place in call.places}:
            first = next(call for call in waiting if place in call.places)
            free = not self.is_kept_by_quota(first, lead) and self.takeable(lead, place, first.options.get("port"))
            behind = any(next(each for each in waiting if other in each.places) is not first for other in first.places)
            if free and not (first.requests and (behind or not self._could_be_had(first))):
                self.fail("not served", f"call {first.number} {first.sentence} waits, and {free} can be had")
            if first.deadline is not None and first.deadline <= lead.clock.boot_ns():
                self.fail("not served", f"call {first.number} {first.sentence} waits beyond its time")

    def _check_leaks(self):
        """Every lease is known to a caller."""
        record = self.record
        leaked = record.ahead_tokens() - record.received - record.uncertain
        kept = {token for call in self.calls if not call.cancelled for token in (call.token, *call.tokens)}
        for token in sorted(leaked - kept):
            event = record.events[token - 1]
            if event.kind != "adopted":
                self.fail("leak", f"lease {token} of {event.owner} on {event.pool} {event.port} is in force, and nobody was told")


def all_free(manager):
    """Whether every port came home."""
    return not any(manager.ports(state=state) for state in PortState if state is not PortState.FREE)
