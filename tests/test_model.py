"""The pure core against a naive model, and what must hold after every step whatever was asked.

The model is written from the contract's tables and knows nothing of columns, indexes, heaps or notes.
"""

from __future__ import annotations

import contextlib
import inspect
import random

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from portfsm import errors
from portfsm._decide import decide
from portfsm._dump import dump, load
from portfsm._index import Index
from portfsm._ledger import Ledger, apply_all
from portfsm._replay import replay
from portfsm.commands import (
    Adopt,
    Allocate,
    AllocateGroup,
    Block,
    Close,
    DefinePool,
    Free,
    Hold,
    Open,
    Release,
    ReleaseOwner,
    Renew,
    Sweep,
    Unblock,
    Withdraw,
)
from portfsm.specs import PoolSpec, Quota
from portfsm.values import Lease
from tests.group_model import SHAPES, TAILS, Groups, requests_of, shapes, tails

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


FRESH = {"state": "FREE", "owner": "", "service": "", "token": 0, "hold": 0, "end": None, "mixed": 0, "nth": 0} | {
    "ttl": None,
    "times": 0,
    "as": "",
}


class Model:
    """Rows are dicts {state, owner, service, token, hold, end}: `hold` ends a hold, `end` a block (None: never)."""

    def __init__(self):
        self.specs, self.rows = {}, {}

    def row(self, node, pool, port):
        return self.rows.setdefault((node, pool, port), dict(FRESH))

    def inside(self, pool, port):
        return any(port in piece for piece in self.specs[pool].ports)

    def known(self, pool, port, node):
        if not self.inside(pool, port) and self.row(node, pool, port)["state"] == "FREE":
            raise errors.PortOutOfRange("")
        return self.row(node, pool, port)

    def of(self, node, pool):
        return {port: row for (n, p, port), row in self.rows.items() if (n, p) == (node, pool)}

    def begin_hold(self, row, until, now):
        row.update(state="QUARANTINED", hold=max(until, row["hold"]), end=None)
        self.forget_mixture(row, now)
        if row["hold"] <= now:
            self.free(row)

    def forget_mixture(self, row, now):
        """What is over when an event concerns the port does not begin anew with a reboot."""
        row["mixed"] = row["mixed"] if row["mixed"] > now else 0

    def mix(self, row, service):
        """Another service takes a port within its hold: by its last owner's hand, or by an adopter's."""
        if service != row["service"]:
            row["mixed"] = max(row["mixed"], row["hold"])

    def free(self, row):
        row.update(state="FREE", owner="", service="", hold=0, end=None, mixed=0)

    def notice(self, row, hold, now):
        if row["state"] == "QUARANTINED" and row["hold"] <= now:
            self.free(row)
        elif row["state"] == "BLOCKED" and row["end"] is not None and row["end"] <= now:
            self.begin_hold(row, now + hold, now)

    def held(self, node, pool, owner):
        rows = self.of(node, pool).items()
        return next((port for port, row in rows if row["state"] == "ALLOCATED" and row["owner"] == owner and not row["nth"]), None)

    def choices(self, c, hold, now):
        """The ports this allocate may give (None: it holds one already), and whether they are a reuse."""
        if (held := self.held(c.node, c.pool, c.owner)) is not None:
            row = self.row(c.node, c.pool, held)
            if row["service"] != c.service or c.port not in (None, held) or row["ttl"] != c.ttl_s:
                raise errors.OwnerConflict("")
            return None, True
        self.check_quota(c)
        if c.port is not None and not self.inside(c.pool, c.port):
            raise errors.PortOutOfRange("")
        numbers = [n for piece in self.specs[c.pool].ports for n in piece if c.port in (None, n)]
        quarantined = {n: self.row(c.node, c.pool, n) for n in numbers if self.row(c.node, c.pool, n)["state"] == "QUARANTINED"}
        mine = [n for n, row in quarantined.items() if row["owner"] == c.owner]
        same = [n for n, row in quarantined.items() if c.service and row["service"] == c.service and row["mixed"] <= now]
        rows = {n: dict(self.row(c.node, c.pool, n)) for n in numbers}
        for row in rows.values():
            self.notice(row, hold, now)
        free = [n for n, row in rows.items() if row["state"] == "FREE"]
        if not (mine or same or free):
            raise (errors.PoolExhausted if c.port is None else errors.PortUnavailable)("")
        return mine or same or (self.above_the_band(c, free) if c.port is None else free), bool(mine or same)

    def above_the_band(self, c, free):
        """Of the free ports those that a pick without a number takes: the lowest ones of the pool come last."""
        numbers = [n for piece in self.specs[c.pool].ports for n in piece]
        return [n for n in free if n in numbers[self.specs[c.pool].static :]] or free

    def check_quota(self, c):
        """A service above its hard quota takes nothing, whatever there is."""
        held = sum(row["state"] == "ALLOCATED" and row["service"] == c.service for row in self.of(c.node, c.pool).values())
        for quota in self.specs[c.pool].quotas:
            if quota.service == c.service and held >= quota.hard:
                raise errors.QuotaExceeded("")


