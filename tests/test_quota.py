"""Shares of a pool: no service above its hard quota, and none takes above its soft one what others still need.

RFC 6888 (REQ-4): a limit on the ports of one subscriber, so that one cannot take them all.
"""

from __future__ import annotations

import random
from collections import Counter

import attrs
import pytest

from portfsm import PoolSpec, Quota, Request
from portfsm._decide import decide
from portfsm._dump import dump, load, spec_data
from portfsm._ledger import Ledger
from portfsm._whatif import Change, what_if
from portfsm.commands import Adopt, Allocate, AllocateGroup, Block, DefinePool, Hold, Sweep
from portfsm.errors import InvalidValue, OwnerConflict, PoolExhausted, QuotaExceeded

SECOND = 1_000_000_000


def spec(*quotas, ports="100-105", **options):
    return PoolSpec("p", ports=ports, hold_s=10.0, quotas=quotas, **options)


def define(world, *quotas, **options):
    world.do(DefinePool(spec(*quotas, **options)))


def refused(world, service, owner="one more", kind=QuotaExceeded, **options):
    with pytest.raises(kind) as caught:
        world.decide(Allocate("p", owner=owner, service=service, **options))
    return caught.value


# ---------------------------------------------------------------------- hard


def test_a_service_above_its_hard_quota(empty):
    define(empty, Quota("a", hard=2))
    first, second = [empty.allocate(f"a{number}", service="a") for number in range(2)]
    error = refused(empty, "a")
    assert (error.node, error.pool, error.service, error.quota, error.held, error.kept_for_others) == ("", "p", "a", 2, 2, 0)
    assert "service 'a' holds 2 ports of pool 'p' and may hold 2: release one" in str(error)
    refused(empty, "a", port=105)
    assert empty.do(Allocate("p", owner="a1", service="a")) == [], "a repeat takes nothing"
    empty.allocate("b", service="b")
    empty.allocate("nobody's")
    empty.release(first)
    assert empty.allocate("a2", service="a").port == first.port, "and its own port counts no more than another"
    refused(empty, "a")


def test_a_group_takes_what_one_by_one_would_be_refused(empty):
    """Its ports count together, those of other services do not, and what it takes back of its own takes nothing from others."""
    define(empty, Quota("a", hard=3), Quota("b", soft=2))
    lease = empty.allocate("a0", service="a")
    two = [Request("p", "g", service="a", count=2), Request("p", "h", service="a")]
    for requests in ([Request("p", "g", service="a", count=3)], two):
        with pytest.raises(QuotaExceeded, match="may hold 3"):
            empty.decide(AllocateGroup(requests))
    with pytest.raises(QuotaExceeded, match="kept for 'b' \\(2\\)"):
        empty.decide(AllocateGroup([Request("p", "g", service="c", count=4)]))
    assert len(empty.do(AllocateGroup([Request("p", "g", service="a", count=2), Request("p", "c", service="c")]))) == 3
    empty.release(lease)
    assert empty.do(AllocateGroup([Request("p", "a0", service="a")])) == ["allocated"]


def test_a_quota_that_counts_another_node(empty):
    define(empty, Quota("a", hard=1))
    empty.allocate("a0", service="a")
    empty.allocate("a1", service="a", node="n")
    assert refused(empty, "a", node="n").node == "n"


def test_a_service_that_no_quota_names(empty):
    """`*` is each named service by itself; leases without a service are nobody's."""
    define(empty, Quota("*", hard=1), Quota("big", hard=3))
    for number in range(2):
        empty.allocate(f"anybody {number}")
    empty.allocate("a", service="a")
    empty.allocate("b", service="b")
    assert refused(empty, "a").quota == 1
    empty.allocate("big 0", service="big")
    empty.allocate("big 1", service="big")


def test_a_lease_that_is_counted_for_ever(empty):
    """However it ended: released, blocked, expired; or handed on with its port to another service."""
    define(empty, Quota("a", hard=1), Quota("b", hard=1))
    for end in ({}, {"block": "in use"}, {"cause": "expired"}):
        empty.release(empty.allocate("a", service="a"), **end)
    lease = empty.allocate("a", service="a")
    empty.do(Block("p", lease.port, reason="r"))
    empty.allocate("a again", service="a")
    refused(empty, "a")
    lease = empty.allocate("b", service="b")
    empty.release(lease)
    empty.allocate("b", service="")
    empty.allocate("b2", service="b")
    refused(empty, "b", owner="b3")


def test_an_adoption_refused_for_a_quota(empty):
    """It states what is so; and it counts."""
    define(empty, Quota("a", hard=1))
    empty.allocate("a0", service="a")
    assert empty.do(Adopt("p", 105, owner="a1", service="a")) == ["adopted"]
    assert refused(empty, "a").held == 2


def test_a_repeat_with_other_wishes_that_the_quota_hides(empty):
    define(empty, Quota("a", hard=1))
    empty.allocate("a0", service="a")
    refused(empty, "b", owner="a0", kind=OwnerConflict)


