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
from tests.core_expectations import Expectations
from tests.core_model import SECOND, Model, Obedience
from tests.group_model import SHAPES, TAILS, requests_of, shapes, tails

START = 1_700_000_000 * SECOND

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


class Core(Expectations, RuleBasedStateMachine):
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
