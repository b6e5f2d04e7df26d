"""What the judge makes of pools with a policy: of calls that wait since too much is held back, of quotas, and of the band for hands.

Rule: whether a hold may be cut off and a quota allows a lease is the model's to say, event by event; here is what may be said to a caller.
"""

from __future__ import annotations

from portfsm._dump import spec_of
from portfsm.specs import PoolSpec


class PolicyJudge:
    """The part of the world that judges policies."""

    def policy(self, name):
        """The policy of a pool as recorded."""
        return next(event.data for event in reversed(self.record.events) if event.kind == "pool_defined" and event.pool == name)

    def patience(self, call, which=max):
        """How long a call waits at most (`min`: at least) that asked for no wait, in seconds; 0 where no policy says so."""
        if call.options.get("port") is not None:
            return 0.0
        patient = [pool for _, pool in call.places if self.policy(pool).get("on_pressure") == "wait"]
        return which((self.record.ahead.pools[pool][1] / 1e9 for pool in patient), default=0.0)

    # ------------------------------------------------------------------ quotas

    def is_kept_by_quota(self, call, controller):
        """Whether a quota would keep from the call what is there now."""
        asked = [(request.place, request.service, request.count, request) for request in call.requests]
        asked = asked or [(call.place, call.options["service"], 1, None)]
        return any(self._is_above(controller, *each) for each in asked)

    kept = frozenset()
    """Calls that a quota kept waiting when the present decision was made."""

    def before_a_decision(self, controller):
        """A decision is about to be heard, event by event."""
        if self.plan.policed:
            self.kept = {
                call for call in self.calls if call.waits and call.controller is controller and self.is_kept_by_quota(call, controller)
            }

    def _is_above(self, controller, place, service, count, request):
        ahead = self.record.ahead
        if request is not None:
            count -= sum((*place, request.owner, index) in ahead.holders for index in range(request.count))
        held, quota = ahead.held_by(*place, service), ahead.quota(place[1], service)
        if held + count > quota.get("hard", held + count):
            return True
        return held + count > quota.get("soft", 0) and len(self.takeable(controller, place)) - count < ahead.owed(*place, service)

    def _refused_QuotaExceeded(self, call, error):  # noqa: N802  (named after the error)
        if call.options["wait_s"]:
            return call.deadline <= call.controller.clock.boot_ns()
        waited = call.turn < self.turns  # behind others, or under pressure
        return call.options["wait_s"] is not None and (waited or self.is_kept_by_quota(call, call.controller))

    # ------------------------------------------------------------------ the band

    def _check_band(self, controller, event, calls):
        """A pick enters the band when nothing above it can be had."""
        ahead, place = self.record.ahead, (event.node, event.pool)
        band, port = ahead.bands[event.pool], ahead.ports[event.node, event.pool, event.port]
        reuse = port.state == "QUARANTINED" and (port.owner == event.owner or (event.service and port.service == event.service))
        picked = all(self._is_pick(call, event) for call in calls)  # else a block, or a number asked for, was what it was given for
        rest = [sum(key[:2] == place for key in self.missing(call)) - 1 for call in calls if call.requests]  # of a group that takes more
        above = set(self.takeable(controller, place)) - set(band)
        if event.port in band and not reuse and picked and len(above) > max(rest, default=0):
            self.fail("band", f"port {event.port} was given to a call that took any, and {sorted(above)} could be had")
        self.hits["band entered"] += event.port in band and picked

    def _is_pick(self, call, event):
        if call.name == "allocate":
            return (
                call.owner_key == (event.node, event.pool, event.owner) and call.options.get("port") is None and call.token == event.token
            )
        mine = [r for r in call.requests if (*r.place, r.owner) == (event.node, event.pool, event.owner)]
        return event.token in call.tokens and any(r.port is None and not r.contiguous for r in mine)

    # ------------------------------------------------------------------ changes

    def _explain_pool_defined(self, controller, event, calls):
        if event.data.get("history") == "kept":
            return event.pool in self.record.ahead.lost  # whether its hold is over, the model knows
        return controller.manager is None or any(c.name == "define" and c.args[0].name == event.pool for c in calls)

    def _check_define(self, call, counts):
        spec = call.args[0]
        changes = [event for event in self.record.events if event.kind == "pool_defined" and event.pool == spec.name]
        before = [event for event in changes if event.seq <= call.at[0]]
        mine = [event for event in changes[len(before) :] if "history" not in event.data and spec_of(spec.name, event.data) == spec]
        if mine and spec_of(spec.name, before[-1].data) != spec:
            self._durable(call, mine[0].seq, "the change of the pool")
        if counts.size != counts.free + counts.allocated + counts.quarantined + counts.blocked:
            self.fail("wrong view", f"call {call.number} {call.sentence} was answered with {counts}")

    async def lift_policies(self, controller):
        """For the end of the story: the pools as they are, and no policy that keeps a port from a stranger."""
        for name in self.plan.pools:
            present = controller.engine.ahead.specs[name]
            plain = PoolSpec(
                name,
                ports=present.ports,
                hold_s=present.hold_s,
                floor_s=present.floor_s,
                order=present.order,
                on_silence=present.on_silence,
            )
            if plain != present:
                self.call(controller, "define", plain)
        await self.drain()
