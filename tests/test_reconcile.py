"""The record against the world, without loop, clock or journal: when a leak is believed, and how much at a time.

A lease released while its owner lives is a port given twice, one hold later; so most tests here are about not releasing.
"""

from __future__ import annotations

import sys
from itertools import combinations, product

import pytest

from portfsm import PoolSpec, StaleLease
from portfsm.commands import Allocate, DefinePool
from tests.observer import GRACE, SECOND, Controller


@pytest.fixture
def crowd(empty):
    """A pool of 200 ports and a controller."""
    empty.define(ports="100-299")
    return Controller(empty)


def leases_of(crowd, count, *, node="", prefix="r"):
    return [crowd.world.allocate(f"{prefix}{number}", node=node, service="s") for number in range(count)]


# ---------------------------------------------------------------------- when a leak is believed


LOOKS = {
    "missed": (GRACE, True, True, False),
    "missed, too soon": (1, True, True, False),
    "seen": (GRACE, True, True, True),
    "seen, not all was": (1, False, True, True),
    "not all was seen": (GRACE, False, True, False),
    "elsewhere": (GRACE, True, False, False),
}
"""Seconds after the last look; complete; was the node named; was the replica seen."""


def test_a_lease_is_released_that_was_not_missed_three_times_a_minute_apart(empty):
    """Every story of up to five looks. Kubernetes frees after three misses since a port was freed under a Service that had just been
    made (kubernetes#37488, PR #39206); two looks in one second are no better than one.
    """
    empty.define()
    living = [empty.allocate("a"), empty.allocate("b")]
    lease = empty.allocate("lost")
    told = 0
    for story in (story for length in range(1, 6) for story in product(LOOKS, repeat=length)):
        told += judge(empty, living, lease, story)
    assert told > 100


def judge(world, living, lease, story):
    """Whether the lease was due in this story, and exactly where the rule says so."""
    controller, now = Controller(world), 0.0
    began, missed, start = world.now, [], world.now
    for name in story:
        after_s, complete, named, seen = LOOKS[name]
        now += after_s
        world.now = start + round(now * SECOND)
        report = controller_report(controller, [*living, *[lease][: int(seen)]], complete=complete, named=named)
        missed = [] if seen else [*missed, now] if complete and named else missed
        ripe = any(b - a >= GRACE and c - b >= GRACE for a, b, c in combinations(missed, 3))
        due = ripe and complete and named and not seen
        assert report.released == ((lease,) if due else ()), story
        assert report.leaked == ((lease,) if complete and named and not seen else ()), story
    world.now = began
    return due


def controller_report(controller, live, *, complete, named):
    """The report and the counts, with nobody released: the next story begins with the same ledger."""
    plan = controller.plan(controller.observe(*live, complete=complete, nodes=[""] if named else ["b"]))
    controller.census.take(plan)
    return plan.report


@pytest.mark.parametrize("begun_s", [0, 1])
def test_a_lease_begun_while_somebody_looked_counts_as_missed(world, begun_s):
    """kubernetes PR #141271: a cache that is behind has not seen the newest Services, and their ports were taken for leaks."""
    controller = Controller(world)
    old = [world.allocate("a"), world.allocate("b")]
    observation = controller.observe(*old)
    world.pass_time(begun_s)
    fresh = world.allocate("c")
    report = controller.take(observation)
    assert (report.leaked, controller.census.suspects) == ((), {})
    assert controller.look(*old).leaked == (fresh,)


def test_an_observation_given_three_times_counts_thrice(world):
    controller = Controller(world)
    seen, lost = [world.allocate("a"), world.allocate("b")], world.allocate("lost")
    world.pass_time(1)
    observation = controller.observe(*seen)
    reports = [controller.take(observation, grace_s=0.0) for _ in range(4)]
    assert [report.released for report in reports] == [()] * 4
    assert [report.uncounted for report in reports] == [(), ("",), ("",), ("",)]
    assert [bool(report.leaked) for report in reports] == [True, False, False, False]
    assert controller.look(*seen, after_s=1, grace_s=0.0).released == ()
    assert controller.look(*seen, after_s=1, grace_s=0.0).released == (lost,)


def test_an_observation_that_comes_late_undoes_a_newer_one(world):
    """Two observers, and the slower one began first: what it says is older than what is known."""
    controller = Controller(world)
    seen, flapping = [world.allocate("a"), world.allocate("b")], world.allocate("c")
    for after_s in (1, GRACE):
        world.pass_time(after_s)
        late = controller.observe(*seen, ("stranger", 103))
        controller.look(*seen, flapping, after_s=1)
        report = controller.take(late)
        assert (report.leaked, report.unknown, report.uncounted) == ((), (), ("",))
    assert controller.census.suspects == {}