def test_a_quota_changed_while_leases_stand(empty):
    define(empty, Quota("a", hard=3))
    for number in range(3):
        empty.allocate(f"a{number}", service="a")
    define(empty, Quota("a", hard=1))
    assert (refused(empty, "a").held, refused(empty, "a").quota) == (3, 1)
    assert len(list(empty.ledger.ports())) == 3, "nobody loses what it holds"
    define(empty)
    empty.allocate("a3", service="a")


# ---------------------------------------------------------------------- soft


def test_a_share_that_others_have_taken(empty):
    """Six ports, two kept for `a`: others get four, and then wait for what is not kept."""
    define(empty, Quota("a", soft=2))
    for number in range(4):
        empty.allocate(f"b{number}", service="b" if number % 2 else "")
    for service in ("b", ""):
        error = refused(empty, service)
        assert (error.quota, error.held, error.kept_for_others) == (0, 2, 2)
    assert "of the 2 that are free 2 are kept for 'a' (2)" in str(error)
    empty.allocate("a0", service="a")
    assert refused(empty, "b").kept_for_others == 1
    empty.allocate("a1", service="a")
    assert isinstance(refused(empty, "b", kind=PoolExhausted), PoolExhausted), "now there is nothing at all"


def test_a_service_above_its_share_that_takes_what_nobody_needs(empty):
    define(empty, Quota("a", soft=2), Quota("b", soft=2))
    for number in range(4):
        empty.allocate(f"a{number}", service="a")
    error = refused(empty, "a")
    assert (error.quota, error.held, error.kept_for_others) == (2, 4, 2)
    for number in range(2):
        empty.allocate(f"b{number}", service="b")


def test_a_share_kept_for_one_that_has_it(empty):
    define(empty, Quota("a", soft=2))
    for number in range(2):
        empty.allocate(f"a{number}", service="a")
    for number in range(4):
        empty.allocate(f"b{number}", service="b")


def test_a_ports_own_service_kept_from_it(empty):
    """Taking up one's own quarantined port takes nothing from what is free."""
    define(empty, Quota("a", soft=5))
    empty.release(empty.allocate("b", service="b"))
    assert empty.allocate("b2", service="b").port == 100
    refused(empty, "b")


def test_a_hold_that_is_over_counted_as_taken(empty):
    define(empty, Quota("a", soft=1), ports="100-101")
    empty.release(empty.allocate("b", service="b"))
    refused(empty, "c")
    empty.pass_time(10)
    assert empty.do(Allocate("p", owner="c", service="c")) == ["freed", "allocated"]


def test_a_hold_cut_off_for_one_above_its_share(empty):
    """Under pressure, too, the port that is freed early is its share's first."""
    define(empty, Quota("a", soft=1), ports="100-101", floor_s=1.0, held_max=0.0, on_pressure="free-earliest")
    for owner in "bc":
        empty.do(Adopt("p", 100 if owner == "b" else 101, owner=owner, service=owner))
        empty.release(empty.ledger.find(owner)[0])
    empty.pass_time(2)
    assert refused(empty, "x").kept_for_others == 1
    assert empty.do(Allocate("p", owner="a", service="a")) == ["freed", "allocated"]
    assert empty.do(Allocate("p", owner="x", service="x")) == ["freed", "allocated"]


# ---------------------------------------------------------------------- whatever happens


@pytest.mark.parametrize("seed", range(6))
def test_a_walk_that_breaks_a_quota_or_refuses_without_need(empty, seed):
    """Against counts taken from the events alone, and against an index made afresh."""
    dice = random.Random(seed)
    define(empty, Quota("a", hard=3, soft=2), Quota("b", soft=2), Quota("*", hard=4), ports="100-107")
    hard, soft = {"a": 3, "c": 4}, {"a": 2, "b": 2}  # "b" has a quota of its own, and no hard one
    for number in range(300):
        living = [view for view in empty.ledger.ports() if view.state.value == "ALLOCATED"]
        step = dice.choice("aaaarrthwp")
        if step == "a":
            service = dice.choice(["a", "b", "c", ""])
            held = Counter(view.service for view in living)
            quarantined = [view for view in empty.ledger.ports() if view.state.value == "QUARANTINED"]
            pool = empty.ledger.pool("p", "")
            mine = [view for view in quarantined if not pool.is_stranger(view.port - 100, f"r{number}", service, empty.now)]
            free = 8 - len(list(empty.ledger.ports())) + sum(view.until <= empty.now for view in quarantined)
            kept = sum(max(0, share - held[name]) for name, share in soft.items() if name != service)
            allowed = held[service] < hard.get(service, 99)
            share = bool(mine) or held[service] < soft.get(service, 0) or free - 1 >= kept
            command = Allocate("p", owner=f"r{number}", service=service)
            expected = QuotaExceeded if not allowed else None if mine else PoolExhausted if not free else None if share else QuotaExceeded
            for ledger in (empty.ledger, empty.replayed()):
                try:
                    decide(ledger, command, now_ns=empty.now)
                    found = None
                except (QuotaExceeded, PoolExhausted) as error:
                    found = type(error)
                assert found is expected
            if expected is None:
                empty.allocate(f"r{number}", service=service)
        elif step == "r" and living:
            empty.release(empty.ledger.find(dice.choice(living).owner)[0], **dice.choice([{}, {}, {"block": "r", "for_s": 3.0}]))
        elif step == "p" and living:
            view = dice.choice(living)
            if view.service != "a":
                empty.release(empty.ledger.find(view.owner)[0])
                empty.do(Adopt("p", view.port, owner=f"adopted {number}", service=dice.choice(["b", ""])))
        elif step == "h":
            free = [port for port in range(100, 108) if empty.state(port) == "FREE"]
            empty.do(Hold("p", dice.choice(free), hold_s=5)) if free else None
        else:
            empty.pass_time(dice.choice([0.5, 3]))
            empty.do(Sweep())
            empty.do(Sweep())  # the hold after a block that ended
    assert Counter(view.service for view in empty.ledger.ports() if view.state.value == "ALLOCATED")["a"] <= 3


