"""How a lease, a hold and a block end, and that none of them ends earlier than an earlier one allows."""

from __future__ import annotations

import pytest

from portfsm.commands import Adopt, Allocate, Block, Free, Hold, ReleaseOwner, Sweep, Unblock
from portfsm.errors import PoolExhausted, PortUnavailable

SECOND = 1_000_000_000


# ---------------------------------------------------------------------- ending a lease


def test_a_release_that_frees_at_once(world):
    lease = world.allocate("a", service="s")
    assert world.release(lease) == ["released"]
    event = world.events[-1]
    assert (event.owner, event.service, event.token, event.cause) == ("a", "s", lease.token, "released")
    assert (event.hold_ms, event.until) == (10_000, world.now + 10 * SECOND)
    view = world.ledger.port("p", lease.port)
    assert (view.state.value, view.owner, view.service, view.until) == ("QUARANTINED", "a", "s", event.until)


def test_a_pool_without_holds_that_is_freed_in_two_steps(empty):
    empty.define(hold_s=0.0)
    lease = empty.allocate("a")
    assert empty.release(lease) == ["released", "freed"]
    empty.do(Block("p", 100, reason="r"))
    assert empty.do(Unblock("p", 100)) == ["unblocked", "freed"]


def test_a_cancelled_call_that_costs_the_pool_a_port(world):
    lease = world.allocate("a")
    assert world.release(lease, cause="cancelled") == ["released", "freed"]
    assert world.state(lease.port) == "FREE"


@pytest.mark.parametrize("cause", ["cancelled", "released", "expired"])
@pytest.mark.parametrize("hold_s", [0.0, 1.0])
def test_an_earlier_hold_that_a_short_second_lease_cuts_off(world, cause, hold_s):
    """Traffic meant for the first holder does not end because a second one of the same service came and went."""
    world.release(world.allocate("a", service="s"))
    until = world.ledger.port("p", 100).until
    world.define(hold_s=hold_s)
    world.pass_time(2)
    second = world.allocate("b", service="s")
    assert second.port == 100
    assert world.release(second, cause=cause) == ["released"]
    assert world.ledger.port("p", 100).until == until
    assert world.events[-1].hold_ms == 8000


def test_an_earlier_hold_that_a_short_block_cuts_off(world):
    world.do(Hold("p", 100, hold_s=3600))
    until = world.ledger.port("p", 100).until
    world.do(Block("p", 100, reason="r", for_s=1))
    world.pass_time(2)
    assert world.do(Sweep()) == ["unblocked"]
    assert (world.state(100), world.ledger.port("p", 100).until) == ("QUARANTINED", until)


def test_an_earlier_hold_that_a_block_in_a_pool_without_holds_cuts_off(empty):
    empty.define(ports="100", hold_s=0.0)
    empty.do(Hold("p", 100, hold_s=60))
    empty.do(Block("p", 100, reason="r", for_s=1))
    empty.pass_time(2)
    for port in (None, 100):
        with pytest.raises((PoolExhausted, PortUnavailable)):
            empty.decide(Allocate("p", owner="a", port=port))
    assert empty.do(Unblock("p", 100)) == ["unblocked"]


def test_an_earlier_hold_that_an_adoption_from_a_block_cuts_off(world):
    world.do(Hold("p", 100, hold_s=3600))
    until = world.ledger.port("p", 100).until
    world.do(Block("p", 100, reason="r"))
    world.do(Adopt("p", 100, owner="a"))
    world.release(world.ledger.find("a")[0])
    assert world.ledger.port("p", 100).until == until


def test_a_block_that_keeps_its_former_holder_a_secret_from_the_log(world):
    lease = world.allocate("a", service="s")
    world.do(Block("p", 100, reason="broken", for_s=30))
    event = world.events[-1]
    assert (event.owner, event.service, event.token, event.reason, event.cause) == ("a", "s", lease.token, "broken", "operator")
    view = world.ledger.port("p", 100)
    assert (view.owner, view.service, view.reason, view.until) == ("a", "s", "broken", world.now + 30 * SECOND)
    assert not world.ledger.find("a")


def test_a_block_that_ends_and_still_counts_against_the_next_one(world):
    world.do(Block("p", 100, reason="first", for_s=5))
    assert world.do(Block("p", 100, reason="second")) == []
    assert world.ledger.port("p", 100).reason == "first"
    world.pass_time(5)
    assert world.do(Block("p", 100, reason="second")) == ["unblocked", "blocked"]
    assert [event.cause for event in world.events[-2:]] == ["elapsed", "operator"]
    view = world.ledger.port("p", 100)
    assert (view.state.value, view.reason, view.until) == ("BLOCKED", "second", None)


@pytest.mark.parametrize("ports", ["100-103", "101-103"], ids=["inside", "outside by now"])
def test_a_second_block_in_a_pool_without_holds_that_passes_through_free(empty, ports):
    """Outside the ranges it would retire on the way, and the block could not happen to it."""
    empty.define(hold_s=0.0)
    empty.do(Block("p", 100, reason="first", for_s=5))
    empty.define(hold_s=0.0, ports=ports)
    empty.pass_time(5)
    assert empty.do(Block("p", 100, reason="second")) == ["unblocked", "blocked"]
    assert empty.replayed().digest() == empty.ledger.digest()


def test_a_last_owner_that_is_forgotten_over_a_block(world):
    """After the block the same service may have it back within the hold, and nobody else."""
    world.release(world.allocate("a", service="s"), block="in use", for_s=1)
    world.pass_time(1)
    world.do(Sweep())
    with pytest.raises(PortUnavailable):
        world.decide(Allocate("p", owner="b", service="t", port=100))
    assert world.do(Allocate("p", owner="b", service="s", port=100)) == ["allocated"]


def test_an_owner_released_in_half(world):
    world.define("q", ports="200")
    for pool, node in (("p", ""), ("p", "n"), ("q", "")):
        world.allocate("a", pool, node=node)
    world.allocate("b")
    assert world.do(ReleaseOwner("a", node="n")) == ["released"]
    assert world.do(ReleaseOwner("a")) == ["released", "released"]
    assert world.do(ReleaseOwner("a")) == []
    assert len(world.ledger.find("b")) == 1


# ---------------------------------------------------------------------- the operator's hand


def test_a_hold_that_is_not_rounded_up(world):
    world.do(Hold("p", 100, hold_s=0.0001))
    assert (world.events[-1].hold_ms, world.events[-1].until) == (1, world.now + 1_000_000)


def test_a_word_of_the_operator_that_is_not_recorded(world):
    world.release(world.allocate("a"))
    world.do(Hold("p", 100, hold_s=60, reason="load balancer is slow"))
    assert world.ledger.port("p", 100).reason == "load balancer is slow"
    world.do(Free("p", 100, reason="checked by hand"))
    event = world.events[-1]
    assert (event.kind, event.cause, event.reason) == ("freed", "operator", "checked by hand")
    world.do(Block("p", 101, reason="r"))
    world.do(Unblock("p", 101, reason="repaired"))
    assert (world.events[-1].cause, world.events[-1].reason, world.events[-1].hold_ms) == ("operator", "repaired", 10_000)


def test_a_held_port_that_remembers_a_last_owner_it_never_had(world):
    world.do(Hold("p", 100, hold_s=60))
    view = world.ledger.port("p", 100)
    assert (view.owner, view.service, view.token) == ("", "", 0)
    assert world.allocate("a").port == 101
