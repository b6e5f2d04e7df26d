"""Several ports at once in the pure core: all or none, blocks, the same number on several nodes, quarantines kept."""

from __future__ import annotations

import random

import attrs
import pytest

from portfsm._blocks import aligned, easiest, starts
from portfsm._dump import dump, load
from portfsm._ledger import Ledger, apply
from portfsm.commands import Adopt, Allocate, AllocateGroup, Block, DefinePool, Hold, Join, Release, ReleaseOwner, Sweep, Withdraw
from portfsm.errors import (
    GroupUnavailable,
    IllegalTransition,
    InvalidValue,
    OwnerConflict,
    PoolExhausted,
    PortOutOfRange,
    PortUnavailable,
    UnknownPool,
)
from portfsm.events import Event
from portfsm.groups import GROUP_LIMIT, Request
from portfsm.specs import PoolSpec
from portfsm.states import EventKind, PortState

SECOND = 1_000_000_000


def group(*requests: Request) -> AllocateGroup:
    return AllocateGroup(requests)


def block(count, owner="a", *, pool="p", **options) -> Request:
    return Request(pool, owner, count=count, contiguous=True, **options)


def given(world, *requests) -> list[int]:
    """The numbers that these requests get, in the order of the events."""
    events = world.decide(group(*requests))
    world.do(group(*requests))
    return [event.port for event in events if event.kind == "allocated"]


@pytest.fixture
def wide(empty):
    """A pool `p` of twenty ports."""
    empty.define(ports="100-119")
    return empty


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


# ---------------------------------------------------------------------- blocks


def test_a_block_that_is_none(empty):
    """Ports of tensor and pipeline parallel ranks overlapped (ray-project/ray#57757).

    ray#57757, #57771: ranks whose ports overlap. Numbers at the distance asked for, from a multiple, inside one range.
    """
    empty.define(ports="101-106,108-130")
    assert given(empty, block(4, "a", align=4)) == [108, 109, 110, 111]
    assert given(empty, block(3, "b", stride=8, align=8)) == [104, 112, 120]
    assert given(empty, block(2, "c", stride=5)) == [101, 106]
    assert given(empty, block(3, "d", stride=2)) == [113, 115, 117]
    assert given(empty, block(1, "e", align=25)) == [125]
    assert given(empty, block(4, "f")) == [121, 122, 123, 124], "102 and 103 are free, 104 is not, and 107 is none of the pool's"


def test_a_free_block_that_the_search_does_not_see():
    """Against every definition spelled out: where blocks begin, and which has least in its way."""
    dice = random.Random("blocks")
    for _ in range(1500):
        size, count, stride = dice.randint(1, 70), dice.randint(1, 9), dice.randint(1, 5)
        first, align = dice.randint(1, 60), dice.randint(1, 9)
        line = bytes(dice.random() < 0.8 for _ in range(size))
        blocks = [range(begin, begin + count * stride, stride) for begin in range(size)]
        expected = [all(place < size and line[place] for place in each) for each in blocks]
        assert [*starts(line, count, stride)] == expected
        assert [*aligned(bytes(expected), first, align)] == [found and (first + begin) % align == 0 for begin, found in enumerate(expected)]
        soon = bytes(dice.random() < 0.3 for _ in range(size))
        hard = bytes(not each and dice.random() < 0.3 for each in soon)
        candidates = bytes(each[-1] < size and dice.random() < 0.5 for each in blocks)
        weights = [
            (sum(hard[p] for p in each), sum(soon[p] for p in each), each[0]) for each, may in zip(blocks, candidates, strict=True) if may
        ]
        assert easiest(soon, hard, candidates, count, stride) == min(weights, default=(0, 0, -1))[2]


