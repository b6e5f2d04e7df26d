"""What a group may lead to, spelled out over the rows of `tests/core_model.py`: by trying every assignment of numbers.

It knows nothing of lines, fields or orders: an assignment is right if everything that the contract says of a group holds of it.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import hypothesis.strategies as st

from portfsm import errors
from portfsm.groups import Request

POOLS, NODES, OWNERS, SERVICES = ("low", "old", "rnd", "now"), ("", "n2"), ("a", "b", "c", "d"), ("", "x", "y")
SHAPES = (
    {}, {"count": 2}, {"count": 3}, {"port": 101}, {"port": 104}, {"count": 2, "contiguous": True}, {"count": 3, "contiguous": True},
    {"count": 2, "contiguous": True, "stride": 2}, {"count": 2, "contiguous": True, "align": 2}, {"contiguous": True, "align": 52},
)  # fmt: skip
TAILS = ("none", "other pool", "other owner", "same number")
shapes, tails = st.sampled_from(SHAPES), st.sampled_from(TAILS)


def requests_of(pool, owner, node, service, shape, tail):
    """One request and, by `tail`, a second one; at most one of them asks for a block, as only then the search is complete."""
    first = Request(pool, owner, node=node, service=service, **shape, same_port="k" if tail == "same number" else "")
    if tail == "other pool":
        return [first, Request(POOLS[POOLS.index(pool) - 1], owner, node=node, service=service)]
    if tail == "other owner":
        return [Request(pool, OWNERS[OWNERS.index(owner) - 1], node=node, service=service, count=2), first]
    if tail == "same number":
        return [first, Request(pool, owner, node=NODES[NODES.index(node) - 1], service=service, **shape, same_port="k")]
    return [first]


class Groups:
    """The rules, over a model's rows."""

    def __init__(self, model):
        self.model = model

    def parts(self, requests):
        """Requests that get the same numbers, together."""
        keyed = {}
        for request in requests:
            keyed.setdefault(request.same_port or id(request), []).append(request)
        return list(keyed.values())

    def held(self, request):
        """index -> number, for what the owner holds of it."""
        rows = self.model.of(request.node, request.pool).items()
        held = {row["nth"]: port for port, row in rows if row["state"] == "ALLOCATED" and row["owner"] == request.owner}
        return {index: port for index, port in held.items() if index < request.count}

    def check_held(self, requests):
        """Raise where what is held cannot be part of what is asked for, or a number is none of the pool's."""
        for part in self.parts(requests):
            seen, firsts = {}, set()
            for request in part:
                for index, port in self.held(request).items():
                    firsts.add(port - index * request.stride)
                    other_service = self.model.row(request.node, request.pool, port)["service"] != request.service
                    astray = request.contiguous and (len(firsts) > 1 or min(firsts) % request.align)
                    if other_service or astray or request.port not in (None, port) or seen.setdefault(index, port) != port:
                        raise errors.OwnerConflict("")
                if request.port is not None and not self.model.inside(request.pool, request.port):
                    raise errors.PortOutOfRange("")

    def is_reuse(self, request, port, now):
        row = self.model.row(request.node, request.pool, port)
        same = request.service and row["service"] == request.service and row["mixed"] <= now
        return row["state"] == "QUARANTINED" and bool(row["owner"] == request.owner or same)

    def may_have(self, request, port, now):
        if not self.model.inside(request.pool, port):
            return False
        row = dict(self.model.row(request.node, request.pool, port))
        self.model.notice(row, self.model.specs[request.pool].hold_ms * 1_000_000, now)
        return self.is_reuse(request, port, now) or row["state"] == "FREE"

    def fits(self, part, ports, now):
        """Whether these numbers, by index, are what the part asks for and may have where it does not hold them."""
        shape = part[0]
        if shape.contiguous and (ports[0] % shape.align or any(port != ports[0] + n * shape.stride for n, port in enumerate(ports))):
            return False
        if len(set(ports)) < len(ports) or shape.port not in (None, ports[0]):
            return False
        return all(
            self.held(request).get(index, port) == port and (index in self.held(request) or self.may_have(request, port, now))
            for request in part
            for index, port in enumerate(ports)
        )

    def feasible(self, requests, now, taken=frozenset()):
        """Whether any assignment serves all requests."""
        parts = self.parts(requests)
        if not parts:
            return True
        part, rest = parts[0], [request for each in parts[1:] for request in each]
        numbers = sorted({n for request in part for piece in self.model.specs[request.pool].ports for n in piece})
        numbers = sorted({*numbers, *(port for request in part for port in self.held(request).values())})
        for ports in permutations(numbers, part[0].count):
            places = {(*request.place, port) for request in part for n, port in enumerate(ports) if n not in self.held(request)}
            if not places & taken and self.fits(part, ports, now) and self.feasible(rest, now, taken | places):
                return True
        return False

    def is_tangled(self, requests):
        """Two owners want ports of one pool that has quarantines: who gets its own back may take what only the other could use."""
        places = [request.place for request in requests]
        tight = {place for place in places if any(row["state"] == "QUARANTINED" for row in self.model.of(*place).values())}
        return any(places.count(place) > 1 for place in tight)

    def is_above_quota(self, requests):
        """Whether a service would hold more than its hard quota."""
        wanted = Counter()
        for request in requests:
            wanted[(*request.place, request.service)] += sum(n not in self.held(request) for n in range(request.count))
        for (node, pool, service), count in wanted.items():
            held = sum(row["state"] == "ALLOCATED" and row["service"] == service for row in self.model.of(node, pool).values())
            if count and any(quota.service == service and held + count > quota.hard for quota in self.model.specs[pool].quotas):
                return True
        return False

    def expect(self, command, events, outcome, now):
        """Hold the outcome against the rules and take it in."""
        self.check_held(command.requests)
        if not self.feasible(command.requests, now):
            assert isinstance(outcome, errors.GroupUnavailable | errors.InvalidValue | errors.PortUnavailable), outcome
            raise outcome
        if isinstance(outcome, errors.GroupUnavailable) and self.is_tangled(command.requests):
            raise outcome
        if self.is_above_quota(command.requests):
            assert isinstance(outcome, errors.QuotaExceeded), outcome
            raise outcome
        assert isinstance(outcome, tuple), f"refused, though it can be had: {outcome}"
        begun = {(e.node, e.pool, e.owner, (e.data or {}).get("index", 0)): e for e in events if e.kind == "allocated"}
        assert len(begun) == sum(e.kind == "allocated" for e in events)
        lacking = [(r, index) for r in command.requests for index in range(r.count) if index not in self.held(r)]
        assert [(r.node, r.pool, r.owner, index) for r, index in lacking] == list(begun)
        for part in self.parts(command.requests):
            for request in part:
                got = self.held(request) | {n: begun[*request.place, request.owner, n].port for r, n in lacking if r is request}
                assert self.fits(part, [got[index] for index in range(request.count)], now)
        if len(command.requests) == 1 and lacking:
            self.check_band(command.requests[0], [event.port for event in begun.values()], now)
        self.take_in([(request, begun[*request.place, request.owner, index], index) for request, index in lacking], command, now)

    def check_band(self, request, got, now):
        """The lowest ports of the pool are given when nothing above them would do, and those of its own come back wherever they are."""
        numbers = [n for piece in self.model.specs[request.pool].ports for n in piece]
        band = set(numbers[: self.model.specs[request.pool].static])
        if request.port is not None or not any(n in band and not self.is_reuse(request, n, now) for n in got):
            return
        above = [n for n in numbers if n not in band and self.may_have(request, n, now)]
        if not request.contiguous:
            assert not set(above) - set(got)
        elif len(got) == request.count:
            assert not any(
                first % request.align == 0 and all(first + n * request.stride in above for n in range(request.count)) for first in above
            )

    def take_in(self, begun, command, now):
        """What was due is noticed, but for what is taken over; then the leases begin."""
        if not begun:
            return
        reused = {(*r.place, event.port) for r, event, _ in begun if self.is_reuse(r, event.port, now)}
        for node, pool in command.places:
            for port, row in self.model.of(node, pool).items():
                if (node, pool, port) not in reused:
                    self.model.notice(row, self.model.specs[pool].hold_ms * 1_000_000, now)
        for request, event, index in begun:
            row = self.model.row(request.node, request.pool, event.port)
            self.model.mix(row, request.service)
            row.update(state="ALLOCATED", owner=request.owner, service=request.service, token=event.seq, nth=index, ttl=None)