def test_a_sighting_that_comes_late_is_not_believed(world):
    """What lives is believed from any observation: a count too low costs time, one too high a port."""
    controller = Controller(world)
    seen, lost = [world.allocate("a"), world.allocate("b")], world.allocate("lost")
    world.pass_time(1)
    late = controller.observe(lost, complete=False)
    controller.look(*seen)
    controller.look(*seen)
    controller.take(late)
    assert [controller.look(*seen).released for _ in range(3)] == [(), (), (lost,)]


def test_a_lease_on_a_node_that_nobody_looked_at_is_released(world):
    """ray#63920: a node that is not in the list is not an empty node."""
    controller = Controller(world)
    here, there = [world.allocate(name) for name in "abc"], world.allocate("there", node="n2")
    for _ in range(5):
        assert controller.look(*here).released == ()
    assert world.state(there.port, node="n2") == "ALLOCATED"
    reports = [controller.look(*here, nodes=["", "n2"]) for _ in range(3)]
    assert [report.released for report in reports] == [(), (), (there,)]


def test_a_count_outlives_its_lease(world):
    """The port's next lease is another one, also under the same owner: a count is kept by token."""
    controller = Controller(world)
    seen = [world.allocate("a"), world.allocate("b")]
    first = world.allocate("c")
    controller.look(*seen)
    controller.look(*seen)
    world.release(first)
    second = world.allocate("c")
    assert (second.port, second.owner) == (first.port, first.owner)
    assert [controller.look(*seen).released for _ in range(3)] == [(), (), (second,)]
    assert controller.census.suspects.keys() == {second.token}
    controller.look(*seen)
    assert controller.census.suspects == {}


def test_a_leaked_port_is_free_at_once(world):
    """Nomad gave ports on while their tasks still ran, unseen for want of heartbeats (nomad#12600): the hold is waited out in full."""
    controller = Controller(world)
    seen, lost = [world.allocate("a"), world.allocate("b")], world.allocate("lost", service="s")
    for _ in range(3):
        controller.look(*seen)
    assert world.state(lost.port) == "QUARANTINED"
    released = world.events[-1]
    assert (released.kind.value, released.cause, released.token, released.until) == (
        "released", "reconciled", lost.token, world.now + 10 * SECOND,
    )  # fmt: skip
    assert world.replayed().digest() == world.ledger.digest()


def test_a_late_release_ends_the_next_lease(world):
    """A duplicate, stale delete freed the address of a live pod in Cilium (cilium#10066): what is released is a token, not a port."""
    controller = Controller(world)
    seen, lost = [world.allocate("a"), world.allocate("b")], world.allocate("lost", service="s")
    controller.look(*seen)
    controller.look(*seen)
    world.pass_time(GRACE)
    plan = controller.plan(controller.observe(*seen))
    assert plan.report.released == (lost,)
    world.release(lost)
    after = world.allocate("next", service="s")
    assert after.port == lost.port
    with pytest.raises(StaleLease):
        world.release(lost, cause="reconciled")
    assert world.ledger.find("next") == (after,)


def test_a_lease_seen_between_the_plan_and_its_turn_is_due(world):
    controller = Controller(world)
    seen, lost = [world.allocate("a"), world.allocate("b")], world.allocate("lost")
    controller.look(*seen)
    controller.look(*seen)
    world.pass_time(GRACE)
    plan = controller.plan(controller.observe(*seen))
    controller.census.take(plan)
    assert controller.census.is_due(lost.token)
    controller.take(controller.observe(lost, complete=False))
    assert not controller.census.is_due(lost.token)
    controller.census.take(plan)
    controller.census.saw(lost.token)
    assert not controller.census.is_due(lost.token)


# ---------------------------------------------------------------------- how much at a time


@pytest.mark.parametrize(("leases", "leaking", "a_call"), [(3, 1, 1), (9, 4, 1), (19, 9, 1), (20, 9, 2), (39, 12, 3), (100, 50, 10)])
def test_more_than_a_tenth_is_released_at_a_time(crowd, leases, leaking, a_call):
    """Calico reclaims so many a cycle and no more: an observer that is wrong is found out before all is gone."""
    held = leases_of(crowd, leases)
    lost, seen = held[:leaking], held[leaking:]
    crowd.look(*seen)
    crowd.look(*seen)
    first = crowd.look(*seen)
    assert first.breaker == ()
    assert first.leaked == tuple(lost)
    assert first.released == tuple(lost[:a_call])
    second = crowd.look(*seen, after_s=1)
    assert second.released[:1] == tuple(lost[a_call : a_call + 1])


