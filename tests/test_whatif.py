"""A log lived once more: the same under the same policy, and what another one would have done to it."""

from __future__ import annotations

import random

import pytest

from portfsm._whatif import Change, what_if
from portfsm.commands import Block, Clear, Free, Hold, Join, Open, Release, Sweep, Unblock
from portfsm.errors import InvalidValue, PoolExhausted, UnknownPool

SECOND = 1_000_000_000


def walk(world, *, seed, order="lowest", proxies=()):
    """A pool's life: owners come and go, operators and proxies do what they do."""
    dice = random.Random(seed)
    world.do(Open(1, "h", "boot", 1, 1))
    world.define(ports="100-119", hold_s=10.0, order=order, seed="s")
    for proxy in proxies:
        world.do(Join(proxy))
    for number in range(300):
        living = [view for view in world.ledger.ports() if view.state.value == "ALLOCATED"]
        held = [view.port for view in world.ledger.ports() if view.state.value == "QUARANTINED"]
        world.now += 1  # no two calls happen at once
        step = dice.choice("aaaaarrrrrtttthbufw")
        if step == "a":
            try:
                world.allocate(f"o{number}", service=dice.choice(["", "x", "y"]))
            except PoolExhausted:
                world.do(Sweep())
        elif step == "r" and living:
            world.release(world.ledger.find(dice.choice(living).owner)[0], **dice.choice([{}, {}, {}, {"block": "r", "for_s": 5.0}]))
        elif step == "t":
            world.pass_time(dice.choice([0.5, 2, 6]))
        elif step in "hf" and held:
            world.do(Hold("p", dice.choice(held), hold_s=30) if step == "h" else Free("p", dice.choice(held), reason="r"))
        elif step == "w" and held and proxies:
            world.do(Clear("p", dice.choice(held), reason="all clear"))
        elif step == "b":
            free = [port for port in range(100, 120) if world.state(port) == "FREE"]
            world.do(Block("p", dice.choice(free or [100]), reason="r")) if free else None
        elif step == "u":
            for view in [view for view in world.ledger.ports() if view.state.value == "BLOCKED"][:1]:
                world.do(Unblock("p", view.port))
        if number == 150:
            world.ledger = world.replayed()
            world.do(Open(2, "h", "another boot", 1, 1))


@pytest.mark.parametrize("proxies", [(), ("edge",)], ids=["time", "proxies"])
@pytest.mark.parametrize("order", ["lowest", "longest-idle"])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_policy_that_leads_elsewhere(empty, seed, order, proxies):
    """Whatever the log holds, a reboot and an operator's hand included: nobody waits, and each port goes to whom it went."""
    walk(empty, seed=seed, order=order, proxies=proxies)
    outcome = what_if(empty.events, Change(hold_s=10.0))
    assert outcome.allocations > 30
    assert (outcome.waits, outcome.closer, outcome.skipped) == ([], [], 0)
    assert outcome.planned == outcome.recorded


def test_an_allocation_that_would_have_waited_is_missed(world):
    """Four ports, one release a second: a hold of ten seconds leaves nothing to the fifth."""
    world.define(hold_s=2.0)
    for number in range(6):
        world.release(world.allocate(f"o{number}"))
        world.pass_time(1)
    outcome = what_if(world.events, Change(hold_s=10.0))
    fifth, sixth = outcome.waits
    assert (fifth.event.owner, fifth.waited_ns) == ("o4", None), "it ended as soon as it had begun"
    assert (sixth.event.owner, sixth.waited_ns) == ("o5", None)
    assert what_if(world.events, Change(hold_s=4.0)).waits == []


def test_a_wait_of_the_wrong_length(world):
    world.define(hold_s=2.0)
    for number in range(4):
        world.release(world.allocate(f"o{number}"))
        world.pass_time(1)
    for number in range(2):
        world.allocate(f"late {number}")
    world.pass_time(100)
    world.allocate("last")
    first, second = what_if(world.events, Change(hold_s=10.0)).waits
    assert (first.event.owner, first.waited_ns) == ("late 0", 6 * SECOND)
    assert (second.event.owner, second.waited_ns) == ("late 1", 7 * SECOND), "first come, first served"


def test_who_waits_at_the_end_of_the_log_is_forgotten(world):
    world.define(hold_s=0.0)
    world.release(world.allocate("a"))
    for owner in "bcde":
        world.allocate(owner)
    (wait,) = what_if(world.events, Change(hold_s=10.0)).waits
    assert (wait.event.owner, wait.waited_ns) == ("e", None)


