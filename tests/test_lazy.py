"""Time changes nothing by itself: what is due is noticed by an allocate or a sweep, in bounded steps."""

from __future__ import annotations

import pytest

from portfsm import _choice
from portfsm.commands import Allocate, Block, Hold, ReleaseOwner, Sweep
from portfsm.errors import PoolExhausted, PortUnavailable

SECOND = 1_000_000_000


def test_a_hold_that_ends_by_itself(world):
    world.release(world.allocate("a"))
    world.pass_time(3600)
    assert world.state(100) == "QUARANTINED"
    assert world.ledger.port("p", 100).until < world.now
    assert world.do(Sweep()) == ["freed"]
    assert world.state(100) == "FREE"
    assert world.ledger.port("p", 100).owner == ""


def test_a_port_given_a_nanosecond_early(empty):
    empty.define(ports="100")
    empty.release(empty.allocate("a"))
    empty.now = empty.ledger.port("p", 100).until - 1
    with pytest.raises(PoolExhausted):
        empty.decide(Allocate("p", owner="b"))
    with pytest.raises(PortUnavailable):
        empty.decide(Allocate("p", owner="b", port=100))
    empty.now += 1
    assert empty.do(Allocate("p", owner="b")) == ["freed", "allocated"]


def test_an_allocate_that_leaves_due_ports_unnoticed(world):
    for owner in "abc":
        world.allocate(owner)
    world.do(Block("p", 100, reason="r", for_s=5))
    world.release(world.ledger.find("b")[0])
    world.do(Block("p", 103, reason="for ever"))
    world.pass_time(20)
    assert world.do(Allocate("p", owner="x")) == ["unblocked", "freed", "allocated"]
    assert [world.state(port) for port in range(100, 104)] == ["QUARANTINED", "ALLOCATED", "ALLOCATED", "BLOCKED"]
    assert [event.cause for event in world.events[-3:]] == ["elapsed", "elapsed", ""]


def test_a_block_whose_end_makes_a_port_free_without_a_hold(empty):
    empty.define(ports="100")
    empty.do(Block("p", 100, reason="r", for_s=5))
    empty.pass_time(5)
    with pytest.raises(PoolExhausted):
        empty.decide(Allocate("p", owner="a"))
    assert empty.do(Sweep()) == ["unblocked"]
    assert empty.ledger.port("p", 100).until == empty.now + 10 * SECOND


@pytest.mark.parametrize("port", [None, 100])
def test_a_block_that_ends_in_a_pool_without_holds(empty, port):
    empty.define(ports="100", hold_s=0.0)
    empty.do(Block("p", 100, reason="r", for_s=5))
    empty.pass_time(5)
    assert empty.do(Allocate("p", owner="a", port=port)) == ["unblocked", "freed", "allocated"]


def test_one_allocate_that_frees_a_thousand(empty):
    empty.define(ports="1000-1999")
    for number in range(1000):
        empty.allocate(f"o{number}")
    for number in range(1000):
        empty.do(ReleaseOwner(f"o{number}"))
        empty.pass_time(0.001)
    empty.pass_time(60)
    kinds = empty.do(Allocate("p", owner="x"))
    assert kinds == ["freed"] * _choice.DRAIN_LIMIT + ["allocated"]
    freed = [event.port for event in empty.events[-len(kinds) : -1]]
    assert freed == list(range(1000, 1000 + _choice.DRAIN_LIMIT)), "those that ended first"
    assert empty.do(Allocate("p", owner="y", port=1900))[-1] == "allocated"


@pytest.mark.parametrize("hindrance", ["blocks that end", "ports that retire"])
def test_a_free_port_hidden_behind_many_that_are_due(empty, hindrance):
    """What is due first becomes no free port; the one that does must still be found."""
    empty.define(ports="1000-1300")
    for number in range(200):
        lease = empty.allocate(f"o{number}")
        if hindrance == "blocks that end":
            empty.release(lease, block="r", for_s=5)
        else:
            empty.release(lease)
    empty.pass_time(1)
    if hindrance == "ports that retire":
        empty.define(ports="1200-1300")
    for number in range(101):
        empty.release(empty.allocate(f"p{number}"))
    empty.pass_time(3600)
    assert empty.do(Allocate("p", owner="x"))[-1] == "allocated"
    assert empty.events[-1].port >= 1200
    assert empty.replayed().digest() == empty.ledger.digest()


def test_a_sweep_without_end(empty):
    """A batch is bounded; what is left is swept by the next one."""
    empty.define(ports="1000-6999", hold_s=1.0)
    for number in range(6000):
        empty.do(Hold("p", 1000 + number, hold_s=1))
    empty.pass_time(2)
    assert [len(empty.do(Sweep())) for _ in range(3)] == [4096, 1904, 0]


def test_a_sweep_of_one_pool_or_node_that_reaches_others(world):
    world.define("q", ports="200")
    for pool, node in (("p", ""), ("p", "n"), ("q", "")):
        world.release(world.allocate("a", pool, node=node))
    world.pass_time(60)
    assert world.do(Sweep(pool="p", node="n")) == ["freed"]
    assert (world.events[-1].node, world.events[-1].pool) == ("n", "p")
    assert len(world.do(Sweep())) == 2


def test_a_clock_set_back_that_frees_early_or_records_time_going_back(world):
    world.release(world.allocate("a"))
    released = world.events[-1]
    world.pass_time(-7200)
    world.do(Sweep())
    assert world.state(100) == "QUARANTINED"
    world.do(Block("p", 101, reason="r", for_s=1))
    assert world.events[-1].ts == released.ts
    assert world.events[-1].until == released.ts + SECOND


@pytest.mark.parametrize("now", [0, -1])
def test_a_clock_at_the_dawn_of_time_that_makes_a_port_look_unused(empty, now):
    empty.now = now
    empty.define()
    empty.allocate("a")
    assert [view.port for view in empty.ledger.ports()] == [100]
    assert empty.ledger.port("p", 100).since == 1
