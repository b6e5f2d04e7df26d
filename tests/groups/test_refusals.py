"""What a refused group says, and what no group may ask for."""

from __future__ import annotations

import pytest

from portfsm._ledger import apply
from portfsm.commands import AllocateGroup, DefinePool, Hold, Sweep
from portfsm.errors import GroupUnavailable, IllegalTransition, InvalidValue, PoolExhausted, PortOutOfRange, PortUnavailable, UnknownPool
from portfsm.events import Event
from portfsm.groups import GROUP_LIMIT, Request
from portfsm.specs import PoolSpec
from portfsm.states import EventKind, PortState
from tests.groups.asking import block, given, group

SECOND = 1_000_000_000


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
