"""The record against the world, without loop, clock or journal: when a leak is believed, and what every sighting means.

A lease released while its owner lives is a port given twice, one hold later; so most tests here are about not releasing.
"""

from __future__ import annotations

import sys
from itertools import combinations, product

import attrs
import pytest

from portfsm import InvalidValue, Lease, Observation, PoolSpec, Request, Sighting, StaleLease, UnknownPool
from portfsm._reconcile import Census
from portfsm.commands import Adopt, Allocate, AllocateGroup, Block, DefinePool, Open, Sweep, Withdraw
from portfsm.states import PortState

SECOND = 1_000_000_000
GRACE = 60


@attrs.define
class Controller:
    """Somebody who looks at a world, and has done what each look leads to."""

    world: object
    census: Census = attrs.field(factory=Census)

    def observe(self, *live, nodes=("",), complete=True, started=None):
        """Each of `live`: a lease, a sighting, or (owner, port)."""
        return Observation(nodes, map(as_sighting, live), started or self.world.now, complete=complete)

    def plan(self, observation, *, grace_s=GRACE):
        return self.census.plan(observation, self.world.ledger, now_ns=self.world.now, leak_grace_s=grace_s)

    def take(self, observation, *, grace_s=GRACE):
        plan = self.plan(observation, grace_s=grace_s)
        self.census.take(plan)
        for lease in plan.report.released:
            assert self.census.is_due(lease.token)
            self.world.release(lease, cause="reconciled")
        return plan.report

    def look(self, *live, after_s=GRACE, grace_s=GRACE, **options):
        """Some time later one more look."""
        self.world.pass_time(after_s)
        return self.take(self.observe(*live, **options), grace_s=grace_s)


def as_sighting(what):
    if isinstance(what, Lease):
        return Sighting(what.owner, what.node, what.pool, what.port, what.service)
    return what if isinstance(what, Sighting) else Sighting(what[0], "", "p", what[1])


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
