"""Which port a lease begins on: by a request, or by the proof of a live owner."""

from __future__ import annotations

import pytest

from portfsm import _decide
from portfsm.commands import Adopt, Allocate, Block, ReleaseOwner, Sweep
from portfsm.errors import OwnerConflict, PoolExhausted, PortOutOfRange, PortUnavailable

# ---------------------------------------------------------------------- beginning a lease


def test_a_second_port_for_an_owner_that_has_one(world):
    lease = world.allocate("a", service="s")
    assert world.do(Allocate("p", owner="a", service="s")) == []
    assert world.do(Allocate("p", owner="a", service="s", port=lease.port)) == []
    for other in ({"service": "t"}, {"service": ""}, {"service": "s", "port": lease.port + 1}):
        with pytest.raises(OwnerConflict) as caught:
            world.decide(Allocate("p", owner="a", **other))
        assert (caught.value.port, caught.value.holder) == (lease.port, "a")


def test_an_owner_that_may_not_use_two_nodes_or_two_pools(world):
    world.define("q", ports="200-201")
    places = [world.allocate("a"), world.allocate("a", node="n"), world.allocate("a", "q")]
    assert [(lease.pool, lease.node, lease.port) for lease in places] == [("p", "", 100), ("p", "n", 100), ("q", "", 200)]


@pytest.mark.parametrize("order", ["lowest", "longest-idle", "random"])
def test_a_quarantined_port_of_ones_own_passed_over(empty, order):
    """A restart has to get round the delay that is meant for strangers (spidernet-io/spiderpool#3505).

    Own before same service before the pool's order.
    """
    empty.define(order=order)
    leases = [
        empty.allocate(owner, service=service, port=port) for owner, service, port in [("a", "s", 102), ("b", "s", 101), ("c", "t", 103)]
    ]
    for lease in leases:
        empty.release(lease)
    assert empty.allocate("a", service="s").port == 102
    assert empty.allocate("d", service="s").port == 101
    assert empty.allocate("e").port == 100
    with pytest.raises(PoolExhausted):
        empty.allocate("f", service="s")


def test_an_own_port_lost_to_a_later_one_of_the_same_service(world):
    """The service's last release is later; the owner's own port still comes first."""
    mine, other = world.allocate("a", service="s"), world.allocate("b", service="s")
    world.release(mine)
    world.pass_time(1)
    world.release(other)
    assert world.allocate("a", service="s").port == mine.port


def test_the_last_released_of_several_that_would_do(world):
    leases = [world.allocate(owner, service="s") for owner in "abc"]
    for lease in (leases[1], leases[0], leases[2]):
        world.release(lease)
        world.pass_time(1)
    assert [world.allocate(owner, service="s").port for owner in "xyz"] == [102, 100, 101]


def test_a_port_outside_the_range_that_hides_one_inside(world):
    """The owner's last port has left the range; the service's other one has not."""
    mine, other = world.allocate("a", service="s", port=100), world.allocate("b", service="s", port=102)
    world.release(other)
    world.pass_time(1)
    world.release(mine)
    world.define(ports="101-103")
    assert world.allocate("a", service="s").port == 102


def test_a_reuse_that_waits_out_a_hold_or_records_its_end(world):
    lease = world.allocate("a", service="s")
    world.release(lease)
    assert world.do(Allocate("p", owner="b", service="s")) == ["allocated"]
    world.release(world.ledger.find("b")[0])
    world.pass_time(60)
    assert world.do(Allocate("p", owner="b", service="s")) == ["allocated"], "overdue, and still the same traffic"


def test_order_lowest_that_forgets_a_lower_port(world):
    leases = [world.allocate(owner) for owner in "abcd"]
    for lease in (leases[3], leases[1]):
        world.release(lease)
    world.pass_time(10)
    assert [world.allocate(owner).port for owner in "xy"] == [101, 103]


def test_order_longest_idle_that_gives_a_used_port_before_a_fresh_one(empty):
    empty.define(hold_s=0.0, order="longest-idle", ports="100-101,103")
    for expected in (100, 101, 103, 100, 101, 103):
        lease = empty.allocate("a", port=None)
        assert lease.port == expected
        empty.release(lease)
        empty.pass_time(1)


def test_order_longest_idle_that_gives_the_hold_that_ended_last(empty):
    """Rapid reuse (projectcalico/calico#4152). All are due at once: the one whose hold ended first has been idle longest."""
    empty.define(order="longest-idle", ports="100-102")
    leases = [empty.allocate(owner) for owner in "abc"]
    for lease in (leases[2], leases[0], leases[1]):
        empty.release(lease)
        empty.pass_time(1)
    empty.pass_time(60)
    assert empty.allocate("x").port == leases[2].port