@pytest.mark.parametrize("order", ["lowest", "longest-idle", "random"])
def test_a_block_that_exists_and_is_refused(order):
    """Every state of small pools at random, against looking at each block in turn."""
    dice = random.Random(order)
    for turn in range(300):
        world = _world_at_random(dice, order)
        request = block(dice.randint(1, 4), service=dice.choice(["", "s"]), align=dice.randint(1, 3), stride=dice.randint(1, 3))
        fitting = [first for first in range(100, 112) if all(_may_have(world, request, port) for port in _numbers(request, first))]
        fitting = [first for first in fitting if first % request.align == 0]
        try:
            events = world.decide(group(request))
        except (GroupUnavailable, InvalidValue):
            assert not fitting, (turn, fitting)
            continue
        ports = [event.port for event in events if event.kind == "allocated"]
        assert ports == _numbers(request, ports[0])
        assert ports[0] in fitting, (turn, ports, fitting)
        world.do(group(request))
        assert world.replayed().digest() == world.ledger.digest()


def _numbers(request, first):
    return [first + index * request.stride for index in range(request.count)]


def _world_at_random(dice, order):
    from tests.conftest import World

    world = World()
    world.define(ports="100-104,106-111", order=order, hold_s=10.0, seed="seed")
    for number in range(dice.randint(0, 12)):
        port = dice.choice([*range(100, 105), *range(106, 112)])
        view = world.ledger.port("p", port)
        owner = "a" if dice.random() < 0.2 and not world.ledger.find("a") else f"o{number}"
        if view.state is PortState.FREE:
            lease = world.allocate(owner, service=dice.choice(["", "s", "t"]), port=port)
            if owner == "a" or dice.random() < 0.7:
                world.release(lease)
            elif dice.random() < 0.2:
                world.do(Block("p", port, reason="broken", for_s=dice.choice([None, 1.0])))
        world.pass_time(dice.choice([0, 1, 4]))
    return world


def _may_have(world, request, port):
    """The contract's words for whom a port may go to, read off its view."""
    try:
        view = world.ledger.port("p", port)
    except PortOutOfRange:
        return False
    if view.state is PortState.QUARANTINED:
        same = view.owner == request.owner or (request.service and request.service == view.service)
        return bool(same) or view.until <= world.now
    return view.state is PortState.FREE


def test_a_block_of_its_own_passed_over(wide):
    """A whole block that the owner or the service held comes back before any other, within its hold."""
    wide.do(group(block(2, "filler")))
    assert given(wide, block(4, "a", service="s", stride=2)) == [102, 104, 106, 108]
    wide.do(ReleaseOwner("filler"))
    wide.pass_time(11)
    wide.do(ReleaseOwner("a"))
    for owner in "ab":
        wanted = group(block(4, owner, service="s", stride=2))
        assert [event.port for event in wide.decide(wanted) if event.kind == "allocated"] == [102, 104, 106, 108], "and not from 100 on"


@pytest.mark.parametrize("request_of", [lambda owner: Request("p", owner, count=3), lambda owner: block(3, owner)])
def test_a_strangers_quarantine_given_early(empty, request_of):
    """sgl-project/sglang#22824 and friends: ports still watched by somebody go to nobody else."""
    empty.define(ports="100-103")
    empty.do(group(Request("p", "a", service="s", count=3)))
    empty.do(ReleaseOwner("a"))
    with pytest.raises(GroupUnavailable):
        empty.decide(group(attrs.evolve(request_of("b"), service="t")))
    assert len(given(empty, attrs.evolve(request_of("b"), service="s"))) == 3


def test_a_service_that_gets_a_port_mixed_with_another_ones_traffic(empty):
    """Its owner took the port over within the hold of another service: then its service alone is no claim."""
    empty.define(ports="100-101", hold_s=10)
    empty.release(empty.allocate("a", service="s", port=100))
    empty.release(empty.allocate("a", service="t", port=100))
    empty.allocate("other", port=101)
    for request in (Request("p", "b", service="t"), block(1, "b", service="t")):
        with pytest.raises(GroupUnavailable):
            empty.decide(group(request))
    assert given(empty, block(1, "a", service="t")) == [100]


def test_thousands_of_quarantined_ports_of_one_service_that_are_looked_at_one_by_one(empty):
    """Above a thousand the column is compared as a whole: the same answer, mixed ports left out."""
    empty.define(ports="100-1699", hold_s=1000)
    for number in range(1500):
        empty.release(empty.allocate(f"o{number}", service="s"))
    empty.release(empty.allocate("o7", service="t", port=107))
    empty.release(empty.allocate("o7", service="s", port=107))
    assert given(empty, block(8, "new", service="s")) == [*range(108, 116)], "107 is mixed, so the service's ports begin behind it"