@pytest.mark.parametrize(
    ("leases", "leaking", "trips"), [(1, 1, True), (2, 1, False), (3, 2, True), (10, 5, False), (10, 6, True), (100, 51, True)]
)
def test_an_observer_that_misses_over_half_is_believed(crowd, leases, leaking, trips):
    """Owners of a second kind were forgotten by the observer, and all of their ports looked leaked (kubernetes/kubernetes#54885).

    Kubernetes forgot a second kind of owner, health check ports, and freed them all (kubernetes#54885, #64345).
    """
    held = leases_of(crowd, leases)
    reports = [crowd.look(*held[leaking:]) for _ in range(5)]
    assert [report.breaker for report in reports] == [("p",) if trips else ()] * 5
    assert any(report.released for report in reports) != trips
    assert reports[0].leaked == tuple(held[:leaking])


def test_an_observer_that_was_blind_is_believed_at_its_next_word(crowd):
    """What it missed while it missed over half says nothing: the three are counted anew."""
    held = leases_of(crowd, 10)
    for _ in range(5):
        assert crowd.look(*held[6:]).breaker == ("p",)
    reports = [crowd.look(*held[5:]) for _ in range(3)]
    assert [(report.breaker, report.released) for report in reports] == [((), ()), ((), ()), ((), (held[0],))]


def test_nodes_that_report_one_by_one_slip_under_the_breaker(crowd):
    """Each observation misses little; together they miss over half. Blind agents on all nodes look like that."""
    held = [lease for number in range(10) for lease in leases_of(crowd, 4, node=f"n{number}", prefix=f"n{number}-")]
    for _ in range(4):
        reports = [crowd.look(nodes=[f"n{number}"], after_s=GRACE / 10) for number in range(10)]
        assert not any(report.released for report in reports)
    assert reports[-1].breaker == ("p",)
    assert all(crowd.world.state(lease.port, node=lease.node) == "ALLOCATED" for lease in held)


def test_a_dead_node_of_many_keeps_its_ports(crowd):
    held = [lease for number in range(10) for lease in leases_of(crowd, 4, node=f"n{number}", prefix=f"n{number}-")]
    nodes = [f"n{number}" for number in range(10)]
    reports = [crowd.look(*held[4:], nodes=nodes, after_s=GRACE) for _ in range(3)]
    assert reports[-1].released == tuple(held[:4])


def test_one_pool_that_leaks_stops_another(crowd):
    crowd.world.define("q", ports="400-410")
    held, others = leases_of(crowd, 4), [crowd.world.allocate(f"q{number}", "q") for number in range(4)]
    reports = [crowd.look(held[0], *others[1:]) for _ in range(3)]
    assert reports[-1].breaker == ("p",)
    assert reports[-1].released == (others[0],)


def test_a_reconciler_that_stops_when_nothing_lives(crowd):
    """ray#64910: a return on an empty list skipped the teardown. An empty world is an observation like any other."""
    held = leases_of(crowd, 3)
    assert crowd.look().leaked == tuple(held)
    assert crowd.look().breaker == ("p",)


# ---------------------------------------------------------------------- what it costs


def test_a_look_that_costs_a_call_for_each_lease(empty):
    """ray#64508, #64676: a reconcile of everything took 19 % of the control loop at 8,192 replicas. Ten times the leases, the same
    three differences: not one Python call more.
    """
    empty.do(DefinePool(PoolSpec("p", ports="10000-19999")))
    calls = []
    for until in (200, 2000):
        while len(empty.ledger.pools.get(("", "p"), empty.ledger.pool("p", "")).state) < until:
            empty.do(Allocate("p", owner=f"r{empty.ledger.seq}", service="s"))
        empty.pass_time(1)
        pool = empty.ledger.pools["", "p"]
        held = [pool.lease(offset) for offset in pool.offsets()]
        controller = Controller(empty)
        observation = controller.observe(*held[2:], ("stranger", 19_000))
        controller.plan(observation)
        calls.append(python_calls(lambda: controller.plan(observation)))  # noqa: B023  (run at once)
    assert calls[0] == calls[1]


def python_calls(run):
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count
