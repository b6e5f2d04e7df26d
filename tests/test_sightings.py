"""What a controller sees against what is recorded: what every sighting means, and which are none."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from portfsm import InvalidValue, Observation, Request, Sighting, UnknownPool
from portfsm.commands import Adopt, AllocateGroup, Block, Open, Sweep, Withdraw
from portfsm.states import PortState
from tests.observer import Controller, as_sighting

# ---------------------------------------------------------------------- what a sighting means


PORTS = (99, 100, 101, 102, 103)
CLAIMS = [Sighting(owner, "", "p", port, service) for owner, port, service in product(("r1", "r2", "new"), PORTS, ("", "s", "t"))]


@pytest.fixture
def mixed(empty):
    """100 is r1's for s, 101 quarantined of r2 for s, 102 blocked, 103 free, 99 outside."""
    empty.define(ports="100-103")
    empty.allocate("r1", service="s")
    empty.release(empty.allocate("r2", service="s"))
    empty.do(Block("p", 102, reason="broken"))
    empty.pass_time(1)
    return Controller(empty)


def agrees(sighting):
    return (sighting.owner, sighting.port) == ("r1", 100) and sighting.service in {"", "s"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_sighting_that_falls_through_or_counts_twice(mixed, count):
    """Every sighting, and every two: each that is not as recorded stands in exactly one list, and nothing changes by looking."""
    digest = mixed.world.ledger.digest()
    for live in combinations(CLAIMS, count):
        report = mixed.plan(mixed.observe(*live)).report
        listed = [
            *report.unknown,
            *(move.sighting for move in report.moved),
            *(claim for each in report.conflicts for claim in each.claims),
        ]
        assert len({(each.owner, each.port, each.service) for each in listed}) == len(listed)
        for sighting in live:
            known = {(each.owner, each.port) for each in listed}
            assert ((sighting.owner, sighting.port) in known) or agrees(sighting), live
        if all(agrees(sighting) for sighting in live):
            assert not listed
        else:
            assert listed
    assert mixed.world.ledger.digest() == digest
    assert mixed.census.suspects == {}


def test_an_unknown_replica_that_cannot_be_adopted(mixed):
    """What is called unknown is adopted as it stands, all of it in a row, and is known then."""
    events, ledger = list(mixed.world.events), mixed.world.ledger
    for live in combinations(CLAIMS, 2):
        mixed.world.ledger, mixed.world.events = ledger.copy(), list(events)
        for each in mixed.plan(mixed.observe(*live)).report.unknown:
            assert mixed.world.do(Adopt(each.pool, each.port, owner=each.owner, node=each.node, service=each.service)) == ["adopted"]
        mixed.world.pass_time(1)
        assert mixed.plan(mixed.observe(*live)).report.unknown == ()


@pytest.mark.parametrize(
    ("live", "where"),
    [
        ([("new", 103)], "unknown"),
        ([("r2", 101)], "unknown"),  # it outlived its release
        ([("new", 101)], "unknown"),  # the hold is another's, and the port is in use: the event says so
        ([("new", 99)], "unknown"),
        ([("new", 102)], "conflicts"),  # an operator's word is not undone by a list
        ([("new", 100)], "conflicts"),
        ([("new", 100), ("r1", 100)], "conflicts"),
        ([("new", 103), ("r2", 103)], "conflicts"),
        ([("new", 103), ("new", 101)], "conflicts"),
        ([("r1", 100), ("r1", 103)], "conflicts"),
        ([Sighting("r1", "", "p", 100, "t")], "conflicts"),
        ([Sighting("new", "", "p", 103, "s"), Sighting("new", "", "p", 103, "t")], "conflicts"),
        ([("r1", 103)], "moved"),
        ([("r1", 101)], "moved"),
        ([("r1", 102)], "conflicts"),
    ],
)
def test_a_sighting_under_the_wrong_heading(mixed, live, where):
    """Ray merges what recovered replicas claim without looking whether two claim one port."""
    report = mixed.plan(mixed.observe(*live)).report
    found = {name: len(getattr(report, name)) for name in ("unknown", "conflicts", "moved")}
    assert {name for name, count in found.items() if count} == {where}


def test_a_conflict_that_does_not_name_both(mixed):
    (conflict,) = mixed.plan(mixed.observe(("new", 100), ("r1", 100))).report.conflicts
    assert (conflict.pool, conflict.node, conflict.port, conflict.state, conflict.holder) == ("p", "", 100, PortState.ALLOCATED, "r1")
    assert [claim.owner for claim in conflict.claims] == ["new", "r1"]
    assert "'new' and 'r1'" in conflict.reason
    assert "port 100 of pool 'p'" in conflict.reason
    (blocked,) = mixed.plan(mixed.observe(("new", 102))).report.conflicts
    assert (blocked.state, blocked.holder) == (PortState.BLOCKED, "")
    assert "broken" in blocked.reason


def test_a_move_that_does_not_say_from_where(mixed):
    (lease,) = mixed.world.ledger.find("r1")
    (move,) = mixed.plan(mixed.observe(("r1", 103))).report.moved
    assert (move.lease, move.sighting.port) == (lease, 103)


@pytest.mark.parametrize("live", [[("stranger", 102)], [("lost", 103)], [("lost", 103), ("stranger", 103)], [("lost", 99)]])
def test_a_port_is_freed_under_somebody_who_lives(world, live):
    """Deleting one of two Services with the same port freed it under the other (kubernetes#64466): as long as anybody is seen at the
    port, or its owner anywhere in the pool, nothing is released.
    """
    controller = Controller(world)
    seen, lost = [world.allocate("a"), world.allocate("b")], world.allocate("lost")
    assert lost.port == 102
    for _ in range(5):
        report = controller.look(*seen, *live)
        assert (report.leaked, report.released) == ((), ())
    assert controller.census.suspects == {}


def test_one_port_of_a_group_is_released_under_an_owner_that_lives(world):
    """Its gRPC port is not listened on yet, or no longer: the owner that has it is there, and may listen again at any time."""
    controller = Controller(world)
    world.do(AllocateGroup([Request("p", "r1", count=3)]))
    for _ in range(5):
        assert controller.look(("r1", 101)).leaked == ()
    for _ in range(3):
        gone = controller.look(world.allocate("other"))
    assert gone.breaker == ("p",), "all three are missed at once"


def test_a_replica_that_went_while_somebody_looked_is_adopted(world):
    """It was seen, then released: to adopt it now would raise the dead."""
    controller = Controller(world)
    lease = world.allocate("a")
    world.pass_time(1)
    observation = controller.observe(lease, ("b", 101))
    world.pass_time(1)
    world.release(lease)
    other = world.allocate("c", port=101)
    report = controller.take(observation)
    assert (report.unknown, report.conflicts, report.leaked) == ((), (), ())
    assert controller.look(lease, other).unknown == (as_sighting(lease),)


def test_a_replica_that_started_while_somebody_looked_has_moved(world):
    """It was seen at a port that it left for the one it was given a moment later."""
    controller = Controller(world)
    world.allocate("a")
    world.pass_time(1)
    observation = controller.observe(("b", 103))
    world.pass_time(1)
    world.allocate("b")
    report = controller.take(observation)
    assert (report.moved, report.unknown) == ((), ())


def test_a_service_not_told_reads_as_another_service(mixed):
    assert mixed.plan(mixed.observe(("r1", 100))).report.conflicts == ()


def test_a_node_never_heard_of_makes_trouble(mixed):
    live = [Sighting("x", "far", "p", 100), Sighting("y", "far", "p", 9)]
    report = mixed.plan(mixed.observe(*live, nodes=["far"])).report
    assert report.unknown == (live[1], live[0])
    assert ("far", "p") not in mixed.world.ledger.pools


def test_a_sighting_where_nobody_was_to_look_is_lost(mixed):
    """A node that is not named may be seen all the same: what lives is believed, and nothing counts as absent there."""
    world = mixed.world
    there = world.allocate("there", node="n2")
    world.pass_time(1)
    report = mixed.take(mixed.observe(Sighting("new", "n2", "p", 103), nodes=[""]))
    assert [each.owner for each in report.unknown] == ["new"]
    assert report.uncounted == ("n2",)
    assert there not in report.leaked


# ---------------------------------------------------------------------- bad input


def test_an_observation_of_another_time(world):
    controller = Controller(world)
    world.allocate("a")
    with pytest.raises(InvalidValue, match="after the log's present time") as caught:
        controller.plan(controller.observe(started=world.now + 1))
    assert (caught.value.name, caught.value.value) == ("started_at_ns", world.now + 1)
    assert "manager.now_ns" in str(caught.value)
    assert controller.census.begun == {}


def test_an_observation_from_before_the_opening(empty):
    """Cilium must not release before its restoration has finished (cilium#26668); and a reading of the monotonic clock is no time."""
    empty.do(Open(1, "t", "boot", 1, empty.now))
    empty.define()
    controller = Controller(empty)
    with pytest.raises(InvalidValue, match="before this opening"):
        controller.plan(controller.observe(started=empty.now - 1))
    with pytest.raises(InvalidValue, match="before this opening"):
        controller.plan(controller.observe(started=123_456))
    controller.plan(controller.observe())


def test_a_sighting_in_a_pool_that_is_not_there(world):
    controller = Controller(world)
    with pytest.raises(UnknownPool, match="no pool is named 'htpp'"):
        controller.plan(controller.observe(Sighting("a", "", "htpp", 100)))
    assert controller.census.begun == {}


GOOD = {"nodes": ["a"], "live": [Sighting("r", "a", "p", 100)], "started_at_ns": 10**18, "complete": True}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nodes", "node-a"), ("nodes", None), ("nodes", [1]), ("nodes", ["x" * 257]), ("nodes", ["a\n"]),
        ("live", [("r", "a", "p", 100)]), ("live", None), ("live", Sighting("r", "a", "p", 100)), ("live", [None]), ("live", "rapp"),
        ("started_at_ns", 0), ("started_at_ns", -1), ("started_at_ns", 1.5), ("started_at_ns", True), ("started_at_ns", "now"), ("started_at_ns", 1 << 62),
        ("complete", None), ("complete", 1), ("complete", "yes"),
    ],
)  # fmt: skip
def test_an_observation_made_of_something_else(field, value):
    Observation(**GOOD)
    with pytest.raises(InvalidValue) as caught:
        Observation(**{**GOOD, field: value})
    assert caught.value.name in {field, "node"}


