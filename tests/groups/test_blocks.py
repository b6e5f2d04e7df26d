"""Blocks of ports in the pure core, the same number on several nodes, and ports that are due."""

from __future__ import annotations

import random

import attrs
import pytest

from portfsm._blocks import aligned, easiest, starts
from portfsm.commands import Adopt, Block, Hold, Join, ReleaseOwner
from portfsm.errors import GroupUnavailable, InvalidValue, PortOutOfRange
from portfsm.groups import Request
from portfsm.states import PortState
from tests.groups.asking import block, given, group

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
