"""Pools whose ranges and policy change under held ports, and what an opening records."""

from __future__ import annotations

import pytest

from portfsm.commands import Allocate, Block, Close, DefinePool, Free, Hold, Open, Release, Sweep, Unblock
from portfsm.errors import InvalidValue, PoolExhausted, PortOutOfRange
from portfsm.specs import PoolSpec

SECOND = 1_000_000_000


# ---------------------------------------------------------------------- pools


def test_a_spec_in_force_that_is_recorded_again(world):
    assert world.do(DefinePool(PoolSpec("p", ports=[103, 102, 100, 101]))) == []
    assert world.do(DefinePool(PoolSpec("p", ports="100-103", hold_s=11))) == ["pool_defined"]
    assert world.events[-1].data == {"ports": "100-103", "hold_s": 11.0, "floor_s": 0.0, "order": "lowest"}


@pytest.mark.parametrize("ports", ["99-103", "100-104", "1-2,100-103,65535"])
def test_a_range_that_grows_only_for_later_nodes(world, ports):
    for owner in "abcd":
        world.allocate(owner)
    world.define(ports=ports)
    grown = PoolSpec("p", ports=ports)
    new = [world.allocate(f"o{number}").port for number in range(grown.size - 4)]
    assert sorted([*new, 100, 101, 102, 103]) == [number for piece in grown.ports for number in piece]
    with pytest.raises(PoolExhausted):
        world.allocate("one more")
    assert world.ledger.digest() == world.replayed().digest()


@pytest.mark.parametrize("state", ["ALLOCATED", "QUARANTINED", "BLOCKED"])
def test_a_port_that_left_the_range_and_is_given_again(world, state):
    last, _ = world.put(state)
    world.define(ports="101-103")
    counts = world.ledger.statistics("p")
    assert (counts.size, counts.free, counts.retired) == (3, 3, 1)
    assert world.ledger.port("p", 100).state.value == state, "held: still to be seen"
    world.do(Unblock("p", 100)) if state == "BLOCKED" else world.do(Release(last))
    world.pass_time(60)
    world.do(Sweep())
    assert world.ledger.statistics("p").retired == 0
    for command in (Allocate("p", owner="x", port=100), Hold("p", 100, hold_s=1), Block("p", 100, reason="r"), Free("p", 100, reason="r")):
        with pytest.raises(PortOutOfRange):
            world.decide(command)
    assert [world.allocate(owner).port for owner in "xyz"] == [101, 102, 103]


def test_a_quarantined_port_outside_the_ranges_that_its_owner_gets_back(world):
    lease = world.allocate("a", port=100)
    world.release(lease)
    world.define(ports="101-103")
    assert world.allocate("a").port == 101


def test_a_holder_outside_the_ranges_that_is_given_a_second_port(world):
    lease = world.allocate("a", port=100)
    world.define(ports="101-103")
    assert world.do(Allocate("p", owner="a")) == world.do(Allocate("p", owner="a", port=lease.port)) == []


def test_a_range_that_comes_back_without_its_holds(world):
    last, _ = world.put("QUARANTINED")
    until = world.ledger.port("p", 100).until
    world.define(ports="101-103")
    world.define(ports="100-103")
    assert world.ledger.port("p", 100).until == until
    assert world.ledger.statistics("p").retired == 0
    assert world.allocate("x").port == 101


# ---------------------------------------------------------------------- the log itself


def open_(world, boot, **options):
    return world.do(Open(world.ledger.epoch + 1, "holder", boot, 1, 1, **options))


def test_a_hold_that_a_reboot_shortens(world):
    """What a clock that was lost says of the time since is worth nothing: each hold starts over in full."""
    open_(world, "one")
    world.release(world.allocate("a"))
    world.do(Hold("p", 101, hold_s=3600))
    world.do(Block("p", 102, reason="r"))
    world.pass_time(9)
    assert open_(world, "one") == ["opened"]
    assert sorted(open_(world, "two")) == ["held", "held", "opened"]
    assert {event.cause for event in world.events[-3:] if event.kind == "held"} == {"reboot"}
    assert world.ledger.port("p", 100).until == world.now + 10 * SECOND
    assert world.ledger.port("p", 101).until == world.now + 3600 * SECOND
    assert world.ledger.port("p", 101).until - world.ledger.port("p", 101).since > 3600 * SECOND


def test_a_first_opening_that_holds_ports(world):
    assert open_(world, "one") == ["opened"]


def test_holds_that_start_over_although_the_operator_trusts_the_clock(world):
    open_(world, "one")
    world.release(world.allocate("a"))
    assert open_(world, "two", restart_holds=False) == ["opened"]


def test_a_hold_lengthened_or_shortened_before_a_reboot(world):
    """Full means the longer of what was asked for and what the pool asks for now."""
    open_(world, "one")
    world.release(world.allocate("a"))
    world.define(hold_s=2.0)
    open_(world, "two")
    assert world.ledger.port("p", 100).until == world.now + 10 * SECOND
    world.define(hold_s=60.0)
    open_(world, "three")
    assert world.ledger.port("p", 100).until == world.now + 60 * SECOND
    world.define(hold_s=1.0)
    world.pass_time(1)
    open_(world, "four")
    assert world.ledger.port("p", 100).until == world.now + 60 * SECOND, "a second restart forgot the first"


def test_a_crash_in_the_middle_of_an_opening_that_loses_half_of_the_holds(empty):
    """The new boot is named in the last batch, so the next opening finds the rest not restarted, and restarts all."""
    empty.define(ports="1000-3999")
    open_(empty, "one")
    for number in range(3000):
        empty.do(Hold("p", 1000 + number, hold_s=10))
    empty.pass_time(9)
    opening = empty.decide(Open(2, "holder", "two", 1, 1))
    kinds = [event.kind.value for event in opening]
    assert len(opening) - kinds.index("opened") <= 2049, "opened and what follows fit one batch"
    empty.ledger = empty.replayed()
    empty.ledger.fold(opening[: kinds.index("opened")])
    empty.events += opening[: kinds.index("opened")]
    empty.pass_time(3)
    open_(empty, "two")
    assert {view.until for view in empty.ledger.ports()} == {empty.now + 10 * SECOND}


@pytest.mark.parametrize("epoch", [-1, 0, 1])
def test_an_opening_that_the_log_would_refuse(world, epoch):
    open_(world, "one")
    with pytest.raises(InvalidValue) as caught:
        world.decide(Open(epoch, "holder", "one", 1, 1))
    assert caught.value.name == "epoch"


def test_what_an_opening_had_to_mend_is_lost(world):
    open_(world, "one", recovered="a torn tail of 12 bytes was cut")
    event = world.events[-1]
    assert event.reason == "a torn tail of 12 bytes was cut"
    assert event.data == {"epoch": 1, "holder": "holder", "boot": "one", "boot_ns": 1, "wall_ns": 1}
    assert world.do(Close()) == ["closed"]
