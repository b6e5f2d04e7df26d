"""Several ports at once in the pure core: all of them or none, and the same ones when they are asked for again."""

from __future__ import annotations

import pytest

from portfsm._dump import dump, load
from portfsm._ledger import Ledger
from portfsm.commands import Adopt, Allocate, Block, Release, ReleaseOwner, Sweep, Withdraw
from portfsm.errors import GroupUnavailable, OwnerConflict
from portfsm.groups import Request
from portfsm.states import PortState
from tests.groups.asking import block, given, group

# ---------------------------------------------------------------------- all or none


def test_a_replica_that_starts_with_half_its_ports(world):
    """Two of three pools have room: nothing is given of either."""
    world.define("q", ports="200")
    world.define("r", ports="300-301")
    world.allocate("other", "q")
    before = world.ledger.digest()
    with pytest.raises(GroupUnavailable):
        world.decide(group(Request("p", "a"), Request("q", "a"), Request("r", "a", count=2)))
    assert world.ledger.digest() == before
    assert world.ledger.find("a") == ()


def test_a_group_that_comes_back_in_another_order_than_it_was_asked_for(world):
    world.define("q", ports="200-203")
    wanted = group(Request("q", "a"), Request("p", "b", count=3), Request("q", "b", port=203))
    events = world.decide(wanted)
    assert [(event.pool, event.owner, event.data) for event in events] == [
        ("q", "a", None), ("p", "b", None), ("p", "b", {"index": 1}), ("p", "b", {"index": 2}), ("q", "b", None),
    ]  # fmt: skip
    assert [event.token for event in events] == [event.seq for event in events]
    assert events[-1].port == 203


def test_two_requests_of_one_group_that_get_the_same_port(empty):
    """hashicorp/nomad#9506 and #14850: an offer that collides with itself. Whatever the pool's order and whatever is due."""
    for name, order in (("low", "lowest"), ("old", "longest-idle"), ("rnd", "random")):
        empty.define(name, ports="100-111" if name == "low" else "200-211" if name == "old" else "300-311", order=order)
        for number in range(6):
            empty.release(empty.allocate(f"former{number}", name, service="s"))
        empty.pass_time(5)
        ports = given(
            empty, Request(name, "x", count=3), Request(name, "y", service="s", count=4), block(2, "z", pool=name), Request(name, "former0")
        )
        assert len(set(ports)) == len(ports) == 10
        assert empty.replayed().digest() == empty.ledger.digest()


def test_a_block_broken_by_a_single_port_of_its_own_group(empty):
    """Whoever is harder to serve is served first, wherever it stands in the list."""
    empty.define(ports="100-103")
    assert given(empty, Request("p", "one"), block(2, "pair", align=100), Request("p", "two", port=102)) == [103, 100, 101, 102]


# ---------------------------------------------------------------------- repeats


def test_a_repeat_that_takes_a_second_set(wide):
    wanted = group(Request("p", "a", count=2), block(4, "b", align=4), Request("p", "c", node="n"))
    assert len(wide.do(wanted)) == 7
    assert wide.do(wanted) == []
    wide.ledger = wide.replayed()
    assert wide.do(wanted) == []


def test_an_index_lost_on_the_way_through_a_snapshot(wide):
    """The ledger read from a dump gives the same leases, so the indexes are in it."""
    wanted = group(Request("p", "a", count=3))
    wide.do(wanted)
    reloaded = Ledger()
    load(reloaded, list(dump(wide.ledger)))
    assert reloaded.digest() == wide.ledger.digest()
    wide.ledger = reloaded
    assert wide.do(wanted) == []
    wide.release(wide.allocate("a"))
    assert [event.data for event in wide.decide(wanted) if event.kind == "allocated"] == [None], "index 0 alone is missing"


def test_a_dump_that_changed_for_logs_without_groups(world):
    """A plain lease writes what it wrote before there were groups."""
    world.allocate("a")
    world.do(Withdraw(world.ledger.find("a")[0]))
    assert b'"withdrawn"' not in b"".join(dump(world.ledger))
    row = b"".join(dump(world.ledger)).splitlines()[-1]
    assert row.endswith(b'"a","","","",0,true,0]]]')


def test_a_plain_call_that_is_answered_with_another_index(wide):
    wide.do(group(Request("p", "a", service="s", count=3)))
    assert wide.do(Allocate("p", owner="a", service="s")) == []
    assert wide.allocate("a", service="s").port == 100
    wide.release(wide.allocate("a", service="s"))
    fresh = wide.decide(Allocate("p", owner="a", service="s"))
    assert [event.port for event in fresh] == [100], "index 0 is gone, so it is begun again"


