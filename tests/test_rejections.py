"""What a refusal says and carries: the facts as fields, and a sentence that ends in what to do next."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from portfsm import errors
from portfsm._rejections import utc
from portfsm.commands import Adopt, Allocate, Block, Hold, Release, Sweep, Unblock
from portfsm.states import EventKind, PortState

SECOND = 1_000_000_000
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.PortfsmError)]


def refusal(world, command):
    with pytest.raises(errors.CommandRejected) as caught:
        world.decide(command)
    return caught.value


def fields(error):
    return {name: getattr(error, name) for name in error.fields}


# ---------------------------------------------------------------------- every error


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_loses_its_facts_on_the_way_through_a_process_pool(kind):
    facts = {name: f"value of {name}" for name in kind.fields}
    error = kind("what happened: do this", **facts)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert str(other) == "what happened: do this"
        assert fields(other) == facts


@pytest.mark.parametrize("kind", KINDS)
def test_a_fact_that_is_missing_or_made_up(kind):
    error = kind("text")
    assert all(value is None for value in fields(error).values())
    with pytest.raises(TypeError, match="colour"):
        kind("text", colour="red")


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_announced_and_not_carried(kind):
    """Annotations are what type checkers and readers see; `fields` is what is filled."""
    annotated = {name for each in kind.__mro__ for name in vars(each).get("__annotations__", {})} - {"fields"}
    assert set(kind.fields) == annotated


def test_an_error_that_the_callers_except_clause_misses():
    tree = {kind.__name__: {base.__name__ for base in kind.__mro__} for kind in KINDS}
    for name in (
        "PoolExhausted",
        "PortUnavailable",
        "OwnerConflict",
        "StaleLease",
        "UnknownPool",
        "PortOutOfRange",
        "IllegalTransition",
        "InvalidValue",
    ):
        assert "CommandRejected" in tree[name]
    for name in ("JournalLocked", "JournalCorrupt", "JournalFull", "Fenced", "OutcomeUnknown", "JournalTooNew", "JournalUnreadable"):
        assert "JournalError" in tree[name]
        assert "CommandRejected" not in tree[name]
    assert "ValueError" in tree["InvalidValue"]
    assert set(errors.__all__) == set(tree)


# ---------------------------------------------------------------------- exhaustion


def test_exhaustion_without_numbers(world):
    leases = [world.allocate(owner, node="n") for owner in "abc"]
    world.do(Block("p", 103, node="n", reason="r", for_s=1))
    world.release(leases[1])
    first_end = world.now + 10 * SECOND
    world.pass_time(2)
    world.release(leases[0])
    error = refusal(world, Allocate("p", owner="x", node="n"))
    assert isinstance(error, errors.PoolExhausted)
    assert (error.node, error.pool) == ("n", "p")
    assert error.counts == {"FREE": 0, "ALLOCATED": 1, "QUARANTINED": 2, "BLOCKED": 1}
    assert error.next_free_at == first_end
    assert str(error).endswith(f"the next hold ends at {utc(first_end)}, pass wait_s= to wait for it")
    assert "'p' has no free port on node 'n': 1 allocated, 2 quarantined, 1 blocked of 4" in str(error)


def test_a_wait_advised_where_nothing_will_come(world):
    for owner in "abc":
        world.allocate(owner)
    world.do(Block("p", 103, reason="r"))
    error = refusal(world, Allocate("p", owner="x"))
    assert error.next_free_at is None
    assert "wait" not in str(error)
    assert str(error).endswith("release some, or unblock some")
    assert error.short_by == 1


def test_a_wait_advised_for_a_port_that_will_retire(world):
    """Its hold ends, and then it leaves the pool."""
    world.release(world.allocate("a", port=100))
    world.define(ports="101")
    world.allocate("b")
    error = refusal(world, Allocate("p", owner="x"))
    assert error.next_free_at is None
    assert error.counts == {"FREE": 0, "ALLOCATED": 1, "QUARANTINED": 0, "BLOCKED": 0}
    assert error.short_by == 1


@pytest.mark.parametrize(
    ("releases", "apart_s", "short_by"),
    [
        (4, 1.0, 11),  # 4 in 3 s are 1.33 a second, times 10 s of hold: 14 in quarantine, and one to give
        (4, 0.0, 37),  # a burst: as if within one second
        (4, 3.0, 2),
    ],
)
def test_a_pool_size_guessed(world, releases, apart_s, short_by):
    """Little's law: the rate of releases times the hold is what is quarantined in the long run."""
    leases = [world.allocate(owner) for owner in "abcd"]
    for lease in leases[:releases]:
        world.release(lease)
        world.pass_time(apart_s)
    world.pass_time(-apart_s)
    assert refusal(world, Allocate("p", owner="x")).short_by == short_by