# ---------------------------------------------------------------------- the log


def test_quotas_that_a_replay_or_a_snapshot_loses(empty):
    define(empty, Quota("b", soft=1), Quota("a", hard=2, soft=1))
    empty.allocate("a0", service="a")
    assert empty.events[0].data["quotas"] == {"a": {"hard": 2, "soft": 1}, "b": {"soft": 1}}
    reloaded = Ledger()
    load(reloaded, list(dump(empty.ledger)))
    for ledger in (empty.replayed(), reloaded):
        assert ledger.specs["p"] == empty.ledger.specs["p"]
        assert ledger.digest() == empty.ledger.digest()
    assert empty.do(DefinePool(spec(Quota("a", soft=1, hard=2), Quota("b", soft=1)))) == [], "their order means nothing"


def test_an_old_log_that_digests_otherwise():
    assert "quotas" not in spec_data(spec(), "")


def test_a_log_of_a_time_before_the_quota_that_cannot_be_read(empty):
    """What was granted was granted: replay does not ask."""
    define(empty)
    for number in range(3):
        empty.allocate(f"a{number}", service="a")
    defined = empty.events[0]
    empty.events[0] = type(defined)(defined.seq, defined.ts, defined.kind, pool="p", data=spec_data(spec(Quota("a", hard=1)), ""))
    assert len(empty.replayed().find("a2")) == 1


def test_a_plan_in_which_a_quota_keeps_others_back(empty):
    define(empty, Quota("a", hard=1), ports="100-103")
    empty.release(empty.allocate("a0", service="a"))
    empty.allocate("a1", service="a")
    data = spec_data(spec(ports="100-103"), "")
    empty.events[0] = type(empty.events[0])(1, empty.events[0].ts, empty.events[0].kind, pool="p", data=data)
    assert what_if(empty.events, Change(hold_s=1.0)).waits == []


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", ["hard", "soft"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, 70_000, float("nan")])
def test_a_quota_that_is_no_number(name, value):
    with pytest.raises(InvalidValue) as caught:
        Quota("a", **{name: value})
    assert caught.value.name == name
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (lambda: Quota("a"), "hard", "limits nothing"),
        (lambda: Quota("", hard=1), "service", "must not be empty"),
        (lambda: Quota("a\n", hard=1), "service", "control character"),
        (lambda: Quota("x" * 300, hard=1), "service", "bytes"),
        (lambda: Quota(5, hard=1), "service", "must be a string"),
        (lambda: Quota("a", hard=1, soft=2), "soft", "lower soft"),
        (lambda: Quota("*", soft=1), "soft", "name the service"),
        (lambda: spec(Quota("a", hard=1), Quota("a", soft=1)), "quotas", "two quotas"),
        (lambda: spec(Quota("a", soft=4), Quota("b", soft=3)), "quotas", "keep 7 ports of the pool's 6"),
        (lambda: spec("a"), "quotas", "must be a list of Quota"),
        (lambda: PoolSpec("p", ports="1", quotas={"a": 5}), "quotas", "must be a list of Quota"),
        (lambda: PoolSpec("p", ports="1", quotas=5), "quotas", "must be a list of Quota"),
        (lambda: PoolSpec("p", ports="1", quotas=None), "quotas", "must be a list of Quota"),
        (lambda: attrs.evolve(spec(Quota("a", soft=4)), ports="1-3"), "quotas", "keep 4 ports of the pool's 3"),
    ],
)
def test_quotas_that_contradict_themselves(make, name, says):
    with pytest.raises(InvalidValue, match=says.replace("*", r"\*")) as caught:
        make()
    assert caught.value.name == name


def test_a_quota_that_cannot_be_compared():
    assert Quota("a", hard=1) == Quota("a", hard=1)
    assert len({spec(Quota("a", hard=1)), spec(Quota("a", hard=1))}) == 1