# ---------------------------------------------------------------------- the same number


def test_one_replica_under_two_numbers(world):
    """The number is free on each of the nodes, and where one is taken another is found."""
    world.allocate("x", node="n1", port=100)
    world.allocate("y", node="n2", port=102)
    wanted = [Request("p", "a", node=node, same_port="rank") for node in ("n1", "n2", "")]
    assert given(world, *wanted) == [101, 101, 101]
    assert world.do(group(*wanted)) == []


def test_a_block_that_differs_from_node_to_node(empty):
    empty.define(ports="100-111")
    empty.allocate("x", node="n1", port=103)
    empty.allocate("y", node="n2", port=100)
    wanted = [block(2, "a", node=node, same_port="k", align=2, stride=3) for node in ("n1", "n2")]
    assert given(empty, *wanted) == [102, 105, 102, 105]


def test_a_lost_half_that_comes_back_under_another_number(world):
    """One node's lease is over: the repeat gets the other nodes' number back, or says what is there."""
    wanted = [Request("p", "a", node=node, same_port="k", count=2) for node in ("n1", "n2")]
    assert given(world, *wanted) == [100, 101, 100, 101]
    world.release(next(lease for lease in world.ledger.find("a") if (lease.node, lease.port) == ("n2", 101)))
    world.pass_time(20)
    world.allocate("thief", node="n2", port=101)
    with pytest.raises(GroupUnavailable) as caught:
        world.decide(group(*wanted))
    assert [(view.node, view.port, view.owner) for view in caught.value.in_the_way] == [("n2", 101, "thief")]
    world.do(ReleaseOwner("thief"))
    world.pass_time(20)
    assert [(event.node, event.port) for event in world.decide(group(*wanted)) if event.kind == "allocated"] == [("n2", 101)]


def test_numbers_counted_from_different_floors(world):
    """A port adopted below the range moves the rows of one node; the numbers are the same all the same."""
    world.do(Adopt("p", 90, owner="below", node="n1"))
    world.do(Adopt("p", 120, owner="above", node="n2"))
    assert given(world, *(Request("p", "a", node=node, same_port="k", count=4) for node in ("n1", "n2"))) == [100, 101, 102, 103] * 2


# ---------------------------------------------------------------------- due ports


def test_a_due_port_that_a_group_does_not_see(world):
    """Their holds are over and nobody noticed: they are freed in the same batch, before their leases begin."""
    for port in (100, 101, 102, 103):
        world.release(world.allocate(f"o{port}", port=port))
    world.pass_time(11)
    events = world.decide(group(block(4)))
    assert [(event.kind, event.port) for event in events] == [("freed", port) for port in range(100, 104)] + [
        ("allocated", port) for port in range(100, 104)
    ]
    world.do(group(block(4)))


def test_due_ports_beyond_the_first_many_that_stay_hidden(empty):
    """More are due than one call notices: a block among the last ones is found, and the batch stays bounded."""
    empty.define(ports="100-1099")
    for port in range(100, 1100):
        empty.release(empty.allocate(f"o{port}", port=port))
        empty.pass_time(0.001)
    for port in range(100, 1090, 2):
        empty.do(Hold("p", port, hold_s=1000))
    empty.pass_time(20)
    events = empty.decide(group(block(10)))
    assert [event.port for event in events if event.kind == "allocated"] == [*range(1089, 1099)]
    assert len(events) <= 10 + 10 + 128
    empty.do(group(block(10)))
    assert empty.replayed().digest() == empty.ledger.digest()


def test_a_port_that_proxies_still_hold_given_to_a_group(world):
    """Evidence is required: time alone frees nothing, and the refusal promises no time."""
    world.do(Join("edge"))
    world.release(world.allocate("a", port=100))
    world.pass_time(1000)
    with pytest.raises(GroupUnavailable) as caught:
        world.decide(group(block(4, "b")))
    assert [view.port for view in caught.value.in_the_way] == [100]
    assert caught.value.free_at is None