class Obedience:
    """Guarantee 3, read off the events alone: who may take over a port that was somebody else's."""

    def __init__(self):
        self.last = {}

    def see(self, event):
        place = (event.node, event.pool, event.port)
        owner, service, hold, token, mixed = self.last.get(place, ("", "", 0, 0, 0))
        if event.kind == "allocated":
            mine = event.owner == owner or (event.service and event.service == service and event.ts >= mixed)
            assert mine or event.ts >= hold, (
                f"{place} went from {owner}/{service} to {event.owner}/{event.service} {hold - event.ts} ns early"
            )
        if event.kind in ("allocated", "adopted"):
            assert event.token == event.seq > token
            mixed = max(mixed, hold) if event.service != service else mixed
            owner, service, token = event.owner, event.service, event.token
        if event.kind in ("released", "held", "unblocked"):
            assert event.until >= hold, "a hold was shortened"
            hold = event.until
        if event.kind == "freed":
            assert event.cause == "operator" or event.ts >= hold
            hold = mixed = 0  # an operator's word ends both
        self.last[place] = (owner, service, hold, token, mixed)


OWNERS = ("a", "b", "c", "d")
nodes = st.sampled_from(["", "n2"])
pools = st.sampled_from(["low", "old", "rnd", "now"])
owners = st.sampled_from(OWNERS)
services = st.sampled_from(["", "x", "y"])
numbers = st.sampled_from([100, 101, 102, 104, 100, 101, 98, 99, 103, 105, 106])
seconds = st.sampled_from([0.0, 0.5, 3.0, 10.0, 40.0])
ranges = st.sampled_from(["100-102,104", "100-101", "101-105", "103-106", "99,102", "98-99,103-104", "106"])
positions = st.integers(0, 30)
blocks = st.sampled_from([None, None, "in use"])
errnos = st.sampled_from([0, 98])
ttls = st.sampled_from([None, None, None, 30])
causes = st.sampled_from(["released", "released", "cancelled", "expired"])
orders = {"low": "lowest", "old": "longest-idle", "rnd": "random", "now": "lowest"}