# ---------------------------------------------------------------------- the other refusals


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("ALLOCATED", "ask for another number, or release that lease"),
        ("QUARANTINED", "wait, or end the hold with free()"),
        ("BLOCKED", "end the block with unblock()"),
    ],
)
def test_a_number_refused_without_a_reason(world, state, advice):
    world.put(state)
    error = refusal(world, Allocate("p", owner="x", port=100))
    assert isinstance(error, errors.PortUnavailable)
    until = world.now + 10 * SECOND if state == "QUARANTINED" else None
    assert fields(error) == {"node": "", "pool": "p", "port": 100, "state": PortState[state], "owner": "last", "until": until}
    assert str(error).startswith(f"port 100 of pool 'p' is {state} since {utc(world.now)} by 'last'")
    assert (f"until {utc(world.now + 10 * SECOND)}" in str(error)) == (state == "QUARANTINED")
    assert str(error).endswith(advice)


def test_a_conflict_that_names_one_side_only(world):
    world.allocate("a", service="s", node="n")
    error = refusal(world, Adopt("p", 100, owner="b", node="n"))
    assert isinstance(error, errors.OwnerConflict)
    assert fields(error) == {"node": "n", "pool": "p", "port": 100, "holder": "a", "claimant": "b", "conflict": "owner", "claimed": 100}
    assert str(error) == "port 100 of pool 'p' on node 'n' is held by 'a', and 'b' claims it: find out which one listens there"
    error = refusal(world, Allocate("p", owner="a", node="n", service="t"))
    assert (error.holder, error.claimant) == ("a", "a")
    assert "for service 's'" in str(error)
    assert str(error).endswith("release it first, or ask for the same")


def test_a_stale_lease_that_is_not_told_what_came_after(world):
    last, former = world.put("ALLOCATED")
    error = refusal(world, Release(former))
    assert isinstance(error, errors.StaleLease)
    assert fields(error) == {"node": "", "pool": "p", "port": 100, "token": former.token, "current": last.token}
    assert str(error).endswith("drop the old lease, nothing was changed")


def test_a_lease_from_another_log_taken_for_a_stale_one(world, empty):
    last, _ = world.put("ALLOCATED")
    other = type(empty)()
    other.define()
    error = refusal(other, Release(last))
    assert isinstance(error, errors.InvalidValue)
    assert (error.name, error.value) == ("lease", last)
    assert str(error).endswith("was it taken from another log?")


@pytest.mark.parametrize(
    ("state", "command", "kind", "advice"),
    [
        ("ALLOCATED", Unblock("p", 100), EventKind.UNBLOCKED, "release the lease first, or block the port to end it"),
        ("ALLOCATED", Hold("p", 100, hold_s=1), EventKind.HELD, "release the lease first, or block the port to end it"),
        ("BLOCKED", Hold("p", 100, hold_s=1), EventKind.HELD, "unblock it first"),
    ],
)
def test_a_wrong_state_without_a_way_out(world, state, command, kind, advice):
    world.put(state)
    error = refusal(world, command)
    assert isinstance(error, errors.IllegalTransition)
    assert fields(error) == {"node": "", "pool": "p", "port": 100, "state": PortState[state], "kind": kind, "seq": None}
    assert str(error) == f"port 100 of pool 'p' is {state} and cannot be {kind.value}: {advice}"


def test_a_number_outside_that_is_not_told_the_range(world):
    for command in (Allocate("p", owner="a", port=50, node="n"), Block("p", 50, reason="r", node="n")):
        error = refusal(world, command)
        assert isinstance(error, errors.PortOutOfRange)
        assert fields(error) == {"node": "n", "pool": "p", "port": 50, "ranges": "100-103"}
        assert str(error).endswith("name one inside, or widen the pool's ports")


def test_a_misspelt_pool_that_is_not_told_the_others(world, empty):
    world.define("q", ports="7")
    error = refusal(world, Allocate("P", owner="a"))
    assert fields(error) == {"pool": "P", "known": ("p", "q")}
    assert str(error) == "no pool is named 'P'; defined: p, q. Add it to pools=[...]"
    assert "defined: none" in str(refusal(type(empty)(), Allocate("p", owner="a")))


def test_a_refusal_that_leaves_a_trace(world):
    world.put("ALLOCATED")
    before = world.ledger.digest(), list(world.ledger.ports()), world.ledger.statistics()
    for command in (
        Allocate("p", owner="x", port=100),
        Adopt("p", 100, owner="x"),
        Unblock("p", 100),
        Allocate("p", owner="last", node="n", port=7),
    ):
        refusal(world, command)
    assert (world.ledger.digest(), list(world.ledger.ports()), world.ledger.statistics()) == before
    assert world.do(Sweep()) == []


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999999Z"),
    ],
)
def test_a_time_rounded_into_the_future_or_another_zone(ns, text, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert utc(ns) == text