# ---------------------------------------------------------------------- what a refusal says


def test_a_refusal_that_does_not_say_what_is_in_the_way_and_until_when(wide):
    for port in (100, 103, 105, 108, 111, 114, 117):
        wide.allocate(f"o{port}", port=port)
    wide.release(next(lease for lease in wide.ledger.find("o105")))
    wide.pass_time(2)
    wide.release(next(lease for lease in wide.ledger.find("o108")))
    with pytest.raises(GroupUnavailable) as caught:
        wide.decide(group(block(6, "a")))
    error = caught.value
    assert [(view.port, view.state, view.owner) for view in error.in_the_way] == [
        (105, PortState.QUARANTINED, "o105"), (108, PortState.QUARANTINED, "o108"),
    ]  # fmt: skip
    assert error.free_at == wide.now + 10 * SECOND
    assert error.counts["ALLOCATED"] == 5
    assert error.short_by == 2
    for said in ("6 numbers in a row", "port 105 is QUARANTINED by 'o105'", "port 108", "wait_s=", "Nothing was given"):
        assert said in str(error)
    wide.pass_time(10)
    assert given(wide, block(6, "a")) == [*range(104, 110)], "what was promised came true"


def test_a_refusal_that_promises_a_time_when_somebody_holds_a_port(wide):
    for port in (103, 107, 111, 115):
        wide.allocate(f"o{port}", port=port)
    with pytest.raises(GroupUnavailable) as caught:
        wide.decide(group(block(5, "a", align=5)))
    assert caught.value.free_at is None
    assert [view.owner for view in caught.value.in_the_way] == ["o103"]


def test_a_count_that_is_refused_without_the_ports_that_come_next(world):
    for owner in "xyz":
        world.release(world.allocate(owner))
        world.pass_time(1)
    world.allocate("w", port=103)
    with pytest.raises(GroupUnavailable) as caught:
        world.decide(group(Request("p", "a", count=2)))
    assert [view.port for view in caught.value.in_the_way] == [100, 101]
    assert caught.value.free_at == world.ledger.port("p", 101).until
    assert isinstance(caught.value, PoolExhausted)


def test_a_number_taken_that_is_refused_without_its_holder(world):
    world.allocate("x", port=102)
    with pytest.raises(PortUnavailable) as caught:
        world.decide(group(Request("p", "a"), Request("p", "b", port=102)))
    assert (caught.value.port, caught.value.owner) == (102, "x")


def test_a_number_that_no_two_nodes_have_refused_without_reasons(world):
    for port, node in ((100, "n1"), (101, "n2"), (102, "n1"), (103, "n2")):
        world.allocate(f"o{port}", node=node, port=port)
    world.release(world.ledger.find("o102")[0])
    with pytest.raises(GroupUnavailable) as caught:
        world.decide(group(*(Request("p", "a", node=node, same_port="k") for node in ("n1", "n2"))))
    assert [(view.node, view.port) for view in caught.value.in_the_way] == [("n1", 102)]
    assert caught.value.free_at == world.now + 10 * SECOND
    assert "on 2 nodes together" in str(caught.value)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"count": 0}, "count"),
        ({"count": -1}, "count"),
        ({"count": True}, "count"),
        ({"count": 2.0}, "count"),
        ({"count": GROUP_LIMIT + 1}, "count"),
        ({"contiguous": True, "align": 0}, "align"),
        ({"contiguous": True, "align": 65_536}, "align"),
        ({"contiguous": True, "stride": 0}, "stride"),
        ({"contiguous": True, "stride": float("nan")}, "stride"),
        ({"align": 2}, "align"),
        ({"stride": 2}, "stride"),
        ({"count": 4, "stride": 2}, "stride"),
        ({"contiguous": 1}, "contiguous"),
        ({"port": 100, "count": 2}, "port"),
        ({"port": 100, "contiguous": True}, "port"),
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"owner": ""}, "owner"),
        ({"owner": "a\n"}, "owner"),
        ({"owner": "a" * 257}, "owner"),
        ({"node": "\x1b[2J"}, "node"),
        ({"service": 7}, "service"),
        ({"same_port": "\u202e"}, "same_port"),
        ({"same_port": None}, "same_port"),
        ({"pool": None}, "pool"),
    ],
)
def test_a_request_that_no_state_could_serve(options, name):
    with pytest.raises(InvalidValue) as caught:
        Request(**{"pool": "p", "owner": "a"} | options)
    assert caught.value.name == name
    assert repr(options.get(name))[:20] in str(caught.value) or name == "owner"


