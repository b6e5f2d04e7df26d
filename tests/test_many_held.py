"""Tens of thousands of ports held back: a pool that has none to give says so as fast as a small one.

AWS #3634 and the ports of Ray #64021 are thousands of identifiers that cool down at once, asked for all the while by those who retry.
What is counted here is work, not time: lines of ours that run, and entries of a heap that are looked at.
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress

import pytest

from portfsm import PoolSpec
from portfsm._forecast import next_free_at, rate_of
from portfsm._index import Index
from portfsm._pool import QUARANTINED
from portfsm._pressure import is_pressed, next_relief, pressure_fault
from portfsm.commands import Adopt, Allocate, AllocateGroup, Block, DefinePool, Free, Hold, Release, ReleaseOwner, Sweep, Unblock
from portfsm.errors import CommandRejected, PoolExhausted
from portfsm.groups import Request

FEW, MANY = 50, 5_000
POLICIES = {
    "plain": {},
    "pressed": {"held_max": 0.1, "on_pressure": "free-earliest", "floor_s": 90.0},
    "in the order of rest": {"order": "longest-idle"},
    "with a band": {"static": 3},
}


def lines_of(call):
    """How many lines of Python run during `call`, which may be refused."""
    count = 0

    def line(frame, what, argument):
        nonlocal count
        count += what == "line"
        return line

    before = sys.gettrace()
    sys.settrace(lambda frame, what, argument: line)
    try:
        with suppress(CommandRejected):
            call()
    finally:
        sys.settrace(before)
    return count


def held(empty, count, **policy):
    """A pool of `count` ports, all of them quarantined for service `s`, released one after the other."""
    empty.do(DefinePool(PoolSpec("p", ports=f"10000-{9999 + count}", hold_s=100.0, **policy), seed="s"))
    leases = [empty.allocate(f"r{number}", service="s") for number in range(count)]
    for lease in leases:
        empty.now += 1_000
        empty.release(lease)
    empty.now += 1_000
    return empty


def work(make_world, count, command, **policy):
    """Lines that one more decision takes once the first has made what it needs, while ports are taken and given back in between."""
    world = held(make_world(), count, **policy)
    for number in range(3):
        with suppress(CommandRejected):
            world.decide(command)
        world.release(world.allocate(f"again{number}", service="s"))
    return lines_of(lambda: world.decide(command))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_refusal_that_walks_all_that_is_held_back(empty, policy):
    few, many = (work(type(empty), count, Allocate("p", owner="x"), **policy) for count in (FEW, MANY))
    assert many < few + 60


def test_a_refused_group_that_walks_all_that_is_held_back(empty):
    wanted = AllocateGroup([Request("p", "x", count=2)])
    few, many = (work(type(empty), count, wanted) for count in (FEW, MANY))
    assert many < few + 60


def test_a_service_that_sorts_all_its_ports_to_get_one_back(empty):
    """Each restart of one of its replicas would have cost the order of all that it ever released within a hold."""
    few, many = (work(type(empty), count, Allocate("p", owner="x", service="s")) for count in (FEW, MANY))
    assert many < few + 60
    world = held(type(empty)(), FEW)
    index = world.ledger.pool("p", "").index

    class Counted(list):
        looks = 0

        def __getitem__(self, place):
            self.looks += 1
            return super().__getitem__(place)

        def __iter__(self):
            self.looks += len(self)
            return super().__iter__()

    heap = index.by_service["s"] = Counted(index.by_service["s"])
    assert world.decide(Allocate("p", owner="x", service="s"))[0].port == 9999 + FEW
    assert heap.looks < 6


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("policy", ["refuse", "free-earliest"])
def test_an_order_kept_in_step_that_says_other_than_the_rows(empty, policy, seed):
    """After every step of a walk: the rate, the next free port and the next relief, from the index and by a look at every row."""
    dice = random.Random(f"{seed} {policy}")

    def define():
        ports, hold_s = dice.choice(["100-109", "100-105,108", "98-104"]), dice.choice([2.0, 5.0])
        spec = PoolSpec("p", ports=ports, hold_s=hold_s, floor_s=dice.choice([0.5, 1.0, 2.0]), on_pressure=policy, held_max=0.2)
        empty.do(DefinePool(spec, seed="s"))

    define()
    number = 0
    for _ in range(400):
        number += 1
        port, owner = dice.randrange(98, 111), f"r{dice.randrange(12)}"
        living = [lease for each in range(12) for lease in empty.ledger.find(f"r{each}")]
        command = dice.choice(
            [
                Allocate("p", owner=owner, service=dice.choice("xy")), Allocate("p", owner=owner), Allocate("p", owner=f"new{number}"),
                AllocateGroup([Request("p", owner, count=2)]), Adopt("p", port, owner=owner), ReleaseOwner(owner), ReleaseOwner(f"new{number - 1}"),
                Hold("p", port, hold_s=dice.choice([0.5, 4.0])), Free("p", port, reason="r"), Unblock("p", port), Sweep(),
                Block("p", port, reason="r", for_s=dice.choice([None, 1.0, 6.0])),
                *(Release(lease, cause=dice.choice(["released", "cancelled"])) for lease in living[:3]),
            ]
        )  # fmt: skip
        with suppress(CommandRejected):
            empty.do(command)
        if dice.random() < 0.03:
            define()
        if dice.random() < 0.5:
            empty.pass_time(dice.choice([0.0, 0.3, 1.0]))
        pool = empty.ledger.pools.get(("", "p"))
        if pool is None or dice.random() < 0.3:
            continue
        pool.index = pool.index or Index(pool)
        rows = pool.copy()
        assert rate_of(pool, empty.now) == rate_of(rows, empty.now)
        assert next_free_at(pool, empty.now) == next_free_at(rows, empty.now)
        inside = [each for each in rows.offsets(states=bytes((QUARANTINED,))) if each not in rows.outside]
        soon = [rows.evidence_frees_at(each) for each in inside if rows.evidence_frees_at(each) > empty.now]
        relieves = policy == "free-earliest" and is_pressed(pool)
        assert next_relief(pool, empty.now) == (min(soon, default=None) if relieves else None)
        ready = [each for each in inside if not pressure_fault(rows, each, empty.now)]
        first = pool.index.by_relief(pool, empty.now).earliest(pool, empty.now)
        assert policy == "refuse" or first == min(ready, key=lambda each: (rows.until[each], each), default=-1)


def test_a_look_back_that_is_answered_from_what_was_forgotten(empty):
    world = held(empty, FEW)
    pool = world.ledger.pool("p", "")
    times = [world.now, world.now + 100_000_020_000, world.now + 50_000_000_000, world.now]
    for now_ns in times:
        assert rate_of(pool, now_ns) == rate_of(pool.copy(), now_ns)
        assert pool.index.by_relief(pool, now_ns).next(pool, now_ns) is None or pool.spec.floor_s
    with pytest.raises(PoolExhausted):
        world.decide(Allocate("p", owner="x"))