def test_a_reuse_that_comes_sooner_goes_unseen(world):
    world.define(hold_s=10.0)
    world.release(world.allocate("a"))
    world.pass_time(3)
    world.allocate("b")
    (reuse,) = what_if(world.events, Change(hold_s=2.0)).closer
    assert (reuse.event.owner, reuse.port, reuse.gap_ns) == ("b", 100, 3 * SECOND)
    assert (reuse.event.port, reuse.recorded_gap_ns) == (101, None)
    assert what_if(world.events, Change(hold_s=4.0)).closer == []


def test_a_services_own_port_called_a_strangers(world):
    world.release(world.allocate("a", service="s"))
    world.allocate("b", service="s")
    outcome = what_if(world.events, Change(hold_s=0.0))
    assert (outcome.closer, outcome.planned.gaps_ns) == ([], [])


def test_an_order_that_changes_nothing(world):
    """`longest-idle` spreads what `lowest` keeps together."""
    world.define(ports="100-119", hold_s=2.0)
    for number in range(60):
        world.release(world.allocate(f"o{number}"))
        world.pass_time(1)
    outcome = what_if(world.events, Change(order="longest-idle"))
    assert (len(outcome.recorded.ports), len(outcome.planned.ports)) == (2, 20)
    assert min(outcome.recorded.gaps_ns) == 2 * SECOND
    assert min(outcome.planned.gaps_ns) == 20 * SECOND
    assert outcome.closer == []


def test_evidence_that_a_longer_hold_outlasts(world):
    """Where the proxies had let go, a hold of any length is over."""
    world.do(Join("edge"))
    world.define(ports="100", hold_s=10.0)
    lease = world.allocate("a")
    world.release(lease)
    world.pass_time(1)
    world.do(Clear("p", 100, reason="edge"))
    world.pass_time(1)
    world.allocate("b")
    assert what_if(world.events, Change(hold_s=3600.0)).waits == []


def test_a_smaller_pool_that_seems_to_do(world):
    for owner in "abcd":
        world.allocate(owner)
    assert [wait.event.owner for wait in what_if(world.events, Change(ports="100-102")).waits] == ["d"]


def test_another_pool_that_changes_too(world):
    world.define("q", ports="200", hold_s=0.0)
    for pool in ("p", "q"):
        world.release(world.allocate("a", pool))
        world.allocate("b", pool)
    assert what_if(world.events, Change("p", hold_s=60.0)).waits == []
    assert [wait.event.pool for wait in what_if(world.events, Change(hold_s=60.0)).waits] == ["q"]
    assert [wait.event.pool for wait in what_if(world.events, Change("q", hold_s=60.0)).waits] == ["q"]


def test_an_operators_block_that_ends_a_strangers_lease(world):
    """In the plan the number is somebody's: the block is left out and said to be."""
    world.define(hold_s=0.0, order="lowest")
    world.release(world.allocate("a"))
    world.allocate("b")
    world.do(Block("p", 101, reason="r"))
    outcome = what_if(world.events, Change(hold_s=60.0))
    assert (outcome.skipped, outcome.waits) == (1, [])


def test_a_lease_that_ended_in_a_block_goes_on(world):
    world.do(Release(world.allocate("a"), block="in use"))
    for owner in "bcd":
        world.allocate(owner)
    assert what_if(world.events, Change(hold_s=5.0)).waits == []
    assert what_if([event for event in world.events if event.kind != "freed"], Change(ports="100-102")).waits[0].event.owner == "d"


@pytest.mark.parametrize("change", [{"hold_s": -1.0}, {"ports": "0-5"}, {"order": "highest"}])
def test_a_policy_that_no_pool_can_have(world, change):
    with pytest.raises(InvalidValue) as caught:
        what_if(world.events, Change(**change))
    assert caught.value.name in change


def test_a_pool_that_the_log_does_not_know(world):
    with pytest.raises(UnknownPool, match="defined: p"):
        what_if(world.events, Change("nope", hold_s=1.0))


def test_one_who_waits_is_overtaken(empty):
    """Nobody overtakes, not even a service whose own port lies there: as in the manager's queue."""
    empty.define(ports="100-103", hold_s=0.0)
    empty.release(empty.allocate("a", service="s"))
    for owner, service in (("d", ""), ("b", ""), ("c", "s")):
        empty.allocate(owner, service=service)
    assert [wait.event.owner for wait in what_if(empty.events, Change(hold_s=10.0, ports="100-101")).waits] == ["b", "c"]