class Core(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.ledger, self.model, self.obedience = Ledger(), Model(), Obedience()
        self.events, self.leases, self.commands = [], [], []
        self.now = START
        self.boot = 0
        self.focus = None

    # ------------------------------------------------------------------ one step

    def decide(self, ledger, command):
        before = ledger.digest()
        try:
            return decide(ledger, command, now_ns=self.now)
        except errors.CommandRejected as error:
            return error
        finally:
            assert ledger.digest() == before, "deciding changed the ledger"

    def run(self, command):
        """Decide on the live ledger and on a replayed one, apply, compare with the model; the events, or the refusal."""
        self.commands.append(command)
        outcome = self.outcome = self.decide(self.ledger, command)
        replayed = self.decide(replay(self.events), command)
        assert repr(outcome) == repr(replayed), "an index made afresh leads elsewhere"
        events = outcome if isinstance(outcome, tuple) else ()
        now = max(self.now, self.ledger.ts)
        try:
            self.expect(command, events, now)
            expected = None
        except errors.CommandRejected as error:
            expected = type(error)
        assert (type(outcome) if not isinstance(outcome, tuple) else None) is expected, (outcome, expected)
        if events:
            apply_all(self.ledger, events)
        self.events += events
        for event in events:
            if event.port:
                self.obedience.see(event)
            if event.kind in ("allocated", "adopted"):
                self.leases.append(Lease(event.pool, event.node, event.port, event.owner, event.service, event.token, event.ts))
        if not isinstance(command, Open | Close) and getattr(command, "for_s", None) != 0:
            again = self.decide(self.ledger, command)
            retired = isinstance(again, errors.PortOutOfRange) and isinstance(command, Free | Unblock)
            assert again == () or retired or not isinstance(outcome, tuple), f"a repeat led to {again}"
        return outcome

    def ask(self, command, pool, *port, node, **options):
        if self.focus is not None:
            pool, node = self.focus
        self.run(command(pool, *port, node=node, **options))

    # ------------------------------------------------------------------ what the contract expects

    def expect(self, command, events, now):
        model = self.model
        hold = 0
        if (name := getattr(command, "pool", None) or getattr(getattr(command, "lease", None), "pool", None)) is not None:
            hold = model.specs[name].hold_ms * 1_000_000
        match command:
            case Allocate():
                found, reuse = model.choices(command, hold, now)
                if found is None:
                    assert events == ()
                    return
                assert events, f"refused, though {found} were to be had"
                begun = events[-1]
                assert begun.data is None
                assert begun.kind == "allocated"
                assert begun.port in found
                if not reuse and model.specs[command.pool].order == "lowest":
                    assert begun.port == min(found)
                for port, row in model.of(command.node, command.pool).items():
                    if not (reuse and port == begun.port):
                        model.notice(row, hold, now)
                row = model.row(command.node, command.pool, begun.port)
                model.mix(row, command.service)
                row.update(state="ALLOCATED", owner=command.owner, service=command.service, token=begun.seq, ttl=command.ttl_s, nth=0)
                assert begun.until == (0 if command.ttl_s is None else begun.ts + command.ttl_s * SECOND)
            case AllocateGroup():
                Groups(model).expect(command, events, self.outcome, now)
            case Adopt():
                row = model.row(command.node, command.pool, command.port)
                held = model.held(command.node, command.pool, command.owner)
                if (row["state"], row["owner"], row["service"]) == ("ALLOCATED", command.owner, command.service):
                    return
                if held is not None or row["state"] == "ALLOCATED":
                    raise errors.OwnerConflict("")
                row["hold"] = max(row["hold"], now + hold if row["state"] == "BLOCKED" else 0)
                model.mix(row, command.service)
                row.update(state="ALLOCATED", owner=command.owner, service=command.service, token=events[-1].seq, end=None)
                row.update(ttl=None, times=0, nth=0)
            case Release():
                lease = command.lease
                row = model.row(lease.node, lease.pool, lease.port)
                self.expect_release(command, row, hold, now, last=self.last(lease, row))
            case Renew():
                row = model.row(command.lease.node, command.lease.pool, command.lease.port)
                assert events == ()
                if not self.last(command.lease, row) or row["state"] != "ALLOCATED":
                    raise errors.StaleLease("")
            case Withdraw():
                row = model.row(command.lease.node, command.lease.pool, command.lease.port)
                self.last(command.lease, row)
            case ReleaseOwner():
                for (node, pool, _), row in model.rows.items():
                    if row["state"] == "ALLOCATED" and row["owner"] == command.owner and command.node in (None, node):
                        row["times"] = 0
                        model.begin_hold(row, now + model.specs[pool].hold_ms * 1_000_000, now)
            case Block():
                row = model.known(command.pool, command.port, command.node)
                if row["state"] == "BLOCKED" and (row["end"] is None or row["end"] > now):
                    return
                if row["state"] == "BLOCKED":
                    row["hold"] = max(row["hold"], now + hold)
                self.block(row, command.for_s, now)
            case Unblock():
                row = model.known(command.pool, command.port, command.node)
                if row["state"] == "ALLOCATED":
                    raise errors.IllegalTransition("")
                if row["state"] == "BLOCKED":
                    model.begin_hold(row, now + hold, now)
            case Hold():
                row = model.known(command.pool, command.port, command.node)
                if row["state"] in ("ALLOCATED", "BLOCKED"):
                    raise errors.IllegalTransition("")
                until = now + round(command.hold_s * SECOND)
                if until > (row["hold"] if row["state"] == "QUARANTINED" else now):
                    row.update(state="QUARANTINED", hold=until)
                    model.forget_mixture(row, now)
            case Free():
                row = model.known(command.pool, command.port, command.node)
                if row["state"] in ("ALLOCATED", "BLOCKED"):
                    raise errors.IllegalTransition("")
                model.free(row)
            case Sweep():
                for (_, pool, _), row in model.rows.items():
                    model.notice(row, model.specs[pool].hold_ms * 1_000_000, now)
            case DefinePool():
                model.specs[command.spec.name] = command.spec
            case Open():
                self.expect_restart(events, now)

    def last(self, lease, row):
        """Whether the lease is the port's last one, or a refusal where the contract's table has one."""
        if lease.token > row["token"]:
            raise errors.InvalidValue("")
        if lease.token < row["token"] and row["state"] in ("FREE", "ALLOCATED"):
            raise errors.StaleLease("")
        return lease.token == row["token"]

    def expect_release(self, command, row, hold, now, *, last):
        gone = row["state"] == "FREE" and not self.model.inside(command.lease.pool, command.lease.port)
        if not last or row["state"] == "BLOCKED" or gone:
            return
        if command.block is not None:
            self.block_again(row, command, now)
        elif row["state"] == "ALLOCATED":
            row["times"] = 0 if command.cause == "released" else row["times"]
            self.model.begin_hold(row, now + (hold if command.cause != "cancelled" else 0), now)

    def block(self, row, for_s, now):
        row.update(state="BLOCKED", end=None if for_s is None else now + round(for_s * SECOND))
        self.model.forget_mixture(row, now)

    def block_again(self, row, command, now):
        """A finding that comes back lasts twice as long, up to a day; how often is counted until a lease ends well."""
        if command.for_s is not None:
            cause = "address-in-use" if command.errno else "holder" if command.cause == "released" else command.cause
            row.update(times=row["times"] + 1 if row["times"] and row["as"] == cause else 1)
            row["as"] = cause
        self.block(row, command.for_s and min(command.for_s * 2 ** (row["times"] - 1), 86_400), now)

    def expect_restart(self, events, now):
        """After another boot every quarantine lasts its full hold again; what it was is the machine's to know."""
        opened = next(event for event in events if event.kind == "opened")
        restarted = {(event.node, event.pool, event.port): event for event in events if event.kind == "held"}
        same = self.ledger.opened.get("boot") in (None, opened.data["boot"])
        quarantined = {place for place, row in self.model.rows.items() if row["state"] == "QUARANTINED"}
        assert set(restarted) == (set() if same else quarantined)
        for place, event in restarted.items():
            row = self.model.rows[place]
            assert event.cause == "reboot"
            assert event.until >= max(row["hold"], now + self.model.specs[place[1]].hold_ms * 1_000_000)
            row["hold"] = event.until
            row["mixed"] = row["mixed"] and max(row["mixed"], event.until)

    # ------------------------------------------------------------------ rules

    @initialize(focus=st.none() | st.tuples(pools, nodes))
    def begin(self, focus):
        """Most runs stay in one pool on one node, so that forty steps lead somewhere."""
        self.focus = focus
        self.open(other_boot=False)
        for name, order in orders.items():
            self.run(
                DefinePool(PoolSpec(name, ports="100-102,104", hold_s=0.0 if name == "now" else 10.0, order=order), seed=f"seed of {name}")
            )

    @rule(pool=pools, owner=owners, node=nodes, service=services, ttl_s=ttls)
    def allocate(self, pool, owner, node, service, ttl_s):
        self.ask(Allocate, pool, owner=owner, node=node, service=service, ttl_s=ttl_s)

    allocate_more = allocate

    @rule(pool=pools, owner=owners, node=nodes, service=services, shape=shapes, tail=tails)
    def allocate_group(self, pool, owner, node, service, shape, tail):
        if self.focus is not None:
            pool, node = self.focus
        self.run(AllocateGroup(requests_of(pool, owner, node, service, shape, tail)))

    @rule(pool=pools, owner=owners, node=nodes, service=services, port=numbers)
    def allocate_by_number(self, pool, owner, node, service, port):
        self.ask(Allocate, pool, owner=owner, node=node, service=service, port=port)

    @rule(which=positions, block=blocks, for_s=st.none() | seconds, cause=causes, errno=errnos)
    def release(self, which, block, for_s, cause, errno):
        """A lease that still holds, if there is one."""
        holding = [lease for owner in OWNERS for lease in self.ledger.find(owner)]
        if holding:
            self.run(Release(holding[which % len(holding)], block=block, for_s=for_s if block else None, cause=cause, errno=errno))

    release_more = release

    @rule(which=positions)
    def renew(self, which):
        """Whose lease it is may have changed."""
        if self.leases:
            self.run(Renew(self.leases[-1 - which % min(len(self.leases), 12)]))

    @rule(which=positions, block=blocks, for_s=st.none() | seconds, cause=causes)
    def release_late(self, which, block, for_s, cause):
        """Any lease there ever was: most are over and some stale."""
        if self.leases:
            lease = self.leases[-1 - which % min(len(self.leases), 12)]
            self.run(Release(lease, block=block, for_s=for_s if block else None, cause=cause))

    @rule(which=positions, ahead=st.sampled_from([0, 0, 0, 1000]))
    def withdraw(self, which, ahead):
        if self.leases:
            lease = self.leases[-1 - which % min(len(self.leases), 6)]
            self.run(Withdraw(Lease(lease.pool, lease.node, lease.port, lease.owner, lease.service, lease.token + ahead, lease.since_ns)))

    @rule(pool=pools, owner=owners, node=nodes, service=services, port=numbers)
    def adopt(self, pool, owner, node, service, port):
        self.ask(Adopt, pool, port, owner=owner, node=node, service=service)

    @rule(pool=pools, port=numbers, node=nodes, call=st.sampled_from([Hold, Free, Block, Unblock]), length=st.none() | seconds)
    def operate(self, pool, port, node, call, length):
        """The operator's hand."""
        options = {
            Hold: {"hold_s": length or 0.0},
            Free: {"reason": "asked for"},
            Block: {"reason": "broken", "for_s": length},
            Unblock: {},
        }
        self.ask(call, pool, port, node=node, **options[call])

    @rule(owner=owners, node=st.none() | nodes, everybody=st.booleans())
    def sweep_or_release_owner(self, owner, node, everybody):
        self.run(ReleaseOwner(owner, node=node) if everybody else Sweep())

    @rule(
        pool=pools, ports=ranges, hold_s=st.sampled_from([0.0, 2.0, 10.0, 60.0]), order=st.sampled_from(sorted(orders.values())),
        static=st.sampled_from([0, 0, 1, 2]), hard=st.sampled_from([None, None, 1, 2]),
    )  # fmt: skip
    def define(self, pool, ports, hold_s, order, static, hard):
        """While leases stand, holds run and ports drain: grown, shrunk, with holes, a band, a quota."""
        pool = pool if self.focus is None else self.focus[0]
        spec = PoolSpec(pool, ports=ports, hold_s=hold_s, order=order, quotas=[Quota("x", hard=hard)] if hard else [])
        self.run(DefinePool(attrs.evolve(spec, static=min(static, spec.size - 1)), seed="later"))

    @rule(other_boot=st.booleans())
    def open(self, other_boot):
        """A crash: memory is gone, the log is read again."""
        self.boot += other_boot
        self.ledger = replay(self.events)
        self.run(Open(self.ledger.epoch + 1, "test", str(self.boot), self.now, self.now))

    @rule(step=st.sampled_from([1, SECOND // 2, 2 * SECOND, 10 * SECOND, 100 * SECOND, -SECOND, -3600 * SECOND]))
    def time_passes(self, step):
        """Or is set back."""
        self.now = max(self.now + step, self.ledger.ts + min(step, 0))

    @rule(which=positions)
    def repeat(self, which):
        """A reply was lost, and the caller asks again, maybe much later."""
        command = self.commands[-1 - which % len(self.commands)]
        if not isinstance(command, Open):
            self.run(command)

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def live_equals_replayed_equals_reloaded(self):
        reloaded = Ledger()
        load(reloaded, list(dump(self.ledger)))
        assert self.ledger.digest() == replay(self.events).digest() == reloaded.digest()
        assert list(self.ledger.ports()) == list(reloaded.ports())
        assert self.ledger.statistics() == reloaded.statistics()

    @invariant()
    def machine_equals_model(self):
        held = {}
        for place, row in self.model.rows.items():
            if row["state"] != "FREE":
                until = {"QUARANTINED": row["hold"], "BLOCKED": row["end"]}.get(row["state"])
                held[place] = (row["state"], row["owner"], row["service"], row["token"], until)
        views = {(v.node, v.pool, v.port): (v.state.value, v.owner, v.service, v.token, v.until) for v in self.ledger.ports()}
        assert views == held
        for (node, name), pool in self.ledger.pools.items():
            for offset in pool.offsets():
                row = self.model.row(node, name, pool.base + offset)
                assert pool.note(offset).nth == (row["nth"] if row["state"] == "ALLOCATED" else 0)

    @invariant()
    def counts_add_up(self):
        for (node, name), pool in self.ledger.pools.items():
            counts = self.ledger.statistics(name, node=node)
            views = list(self.ledger.ports(name, node=node))
            inside = [view.state.value for view in views if pool.in_range(view.port)]
            assert counts.size == counts.free + counts.allocated + counts.quarantined + counts.blocked == pool.spec.size
            assert (counts.allocated, counts.quarantined, counts.blocked) == tuple(
                map(inside.count, ("ALLOCATED", "QUARANTINED", "BLOCKED"))
            )
            assert counts.retired == len(views) - len(inside)

    @invariant()
    def one_port_an_owner(self):
        """One for each index, and the index that finds them agrees with one made afresh."""
        for owner in OWNERS:
            places = [
                (lease.node, lease.pool, self.model.row(lease.node, lease.pool, lease.port)["nth"]) for lease in self.ledger.find(owner)
            ]
            assert len(places) == len(set(places))
            for pool in self.ledger.pools.values():
                assert pool.index is None or pool.index.held(owner) == Index(pool).held(owner)
            for lease in self.ledger.find(owner):
                ttl_s = self.model.row(lease.node, lease.pool, lease.port)["ttl"]
                assert lease.expires_ns == (None if ttl_s is None else lease.since_ns + ttl_s * SECOND)
                with contextlib.suppress(errors.PortOutOfRange):
                    assert self.ledger.port(lease.pool, lease.port, node=lease.node).owner == owner


TestCore = Core.TestCase
TestCore.settings = settings(stateful_step_count=40)

WEIGHTS = {
    "allocate": 40, "allocate_group": 12, "allocate_by_number": 6, "release": 30, "release_late": 8, "withdraw": 4, "adopt": 6, "operate": 14,
    "renew": 4, "sweep_or_release_owner": 3, "define": 2, "open": 2, "time_passes": 30, "repeat": 6,
}  # fmt: skip


@pytest.mark.parametrize("order", sorted(orders))
@pytest.mark.parametrize("seed", range(6))
def test_a_long_walk_obeys_the_contract(seed, order):
    """Two months without a test, then eleven examples (ray-project/ray#61491).

    Draws shrink well but stay short; a plain walk goes far: one small pool, ports taken, left and taken again.
    """
    dice = random.Random(f"{seed} {order}")
    choices = {
        "pool": [order], "node": [""], "owner": OWNERS, "service": ["", "x", "y"], "port": [100, 101, 102, 104, 99, 103],
        "which": range(30), "block": [None, None, None, "in use"], "for_s": [None, 0.0, 3.0, 40.0], "length": [None, 0.0, 3.0, 40.0],
        "cause": ["released", "released", "cancelled"], "errno": [0, 98], "ahead": [0, 0, 0, 1000], "call": [Hold, Hold, Free, Block, Unblock],
        "everybody": [True, False], "ports": ["100-102,104", "100-102,104", "101-105", "99,102", "100-101"],
        "shape": SHAPES, "tail": TAILS, "hold_s": [0.0, 2.0, 10.0, 60.0], "order": [orders[order]], "other_boot": [True, False],
        "static": [0, 1, 2], "hard": [None, None, 1, 2], "ttl_s": [None, None, None, 30],
        "step": [1, SECOND // 2, SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, -SECOND],
    }  # fmt: skip
    core = Core()
    core.begin((order, ""))
    for step in range(250):
        rule_name = dice.choices(list(WEIGHTS), WEIGHTS.values())[0]
        method = getattr(core, rule_name)
        wanted = inspect.signature(method).parameters
        method(**{name: dice.choice(choices[name]) for name in wanted})
        for check in (core.machine_equals_model, core.counts_add_up, core.one_port_an_owner):
            check()
        if step % 10 == 0:
            core.live_equals_replayed_equals_reloaded()
