"""The real manager on a real directory against a dict, with a crash and a reopening between any two steps.

The model is written from the contract and knows nothing of ledgers or journals. After every step the manager's views are
compared with it, and its digest with the digest of what the directory replays to. A crash copies the directory as it is,
while the old manager still has it open, and goes on in the copy.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path

import attrs
import hypothesis.strategies as st
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from portfsm import (
    CommandRejected,
    FileJournal,
    Lease,
    Observation,
    OwnerConflict,
    PoolExhausted,
    PoolSpec,
    PortOutOfRange,
    PortUnavailable,
    Request,
    Sighting,
    StaleLease,
    open_manager,
    read_journal,
    replay,
)
from portfsm.testing import ManualClock

HOLD = 10
PORTS = range(100, 106)
RANGES = ("100-103", "100-105", "100-102", "100,102-104")
"""The pool as it begins, and what it grows, shrinks or is torn to while everything goes on."""
NODES = ("", "b")
OWNERS = ("r1", "r2", "r3")
SERVICES = ("", "s1", "s2")
SECOND = 1_000_000_000
MEMORY = Path("/dev/shm")
"""Killing a process loses nothing that was written, wherever it was written; syncs are what takes the time here."""


@attrs.define
class Port:
    """What the model knows of one port. `until` in seconds of its own clock; None for no end."""

    state: str = "FREE"
    owner: str = ""
    service: str = ""
    until: float | None = None
    lease: Lease | None = None
    floor: float = 0
    """End of a hold that was running when the port was taken or blocked: it outlasts what came between."""
    mixed: float = 0
    """Until then another service's traffic may come than that of the last one, which so has no claim to the port."""
    ttl_s: float | None = None
    expires: float = 0