@pytest.mark.parametrize(
    ("requests", "name"),
    [
        ([], "requests"),
        (None, "requests"),
        ("p", "requests"),
        (Request("p", "a"), "requests"),
        ([Request("p", "a"), ("p", "b")], "requests"),
        ([Request("p", "a"), Request("p", "a", port=101)], "owner"),
        ([Request("p", "a", port=100), Request("p", "b", port=100)], "port"),
        ([Request("p", "a", count=1000), Request("p", "b", count=25)], "requests"),
        ([Request("p", "a", node="n", same_port="k"), Request("p", "b", node="n", same_port="k")], "same_port"),
        ([Request("p", "a", same_port="k"), Request("q", "a", node="n", same_port="k")], "same_port"),
        ([Request("p", "a", same_port="k"), Request("p", "a", node="n", same_port="k", count=2)], "same_port"),
    ],
)
def test_requests_that_contradict_each_other(requests, name):
    with pytest.raises(InvalidValue) as caught:
        AllocateGroup(requests)
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("requests", "error"),
    [
        ([Request("p", "a", count=5)], InvalidValue),
        ([Request("p", "a", count=3), Request("p", "b", count=2)], InvalidValue),
        ([block(3, align=102)], InvalidValue),
        ([block(2, stride=4)], InvalidValue),
        ([block(2, node=node, same_port="k", stride=4) for node in ("", "n")], InvalidValue),
        ([Request("p", "a"), Request("nope", "a")], UnknownPool),
        ([Request("p", "a"), Request("p", "b", port=104)], PortOutOfRange),
        ([Request("p", "b", port=104, node=node, same_port="k") for node in ("", "n")], PortOutOfRange),
    ],
)
def test_a_group_that_the_pool_could_never_give(world, requests, error):
    """It is no matter of waiting, so it is no `PoolExhausted`."""
    before = world.ledger.digest()
    with pytest.raises(error) as caught:
        world.decide(group(*requests))
    assert not isinstance(caught.value, PoolExhausted)
    assert world.ledger.digest() == before


@pytest.mark.parametrize("index", [-1, 65_536, True, "1", None, 1.0, [1]])
@pytest.mark.parametrize("used", [False, True])
def test_a_log_whose_index_is_none(world, index, used):
    """Damage, on a port's first event or a later one: refused, nothing changed."""
    if used:
        world.do(Hold("p", 100, hold_s=0.001))
        world.pass_time(1)
        world.do(Sweep())
    before, seq = world.ledger.digest(), world.ledger.seq + 1
    with pytest.raises(IllegalTransition, match="index"):
        apply(world.ledger, Event(seq, world.now, EventKind.ALLOCATED, "", "p", 100, "a", "", seq, data={"index": index}))
    assert world.ledger.digest() == before


def test_what_a_later_version_adds_to_a_lease_that_is_refused(world):
    seq = world.ledger.seq + 1
    apply(world.ledger, Event(seq, world.now, EventKind.ALLOCATED, "", "p", 100, "a", "", seq, data={"colour": "green"}))
    assert world.ledger.find("a")[0].port == 100


def test_a_group_in_a_pool_that_shrank(wide):
    """What is held outside the ranges stays held; the block cannot be completed there and says so."""
    assert given(wide, block(4, "a", align=4)) == [100, 101, 102, 103]
    wide.release(wide.ledger.find("a")[3])
    wide.do(DefinePool(PoolSpec("p", ports="102-119", hold_s=10.0)))
    assert [event.port for event in wide.decide(group(block(4, "a", align=4)))] == [103]
    wide.release(wide.ledger.find("a")[0])
    with pytest.raises(GroupUnavailable) as caught:
        wide.decide(group(block(4, "a", align=4)))
    assert 100 in [view.port for view in caught.value.in_the_way]
