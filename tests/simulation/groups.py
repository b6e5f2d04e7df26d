"""Groups in the simulation: callers who ask for several ports at once, and what may be said to them.

Rule: a group that is told something was given all of it in one decision (that the disk keeps it whole is `record`'s to see), and a
refused one could not have been had of what was free. One that waits is passed in none of its pools.
"""

from __future__ import annotations

from portfsm.groups import Request

SHAPES = (
    {"count": 2}, {"count": 3}, {}, {"count": 2, "contiguous": True}, {"count": 2, "contiguous": True, "align": 2},
    {"count": 2, "contiguous": True, "stride": 2}, {"count": 3, "contiguous": True},
)  # fmt: skip


class GroupSteps:
    """The part of the world that asks."""

    async def group(self, chance):
        if controller := await self.ready(chance):
            (node, pool), (owner, service) = self.place(chance), self.replica(chance)
            other = chance.choice(self.plan.pools)
            requests = [Request(pool, owner, node=node, service=service, **chance.choice(SHAPES))]
            if other != pool:
                requests.append(Request(other, owner, node=node, service=service))
            self.call(controller, "allocate_group", requests, wait_s=chance.choice((0.0, 0.0, 0.0, 0.5, 4.0, 30.0, None)))


class GroupJudge:
    """The part of the world that judges it."""

    def _asked_as_group(self, event, calls):
        """Calls of groups that this lease is a part of; they await it from now on."""
        index = (event.data or {}).get("index", 0)
        found = []
        for call in calls:
            for request in call.requests:
                mine = (*request.place, request.owner, request.service) == (event.node, event.pool, event.owner, event.service)
                if call.started and mine and index < request.count and not call.served:
                    found.append(call)
                    call.tokens |= {event.token} | self._group_holds(call)
                    call.served |= not self.missing(call) - {(event.node, event.pool, event.owner, index)}
        return found

    def lacks(self, call):
        """Whether a lease is missing that the group asks for."""
        return bool(self.missing(call))

    def missing(self, call):
        """The leases that a group asks for and does not have, by what they are kept under."""
        keys = {(*request.place, request.owner, index) for request in call.requests for index in range(request.count)}
        return {key for key in keys if key not in self.record.ahead.holders}

    def _could_be_had(self, call):
        """Whether the group fits into what anybody could be given, with nothing of it held yet."""
        fits = [self._fits(request, self.takeable(call.controller, request.place)) for request in call.requests]
        return all(fits) and not self._group_holds(call)

    def _group_holds(self, call):
        """Tokens of what the group's owners hold of it now."""
        ahead = self.record.ahead
        keys = [(*request.place, request.owner, index) for request in call.requests for index in range(request.count)]
        return {ahead.ports[*key[:2], ahead.holders[key]].token for key in keys if key in ahead.holders}

    def _check_allocate_group(self, call, leases):
        wanted = [(*request.place, request.owner, request.service) for request in call.requests for _ in range(request.count)]
        if [(lease.node, lease.pool, lease.owner, lease.service) for lease in leases] != wanted:
            self.fail("wrong lease", f"call {call.number} {call.sentence} was given {leases}")
        for lease in leases:
            self._durable(call, lease.token, f"lease {lease.token}")
            event = self.record.events[lease.token - 1]
            if (event.node, event.pool, event.port, event.owner) != (lease.node, lease.pool, lease.port, lease.owner):
                self.fail("wrong lease", f"call {call.number} was given {lease}, and the log says {event}")
            self.record.received.add(lease.token)
            self.leases.append(lease)
        first = call.requests[0]
        ports = [lease.port for lease in leases[: first.count]]
        block = [ports[0] + index * first.stride for index in range(first.count)]
        if first.contiguous and (ports != block or ports[0] % first.align):
            self.fail("wrong lease", f"call {call.number} {call.sentence} was given {ports}")

    def _refused_GroupUnavailable(self, call, error):  # noqa: N802  (named after the error)
        if call.options["wait_s"]:
            self.hits["group gave up"] += 1
            return call.deadline <= call.controller.clock.boot_ns()
        return call.options["wait_s"] is not None and (self._was_patient(call) or not self._could_be_had(call))

    def _fits(self, request, numbers):
        if not request.contiguous:
            return len(numbers) >= request.count
        blocks = [range(first, first + request.count * request.stride, request.stride) for first in numbers if first % request.align == 0]
        return any(set(block) <= set(numbers) for block in blocks)

    def _impossible(self, call):
        """Whether no state of its pools could give it."""
        return any(not self._fits(request, self.record.ahead.pools[request.pool][0]) for request in call.requests)