class ManagerModel(RuleBasedStateMachine):
    backend = "asyncio"

    @initialize()
    def open(self):
        self.loop = start_blocking_portal(self.backend)
        self.portal = self.loop.__enter__()
        self.call = self.portal.call
        self.home = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.turn = 0
        self.clock = ManualClock()
        self.now = 0.0
        self.model = {(node, port): Port() for node in NODES for port in PORTS}
        self.leases: list[Lease] = []
        self.claims: dict[tuple[str, int], str] = {}
        self.spec = PoolSpec("p", ports=RANGES[0], hold_s=HOLD)
        self.enter()

    def enter(self):
        spec = self.spec
        self.journal = FileJournal(self.home / str(self.turn), reserve_bytes=100)
        self.context = self.portal.wrap_async_context_manager(open_manager(self.journal, pools=[spec], clock=self.clock))
        self.manager = self.context.__enter__()
        self.claims.clear()  # live replicas would be heard anew
        for port in self.model.values():
            port.expires = self.now + (port.ttl_s or 0)
        self.missed: dict[int, tuple[int, int]] = {}  # token -> times, last at: in memory alone
        self.looked: dict[str, int] = {}

    def teardown(self):
        if hasattr(self, "context"):
            self.context.__exit__(None, None, None)
            self.loop.__exit__(None, None, None)
            shutil.rmtree(self.home)

    # ---- what happens to the controller ---------------------------------------------------------------------

    @rule()
    def crash(self):
        """The directory as a kill -9 leaves it; the old manager is dismissed afterwards."""
        old = self.context
        before = self.home / str(self.turn)
        self.turn += 1
        shutil.copytree(before, self.home / str(self.turn))
        old.__exit__(None, None, None)
        self.enter()

    @rule()
    def reopen(self):
        self.context.__exit__(None, None, None)
        self.enter()

    @rule(seconds=st.sampled_from([0.001, 1, 4, HOLD, 25]))
    def pass_time(self, seconds):
        self.call(self.clock.advance, seconds)
        self.now += seconds
        over = [port for port in self.model.values() if port.state == "ALLOCATED" and port.ttl_s and port.expires <= self.now + 1e-9]
        for port in over:
            self.end(port)
        if over:
            self.sweep()

    @rule(seconds=st.sampled_from([-3600, 3600]))
    def set_the_wall_clock(self, seconds):
        self.clock.step_wall(seconds)

    @rule(down_s=st.sampled_from([0, 5.07]))  # no sum of the other times: after a reboot the log is a nanosecond ahead
    def reboot(self, down_s):
        """Every hold starts over in full; the ends of blocks, and of holds under a block or a lease, go by the wall clock."""
        self.context.__exit__(None, None, None)
        before = self.log_now()
        self.clock.reboot(down_s=down_s)
        self.enter()
        jump = (self.log_now() - before) / SECOND
        for (node, number), port in self.model.items():
            port.floor -= jump
            port.mixed -= jump
            if port.state == "BLOCKED" and port.until is not None:
                port.until -= jump
            elif port.state == "QUARANTINED":
                left = (self.manager.port("p", number, node=node).until - self.log_now()) / SECOND
                assert left >= min(HOLD, port.until - self.now)
                port.until = self.now + left
                port.mixed = max(port.mixed, port.until) if port.mixed + jump > 0 else port.mixed

    def log_now(self):
        """The time of the log, from the event that every opening records."""
        opened = [event for event in read_journal(self.home / str(self.turn)) if event.kind == "opened"][-1]
        return opened.ts + self.clock.boot_ns() - opened.data["boot_ns"]

    @rule(ports=st.sampled_from(RANGES))
    def define(self, ports):
        """Leases and holds of ports that leave the ranges go on; a port that comes back finds its hold."""
        self.spec = PoolSpec("p", ports=ports, hold_s=HOLD)
        counts = self.call(self.manager.define, self.spec)
        held = [number for (_, number), port in self.model.items() if port.state != "FREE"]
        assert counts.retired == len([number for number in held if not self.inside(number)])

    def inside(self, number):
        return any(number in piece for piece in self.spec.ports)

    def gone(self, node, number):
        """Whether the port is none of the pool's any more: no call knows it."""
        return self.model[node, number].state == "FREE" and not self.inside(number)

    # ---- calls -------------------------------------------------------------------------------------------------

    def due(self, node):
        """What an `allocate` or a `sweep` notices first."""
        for port in (port for (at, _), port in self.model.items() if at == node):
            if port.state == "BLOCKED" and port.until is not None and port.until <= self.now + 1e-9:
                port.state, port.until, port.lease = "QUARANTINED", max(self.now + HOLD, port.floor), None
            elif port.state == "QUARANTINED" and port.until <= self.now + 1e-9:
                self.set_free(port)

    @staticmethod
    def set_free(port):
        port.state, port.owner, port.service, port.until, port.floor, port.mixed = "FREE", "", "", None, 0, 0

    def end(self, port):
        """A lease ends: a hold follows, or a block, if somebody else claims the port."""
        port.state, port.until = "QUARANTINED", max(self.now + HOLD, port.floor)
        port.mixed = port.mixed if port.mixed > self.now else 0
        place = next(place for place, found in self.model.items() if found is port)
        if self.claims.pop(place, ""):
            port.state, port.until, port.floor = "BLOCKED", None, port.until

    def take(self, port, owner, service, lease, *, floor, ttl_s=None):
        mixed = port.mixed if service == port.service else max(port.mixed, floor)
        place = next(place for place, found in self.model.items() if found is port)
        self.model[place] = Port("ALLOCATED", owner, service, None, lease, floor, mixed, ttl_s, self.now + (ttl_s or 0))
        self.leases.append(lease)

    def holder(self, owner, node):
        return next(
            (number for (at, number), port in self.model.items() if at == node and port.state == "ALLOCATED" and port.owner == owner), None
        )

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

    # ---- what a controller sees ----------------------------------------------------------------------------------

    @rule(
        nodes=st.sampled_from([("",), ("b",), NODES]),
        gone=st.sets(st.sampled_from(PORTS), max_size=3),
        stranger=st.none() | st.tuples(st.sampled_from(OWNERS), st.sampled_from(NODES), st.sampled_from(PORTS)),
        complete=st.sampled_from([True, True, False]),
        after=st.sampled_from([1, HOLD]),
        dry=st.sampled_from([False, False, True]),
        times=st.sampled_from([1, 4]),
    )
    def reconcile(self, nodes, gone, stranger, complete, after, dry, times):
        for _ in range(times):
            self.pass_time(after)
            self.look(nodes, gone, stranger, complete, dry)

    def look(self, nodes, gone, stranger, complete, dry):
        started = self.manager.now_ns
        held = {place: port for place, port in self.model.items() if port.state == "ALLOCATED"}
        claims = {(port.owner, *place) for place, port in held.items() if place[1] not in gone} | ({stranger} if stranger else set())
        live = [Sighting(owner, node, "p", number) for owner, node, number in claims]
        newer = {node for node in {*nodes, *(claim[1] for claim in claims)} if self.looked.get(node, 0) < started}
        astray = {claim[:2] for claim in claims if getattr(held.get(claim[1:]), "owner", None) != claim[0]}
        alive = {place for place, port in held.items() if (port.owner, place[0]) in astray or place in {claim[1:] for claim in claims}}
        leaked = {
            port.lease.token: place
            for place, port in held.items()
            if complete and place[0] in newer & {*nodes} and place not in alive and port.lease.since_ns < started
        }
        missed, released, breaker = self.count(held, alive, leaked, started)
        call = partial(self.manager.reconcile, Observation(nodes, live, started, complete=complete), leak_grace_s=HOLD)
        report = self.call(partial(call, dry_run=dry))
        assert {lease.token for lease in report.leaked} == leaked.keys()
        assert [lease.token for lease in report.released] == released
        assert report.breaker == breaker
        if dry:
            return
        self.missed, self.looked = missed, {**self.looked, **dict.fromkeys(newer, started)}
        for token in released:
            self.end(self.model[leaked[token]])
        self.judge(report, stranger, claims, newer, started)

    def count(self, held, alive, leaked, started):
        """The counts after this look, the one lease that is due (there are eight at most), and whether most are missing."""
        standing = {port.lease.token for place, port in held.items() if place not in alive}
        missed = {token: count for token, count in self.missed.items() if token in standing}
        for token in leaked:
            times, last = missed.get(token, (0, 0))
            if times == 0 or started - last >= HOLD * SECOND:
                missed[token] = times + 1, started
        if 2 * len(missed) > len(held):
            return dict.fromkeys(missed, (0, 0)), [], ("p",)
        return missed, sorted(token for token in leaked if missed[token][0] >= 3)[:1], ()

    def judge(self, report, stranger, claims, newer, started):
        """Where the stranger stands, if anywhere; who is unknown is adopted."""
        found = {each for name in ("unknown", "conflicts", "moved") for each in getattr(report, name)}
        if stranger is None:
            assert not found
            return
        owner, node, number = stranger
        port, elsewhere = self.model[node, number], self.holder(owner, node)
        if found:
            assert node in newer
            assert not (port.state == "ALLOCATED" and port.owner == owner)
        if report.unknown:
            assert port.state in {"FREE", "QUARANTINED"}
            assert elsewhere is None
            lease = self.call(partial(self.manager.adopt, "p", number, owner=owner, node=node))
            self.model[node, number] = Port("ALLOCATED", owner, "", None, lease, max(port.until or 0, port.floor))
            self.leases.append(lease)
        elif report.moved:
            assert port.state in {"FREE", "QUARANTINED"}
            assert (owner, node, elsewhere) not in claims
        elif report.conflicts:
            assert port.state in {"ALLOCATED", "BLOCKED"} or (owner, node, elsewhere) in claims
        elif node in newer and not (port.state == "ALLOCATED" and port.owner == owner):
            places = [place for place in (number, elsewhere) if place is not None]
            assert any((self.manager.port("p", place, node=node).since or 0) >= started for place in places)

    # ---- after every step ----------------------------------------------------------------------------------------

    @invariant()
    def views_agree(self):
        if not hasattr(self, "manager"):
            return
        for (node, number), port in self.model.items():
            if self.gone(node, number):
                continue
            view = self.manager.port("p", number, node=node)
            assert view.state.value == port.state, (node, number, view, port)
            if port.state == "ALLOCATED":
                assert (view.owner, view.service, view.token) == (port.owner, port.service, port.lease.token)
                assert self.manager.find(port.owner)
        for owner in OWNERS:
            held = {(lease.node, lease.port) for lease in self.manager.find(owner)}
            assert held == {place for place, port in self.model.items() if port.state == "ALLOCATED" and port.owner == owner}

    @invariant()
    def live_is_replayed(self):
        if hasattr(self, "manager"):
            assert self.manager.digest() == replay(read_journal(self.home / str(self.turn))).digest()


class TrioModel(ManagerModel):
    backend = "trio"


limits = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
TestManagerOnAsyncio = ManagerModel.TestCase
TestManagerOnAsyncio.settings = limits
TestManagerOnTrio = TrioModel.TestCase
TestManagerOnTrio.settings = limits