SEEN = {"owner": "r", "node": "a", "pool": "p", "port": 100, "service": ""}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("owner", ""), ("owner", None), ("owner", "x" * 257), ("owner", "a\x1b"), ("node", None), ("node", "\n"), ("pool", ""), ("pool", 1),
        ("port", 0), ("port", 65_536), ("port", True), ("port", "80"), ("port", 80.0), ("service", None), ("service", "\x00"),
    ],
)  # fmt: skip
def test_a_sighting_of_nothing(field, value):
    Sighting(**SEEN)
    with pytest.raises(InvalidValue) as caught:
        Sighting(**{**SEEN, field: value})
    assert caught.value.name == field


def test_an_observation_that_depends_on_its_order(world):
    leases = [world.allocate(name) for name in "abc"]
    world.pass_time(1)
    controller = Controller(world)
    live = [as_sighting(lease) for lease in leases] + [Sighting("a", "", "p", 103), Sighting("b", "", "p", 100, "t")]
    one, two = (controller.plan(controller.observe(*order)).report for order in (live, reversed(live)))
    assert one == two
    assert Observation(iter(["b", "a", "b"]), iter(live), 1, complete=True).nodes == ("a", "b")


def test_a_range_that_shrank_hides_its_leases(world):
    """A port outside the present ranges is seen, missed and released like any other, and retires."""
    controller = Controller(world)
    held = [world.allocate(name) for name in "abcd"]
    world.define(ports="100-101")
    assert controller.look(*held).leaked == ()
    reports = [controller.look(*held[:3]) for _ in range(3)]
    assert reports[-1].released == (held[3],)
    world.pass_time(20)
    world.do(Sweep())
    assert world.ledger.pools["", "p"].outside == {2}


def test_a_withdrawn_lease_is_never_found_leaked(world):
    """It drains, and then its replica dies: nobody else will release it."""
    controller = Controller(world)
    seen, lost = [world.allocate("a"), world.allocate("b")], world.allocate("lost")
    world.do(Withdraw(lost))
    assert [controller.look(*seen).released for _ in range(3)][-1] == (lost,)
