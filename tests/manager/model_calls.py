"""The calls of the manager, each beside what the model makes of it."""

from __future__ import annotations

from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import rule

from portfsm import CommandRejected, OwnerConflict, PoolExhausted, PortOutOfRange, PortUnavailable, Request, StaleLease
from tests.manager.model import HOLD, NODES, OWNERS, PORTS, SERVICES, Controller


class Calls(Controller):
    """Every call but `reconcile`."""

    @rule(
        owner=st.sampled_from(OWNERS),
        service=st.sampled_from(SERVICES),
        node=st.sampled_from(NODES),
        wish=st.sampled_from([None, None, *PORTS]),
        ttl_s=st.sampled_from([None, None, 20]),
    )
    def allocate(self, owner, service, node, wish, ttl_s):
        held = self.holder(owner, node)
        call = partial(self.manager.allocate, "p", owner=owner, service=service, node=node, port=wish, ttl_s=ttl_s)
        try:
            lease = self.call(call)
        except (PoolExhausted, PortUnavailable) as error:
            assert held is None
            numbers = [wish] if isinstance(error, PortUnavailable) else filter(self.inside, PORTS)
            for number in numbers:
                port = self.model[node, number]
                assert port.state != "FREE"
                if port.state == "QUARANTINED":
                    assert port.until > self.now - 1e-9
                    assert owner != port.owner
                    assert service == "" or service != port.service or port.mixed > self.now - 1e-9
            self.sweep()
            return
        except PortOutOfRange:
            assert held is None
            assert not self.inside(wish)
            return
        except CommandRejected:
            port = self.model[node, held]
            assert port.service != service or wish not in {None, held} or port.ttl_s != ttl_s
            return
        port = self.model[node, lease.port]
        if held is not None:
            assert (lease.port, lease) == (held, port.lease)
            port.expires = self.now + (ttl_s or 0)
            self.missed.pop(lease.token, None)  # who asks lives
            return
        mine = {
            number
            for (at, number), found in self.model.items()
            if at == node and found.state == "QUARANTINED" and found.owner == owner and self.inside(number)
        }
        assert self.inside(lease.port)
        assert wish in {None, lease.port}
        assert wish is not None or not mine or lease.port in mine
        alike = service == port.service != "" and port.mixed <= self.now + 1e-9
        reuse = port.state == "QUARANTINED" and (port.owner == owner or alike)
        floor = max(port.until, port.floor) if reuse else 0
        if not reuse:
            assert port.state == "FREE" or port.until <= self.now + 1e-9
            assert port.state != "BLOCKED"
        self.sweep()  # what was due may have been noticed by this call or not
        self.take(self.model[node, lease.port], owner, service, lease, floor=floor, ttl_s=ttl_s)

    @rule(owner=st.sampled_from(OWNERS), service=st.sampled_from(SERVICES), node=st.sampled_from(NODES), same=st.booleans())
    def allocate_group(self, owner, service, node, same):
        """Two ports, all or none: of two owners on one node, or the same number for one owner on both."""
        other = OWNERS[OWNERS.index(owner) - 1]
        places = [(owner, at) for at in NODES] if same else [(owner, node), (other, node)]
        requests = [Request("p", who, node=at, service=service, same_port="k" if same else "") for who, at in places]
        held = [self.holder(who, at) for who, at in places]
        self.sweep()
        seq = self.manager.seq
        try:
            leases = self.call(partial(self.manager.allocate_group, requests))
        except OwnerConflict:
            found = [self.model[at, number] for (_, at), number in zip(places, held, strict=True) if number is not None]
            assert any(port.service != service for port in found) or (same and len(set(held)) == 2 and None not in held)
        except PoolExhausted as error:
            assert self.manager.seq == seq
            free = [{number for number in filter(self.inside, PORTS) if self.model[at, number].state == "FREE"} for _, at in places]
            wanted = [number for number in held if number is not None]
            if same:
                common = free[0] & free[1] if not wanted else {number for number in wanted if any(number in each for each in free)}
                assert not common
            else:
                assert len(free[0]) < held.count(None)
            assert error.in_the_way or error.short_by
        else:
            assert not same or leases[0].port == leases[1].port
            for (who, at), number, lease in zip(places, held, leases, strict=True):
                self.take_of_a_group(who, at, number, lease, service)

    def take_of_a_group(self, owner, node, held, lease, service):
        port = self.model[node, lease.port]
        assert (lease.owner, lease.node, lease.service) == (owner, node, service)
        if held is not None:
            assert (lease.port, lease.token) == (held, port.lease.token)
            return
        reuse = port.state == "QUARANTINED"
        assert self.inside(lease.port)
        assert port.state == "FREE" or (
            reuse and (port.owner == owner or (service == port.service != "" and port.mixed <= self.now + 1e-9))
        )
        self.take(port, owner, service, lease, floor=max(port.until, port.floor) if reuse else 0)

    @rule(owner=st.sampled_from(OWNERS), service=st.sampled_from(SERVICES), node=st.sampled_from(NODES), number=st.sampled_from(PORTS))
    def adopt(self, owner, service, node, number):
        held, port = self.holder(owner, node), self.model[node, number]
        try:
            lease = self.call(partial(self.manager.adopt, "p", number, owner=owner, service=service, node=node))
        except OwnerConflict as error:
            assert error.conflict == ("owner" if held is None else "moved" if held != number else "service")
            assert (error.holder, error.claimant) == (port.owner if held is None else owner, owner)
            if error.conflict != "service":
                self.claims[node, number] = owner
            return
        assert held in {None, number}
        self.claims = {place: by for place, by in self.claims.items() if (place[0], by) != (node, owner)}
        if held is not None:
            assert lease == port.lease
            self.missed.pop(lease.token, None)
            return
        assert port.state != "ALLOCATED"
        floor = max(self.now + HOLD if port.state == "BLOCKED" else 0, port.floor, port.until if port.state == "QUARANTINED" else 0)
        self.take(port, owner, service, lease, floor=floor)

    @rule(choice=st.integers(0, 50), owner=st.sampled_from(OWNERS), end=st.booleans())
    def contest(self, choice, owner, end):
        """A port that is held is claimed, and maybe let go of."""
        held = [port.lease for port in self.model.values() if port.state == "ALLOCATED"]
        if held:
            lease = held[choice % len(held)]
            self.adopt(owner, lease.service, lease.node, lease.port)
            if end:
                self.release(self.leases.index(lease), None, again=False)

    @rule(choice=st.integers(0, 50))
    def renew(self, choice):
        if not self.leases:
            return
        lease = self.leases[choice % len(self.leases)]
        port = self.model[lease.node, lease.port]
        stands = port.state == "ALLOCATED" and port.lease.token == lease.token
        try:
            assert self.call(self.manager.renew, lease) == lease
        except StaleLease:
            assert not stands
            return
        assert stands
        port.expires = self.now + (port.ttl_s or 0)
        self.missed.pop(lease.token, None)

    @rule(choice=st.integers(0, 50), block=st.sampled_from([None, None, "x"]), again=st.booleans())
    def release(self, choice, block, again):
        if not self.leases:
            return
        lease = self.leases[choice % len(self.leases)]
        port = self.model[lease.node, lease.port]
        last = (
            port.lease is not None and port.lease.token == lease.token
            if port.state == "ALLOCATED"
            else self.last_token(lease) == lease.token
        )
        for _ in range(1 + again):
            try:
                self.call(partial(self.manager.release, lease, block=block))
            except StaleLease:
                assert not last
                return
        if not last:
            assert port.state in {"QUARANTINED", "BLOCKED"}
        elif self.gone(lease.node, lease.port):
            pass
        elif block is not None and port.state != "BLOCKED":
            floor = max(port.floor, port.until or 0)
            port.state, port.until, port.floor = "BLOCKED", None, floor
        elif block is None and port.state == "ALLOCATED":
            self.end(port)

    def last_token(self, lease):
        return max(found.token for found in self.leases if (found.node, found.port) == (lease.node, lease.port))

    @rule(node=st.sampled_from(NODES), number=st.sampled_from(PORTS), for_s=st.sampled_from([None, 2, 30]))
    def block(self, node, number, for_s):
        if self.refused(self.manager.block, node, number, reason="x", for_s=for_s):
            return
        self.call(partial(self.manager.block, "p", number, node=node, reason="x", for_s=for_s))
        port = self.model[node, number]
        if port.state == "BLOCKED":
            if port.until is None or port.until > self.now + 1e-9:
                return
            floor = max(self.now + HOLD, port.floor)  # the end of the first block is noticed: its hold outlasts the second
        else:
            floor = max(port.floor, port.until or 0)
        port.state, port.until, port.floor = "BLOCKED", None if for_s is None else self.now + for_s, floor

    @rule(node=st.sampled_from(NODES), number=st.sampled_from(PORTS))
    def unblock(self, node, number):
        if self.refused(self.manager.unblock, node, number):
            return
        port = self.model[node, number]
        try:
            self.call(partial(self.manager.unblock, "p", number, node=node))
        except CommandRejected:
            assert port.state == "ALLOCATED"
            return
        if port.state == "BLOCKED":
            port.state, port.until = "QUARANTINED", max(self.now + HOLD, port.floor)

    @rule(node=st.sampled_from(NODES), number=st.sampled_from(PORTS), hold_s=st.sampled_from([1, 40]))
    def hold(self, node, number, hold_s):
        if self.refused(self.manager.hold, node, number, hold_s=hold_s):
            return
        port = self.model[node, number]
        try:
            self.call(partial(self.manager.hold, "p", number, node=node, hold_s=hold_s))
        except CommandRejected:
            assert port.state in {"ALLOCATED", "BLOCKED"}
            return
        until = self.now + hold_s
        if port.state == "FREE" or until > port.until:
            port.state, port.until = "QUARANTINED", until

    @rule(node=st.sampled_from(NODES), number=st.sampled_from(PORTS))
    def free(self, node, number):
        if self.refused(self.manager.free, node, number, reason="x"):
            return
        port = self.model[node, number]
        try:
            self.call(partial(self.manager.free, "p", number, node=node, reason="x"))
        except CommandRejected:
            assert port.state in {"ALLOCATED", "BLOCKED"}
            return
        self.set_free(port)

    def refused(self, call, node, number, **options):
        """Whether the port has left the pool, and the call says so."""
        if not self.gone(node, number):
            return False
        with pytest.raises(PortOutOfRange):
            self.call(partial(call, "p", number, node=node, **options))
        return True

    @rule(owner=st.sampled_from(OWNERS), node=st.sampled_from([None, *NODES]))
    def release_owner(self, owner, node):
        ended = self.call(partial(self.manager.release_owner, owner, node=node))
        expected = [
            port for (at, _), port in self.model.items() if port.state == "ALLOCATED" and port.owner == owner and node in {None, at}
        ]
        assert sorted(lease.token for lease in ended) == sorted(port.lease.token for port in expected)
        self.claims = {place: by for place, by in self.claims.items() if by != owner or node not in {None, place[0]}}
        for port in expected:
            self.end(port)

    @rule()
    def sweep(self):
        self.call(self.manager.sweep)
        for node in NODES:
            self.due(node)