def test_order_random_that_replay_would_draw_otherwise(empty):
    empty.define(order="random", ports="100-199", seed="s1")
    command = Allocate("p", owner="x")
    for owner in map(str, range(60)):
        drawn = empty.decide(command)
        assert drawn == _decide.decide(empty.replayed(), command, now_ns=empty.now)
        assert drawn == empty.decide(command), "a draw without memory"
        empty.allocate(owner)


def test_order_random_that_can_be_guessed_or_leaves_ports_out(empty):
    """A picker got a random order late (fluid-cloudnative/fluid#2580)."""
    for pool, seed in (("one", "s1"), ("two", "s2")):
        empty.define(pool, order="random", ports="100-119,130-149", seed=seed)
    taken = {pool: [empty.allocate(f"{number}", pool).port for number in range(40)] for pool in ("one", "two")}
    assert taken["one"] != taken["two"]
    assert sorted(taken["one"]) == sorted(taken["two"]) == [*range(100, 120), *range(130, 150)]
    assert taken["one"] != sorted(taken["one"])


def test_a_seed_that_changes_with_the_policy(empty):
    empty.define(order="random", seed="s1")
    empty.define(order="random", seed="s2", hold_s=5.0)
    assert empty.ledger.seeds["p"] == "s1"


# ---------------------------------------------------------------------- adoption


def test_a_port_outside_the_ranges_that_joins_the_pool(world):
    world.do(Adopt("p", 49_999, owner="a"))
    assert "outside the range 100-103" in world.events[-1].reason
    assert world.ledger.statistics("p").retired == 1
    world.release(world.ledger.find("a")[0])
    assert world.ledger.statistics("p").retired == 1
    world.pass_time(10)
    assert world.do(Sweep()) == ["freed"]
    assert world.ledger.statistics("p").retired == 0
    with pytest.raises(PortOutOfRange):
        world.ledger.port("p", 49_999)
    assert [world.allocate(owner).port for owner in "wxyz"] == [100, 101, 102, 103]
    with pytest.raises(PoolExhausted):
        world.allocate("one more")


def test_a_port_below_the_range_that_shifts_the_others(world):
    world.put("BLOCKED", port=102)
    held = world.allocate("a", port=100)
    before = list(world.ledger.ports())
    world.do(Adopt("p", 7, owner="low"))
    assert list(world.ledger.ports())[1:] == before
    assert world.release(held) == ["released"]
    assert world.ledger.digest() == world.replayed().digest()
    assert [world.allocate(owner).port for owner in "xy"] == [101, 103]


@pytest.mark.parametrize(
    ("owner", "service", "flag"),
    [("last", "", ""), ("b", "s2", ""), ("b", "s1", "was quarantined for s2"), ("b", "", "was quarantined for s2")],
)
def test_an_adoption_from_quarantine_that_nobody_can_audit(world, owner, service, flag):
    world.put("QUARANTINED")
    world.do(Adopt("p", 100, owner=owner, service=service))
    assert world.events[-1].reason == flag


def test_an_adoption_of_a_blocked_port_that_loses_the_finding(world):
    world.do(Block("p", 100, reason="smells of smoke"))
    world.do(Adopt("p", 100, owner="a"))
    assert "smells of smoke" in world.events[-1].reason
    assert world.state(100) == "ALLOCATED"


def test_two_claims_on_one_port_merged_into_one(world):
    world.allocate("a", port=100)
    with pytest.raises(OwnerConflict) as caught:
        world.decide(Adopt("p", 100, owner="b"))
    assert (caught.value.holder, caught.value.claimant) == ("a", "b")
    for port, service in ((101, ""), (100, "s")):
        with pytest.raises(OwnerConflict) as caught:
            world.decide(Adopt("p", port, owner="a", service=service))
        assert (caught.value.port, caught.value.holder, caught.value.claimant) == (100, "a", "a")


def test_a_service_inherits_a_running_hold_from_its_own_owner(world):
    """a serves x, then y on the same port; b of y would get x's stale traffic."""
    world.release(world.allocate("a", service="x", port=100))
    world.pass_time(1)
    world.release(world.allocate("a", service="y", port=100))
    with pytest.raises(PortUnavailable):
        world.allocate("b", service="y", port=100)
    assert world.allocate("b", service="y").port != 100
    world.pass_time(9)
    assert world.allocate("c", service="y", port=100).port == 100, "x's hold is over, and y may have its own back"


def test_a_service_inherits_a_running_hold_from_an_adopter(world):
    world.release(world.allocate("a", service="x", port=100))
    world.do(Adopt("p", 100, owner="b", service="y"))
    world.do(ReleaseOwner("b"))
    with pytest.raises(PortUnavailable):
        world.allocate("c", service="y", port=100)


def test_an_adoption_swallows_the_hold_that_a_block_owes(world):
    world.allocate("a", service="x", port=100)
    world.do(Block("p", 100, reason="r"))
    world.do(Adopt("p", 100, owner="b", service="y"))
    world.do(ReleaseOwner("b", cause="cancelled"))
    assert world.state(100) == "QUARANTINED"