def test_a_smaller_group_that_is_refused_or_begun_anew(wide):
    wide.do(group(block(4)))
    for smaller in (block(2), Request("p", "a", count=3), Request("p", "a"), Request("p", "a", port=100)):
        assert wide.do(group(smaller)) == []


def test_a_group_of_which_some_were_released_that_gets_a_second_set(wide):
    """It is completed: what is held stays, what is missing is begun with its index."""
    wanted = group(Request("p", "a", count=3), Request("p", "b"))
    wide.do(wanted)
    wide.release(next(lease for lease in wide.ledger.find("a") if lease.port == 101))
    events = wide.decide(wanted)
    assert [(event.kind, event.port, event.data) for event in events] == [("allocated", 101, {"index": 1})]


def test_a_block_completed_elsewhere_than_beside_the_rest(wide):
    """The missing ones go where the block has them, or nowhere."""
    wanted = group(block(4, align=4))
    wide.do(wanted)
    lease = next(lease for lease in wide.ledger.find("a") if lease.port == 102)
    wide.release(lease)
    assert [(event.port, event.data) for event in wide.decide(wanted)] == [(102, {"index": 2})], "its own quarantine"
    wide.do(Block("p", 102, reason="broken"))
    with pytest.raises(GroupUnavailable) as caught:
        wide.decide(wanted)
    assert [(view.port, view.state) for view in caught.value.in_the_way] == [(102, PortState.BLOCKED)]


@pytest.mark.parametrize(
    "other",
    [
        block(4, stride=2),
        block(4, align=16),
        Request("p", "a", count=4, service="s"),
        Request("p", "a", port=101),
        block(4, service="s"),
    ],
)
def test_a_group_asked_for_again_in_another_shape(wide, other):
    """What is held cannot be part of it: refused, nothing recorded. 100-103 are held."""
    assert given(wide, block(4, align=4)) == [100, 101, 102, 103]
    with pytest.raises(OwnerConflict) as caught:
        wide.decide(group(other))
    assert (caught.value.holder, caught.value.claimant) == ("a", "a")


def test_numbers_on_two_nodes_that_differ_already(world):
    world.allocate("a", node="n1", port=100)
    world.allocate("a", node="n2", port=101)
    with pytest.raises(OwnerConflict):
        world.decide(group(*(Request("p", "a", node=node, same_port="k") for node in ("n1", "n2"))))


def test_leases_of_a_group_that_outlive_their_owners_release(wide):
    wide.do(group(Request("p", "a", count=3), Request("p", "a", node="n", count=2)))
    assert wide.do(ReleaseOwner("a", node="n")) == ["released"] * 2
    assert wide.do(ReleaseOwner("a")) == ["released"] * 3
    assert wide.ledger.find("a") == ()


def test_an_adoption_of_a_further_port_of_a_group_that_its_owner_holds(wide):
    """After a restart each replica proves its ports, one by one and in any order."""
    wide.do(group(Request("p", "a", service="s", count=3)))
    for port in (102, 100, 101):
        assert wide.do(Adopt("p", port, owner="a", service="s")) == []
    with pytest.raises(OwnerConflict):
        wide.decide(Adopt("p", 103, owner="a", service="s"))
    with pytest.raises(OwnerConflict):
        wide.decide(Adopt("p", 101, owner="a", service="t"))


@pytest.mark.parametrize("end", ["release", "block", "withdraw and release"])
def test_an_index_that_outlives_its_lease(wide, end):
    """Whoever gets the port next holds it under an index of its own."""
    wide.do(group(Request("p", "a", count=2)))
    lease = wide.ledger.find("a")[1]
    if end == "block":
        wide.do(Release(lease, block="in use", for_s=1))
    else:
        if end != "release":
            wide.do(Withdraw(lease))
            assert wide.do(group(Request("p", "a", count=2))) == [], "a withdrawn lease is held all the same"
        wide.release(lease)
    wide.pass_time(100)
    wide.do(Sweep())
    wide.pass_time(100)
    wide.do(Sweep())
    other = wide.allocate("b", port=lease.port)
    for _ in range(2):
        assert wide.do(Allocate("p", owner="b")) == []
        assert wide.do(group(Request("p", "b"))) == []
        wide.ledger = wide.replayed()
    assert wide.ledger.find("b") == (other,)
