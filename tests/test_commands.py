"""Commands met by `decide`: each in each state, repeated, late, lazy, and over the edges of ranges and of time."""

from __future__ import annotations

import attrs
import pytest

from portfsm import _decide
from portfsm.commands import (
    Adopt,
    Allocate,
    Block,
    Close,
    DefinePool,
    Free,
    Hold,
    Open,
    Release,
    ReleaseOwner,
    Sweep,
    Unblock,
    Withdraw,
)
from portfsm.errors import (
    IllegalTransition,
    InvalidValue,
    OwnerConflict,
    PoolExhausted,
    PortOutOfRange,
    PortUnavailable,
    StaleLease,
    UnknownPool,
)
from portfsm.specs import MAX_HOLD_S, PoolSpec

SECOND = 1_000_000_000

CALLS = {
    "block": lambda last, former: Block("p", 100, reason="again"),
    "unblock": lambda last, former: Unblock("p", 100),
    "hold longer": lambda last, former: Hold("p", 100, hold_s=60),
    "hold shorter": lambda last, former: Hold("p", 100, hold_s=1),
    "hold not at all": lambda last, former: Hold("p", 100, hold_s=0),
    "free": lambda last, former: Free("p", 100, reason="asked for"),
    "release": lambda last, former: Release(last),
    "release, former": lambda last, former: Release(former),
    "release to block": lambda last, former: Release(last, block="in use"),
    "release to block, former": lambda last, former: Release(former, block="in use"),
    "withdraw": lambda last, former: Withdraw(last),
    "withdraw, former": lambda last, former: Withdraw(former),
    "adopt, holder": lambda last, former: Adopt("p", 100, owner="last", service="s2"),
    "adopt, other": lambda last, former: Adopt("p", 100, owner="other"),
    "allocate it, holder": lambda last, former: Allocate("p", owner="last", service="s2", port=100),
    "allocate it, same service": lambda last, former: Allocate("p", owner="other", service="s2", port=100),
    "allocate it, other": lambda last, former: Allocate("p", owner="other", service="s1", port=100),
    "release all of the holder": lambda last, former: ReleaseOwner("last"),
    "sweep": lambda last, former: Sweep(),
}

EXPECTED = """
| call                      | FREE        | ALLOCATED         | QUARANTINED     | BLOCKED           |
| block                     | blocked     | blocked           | blocked         | -                 |
| unblock                   | -           | IllegalTransition | -               | unblocked         |
| hold longer               | held        | IllegalTransition | held            | IllegalTransition |
| hold shorter              | held        | IllegalTransition | -               | IllegalTransition |
| hold not at all           | -           | IllegalTransition | -               | IllegalTransition |
| free                      | -           | IllegalTransition | freed           | IllegalTransition |
| release                   | -           | released          | -               | -                 |
| release, former           | StaleLease  | StaleLease        | -               | -                 |
| release to block          | blocked     | blocked           | blocked         | -                 |
| release to block, former  | StaleLease  | StaleLease        | -               | -                 |
| withdraw                  | -           | withdrawn         | -               | -                 |
| withdraw, former          | StaleLease  | StaleLease        | -               | -                 |
| adopt, holder             | adopted     | -                 | adopted         | adopted           |
| adopt, other              | adopted     | OwnerConflict     | adopted         | adopted           |
| allocate it, holder       | allocated   | -                 | allocated       | PortUnavailable   |
| allocate it, same service | allocated   | PortUnavailable   | allocated       | PortUnavailable   |
| allocate it, other        | allocated   | PortUnavailable   | PortUnavailable | PortUnavailable   |
| release all of the holder | -           | released          | -               | -                 |
| sweep                     | -           | -                 | -               | -                 |
"""  # The first rows are section 2 of the contract, word for word.


def _cases():
    head, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in EXPECTED.strip().splitlines()]
    return [(row[0], state, cell) for row in rows for state, cell in zip(head[1:], row[1:], strict=True)]


ERRORS = {error.__name__: error for error in (IllegalTransition, OwnerConflict, PortUnavailable, StaleLease)}


@pytest.mark.parametrize(("call", "state", "expected"), _cases())
def test_a_call_that_meets_another_state_than_it_expects(world, call, state, expected):
    command = CALLS[call](*world.put(state))
    before = world.ledger.digest()
    if expected in ERRORS:
        with pytest.raises(ERRORS[expected]):
            world.decide(command)
        assert world.ledger.digest() == before
        return
    events = world.decide(command)
    assert world.ledger.digest() == before, "deciding changed the ledger"
    assert [event.kind.value for event in events] == ([] if expected == "-" else [expected])
    world.do(command)
    assert world.replayed().digest() == world.ledger.digest()


@pytest.mark.parametrize(("call", "state", "expected"), [case for case in _cases() if case[2] not in ERRORS])
def test_a_call_that_is_not_safe_to_repeat(world, call, state, expected):
    """At once, after a replay, and after a time step back: the reply was lost and the caller asks again."""
    command = CALLS[call](*world.put(state))
    world.do(command)
    assert world.do(command) == []
    world.ledger = world.replayed()
    world.pass_time(-3600)
    assert world.do(command) == []


@pytest.mark.parametrize("command", [Allocate("nope", owner="a"), Adopt("nope", 100, owner="a"), Block("nope", 100, reason="r"), Sweep(pool="nope")])
def test_a_pool_that_nobody_defined(world, command):
    with pytest.raises(UnknownPool) as caught:
        world.decide(command)
    assert caught.value.known == ("p",)


@pytest.mark.parametrize("port", [99, 104])
@pytest.mark.parametrize("command", [Unblock, lambda pool, port: Allocate(pool, owner="a", port=port), lambda pool, port: Block(pool, port, reason="r")])
def test_a_number_just_outside_the_range(world, command, port):
    with pytest.raises(PortOutOfRange):
        world.decide(command("p", port))


def test_a_decision_on_what_is_no_command(world):
    with pytest.raises(TypeError, match="not a command"):
        world.decide("allocate")


# ---------------------------------------------------------------------- tokens


@pytest.mark.parametrize("command", [Release, Withdraw, lambda lease: Release(lease, block="x")])
@pytest.mark.parametrize("state", ["FREE", "ALLOCATED", "QUARANTINED", "BLOCKED"])
@pytest.mark.parametrize("token", [-1, 0, "+1", 10**9])
def test_a_lease_that_this_log_never_gave(world, command, state, token):
    """A port never leased has token 0, and a lease of token 0 must not fit it."""
    last, _ = world.put(state)
    with pytest.raises(InvalidValue) as caught:
        world.decide(command(attrs.evolve(last, token=last.token + 1 if token == "+1" else token)))
    assert caught.value.name == "lease"


def test_a_token_of_nought_that_blocks_a_port_never_leased(world):
    world.do(Hold("p", 100, hold_s=5))
    lease = attrs.evolve(world.allocate("a", port=101), port=100, token=0)
    for _ in range(2):
        with pytest.raises(InvalidValue):
            world.decide(Release(lease, block="x"))
        world.do(Free("p", 100, reason="asked for"))


@pytest.mark.parametrize("port", [99, 103, 60_000])
def test_a_lease_on_a_port_that_has_no_record(world, port):
    lease = world.allocate("a")
    with pytest.raises(InvalidValue):
        world.decide(Release(attrs.evolve(lease, port=port)))


def test_a_withdrawal_logged_under_the_name_that_the_caller_made_up(world):
    lease = world.allocate("a")
    world.do(Withdraw(attrs.evolve(lease, owner="b", service="x")))
    assert (world.events[-1].owner, world.events[-1].service) == ("a", "")


def test_a_token_that_starts_over_after_retirement_and_return(world):
    last, _ = world.put("FREE")
    world.define(ports="101-103")
    world.define(ports="100-103")
    assert world.ledger.port("p", 100).token == last.token
    assert world.allocate("new", port=100).token > last.token
    with pytest.raises(StaleLease):
        world.decide(Release(last))


def test_a_stale_lease_of_a_retired_port(world):
    """Retired ports keep their tokens: a former lease is told, the last one is done."""
    last, former = world.put("FREE")
    world.define(ports="101-103")
    with pytest.raises(StaleLease):
        world.decide(Release(former))
    assert world.do(Release(last)) == world.do(Release(last, block="x")) == world.do(Withdraw(last)) == []


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
    """Own before same service before the pool's order."""
    empty.define(order=order)
    leases = [empty.allocate(owner, service=service, port=port) for owner, service, port in [("a", "s", 102), ("b", "s", 101), ("c", "t", 103)]]
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
    """All are due at once: the one whose hold ended first has been idle longest."""
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


# ---------------------------------------------------------------------- time is noticed lazily


def test_a_hold_that_ends_by_itself(world):
    world.release(world.allocate("a"))
    world.pass_time(3600)
    assert world.state(100) == "QUARANTINED"
    assert world.ledger.port("p", 100).until < world.now
    assert world.do(Sweep()) == ["freed"]
    assert world.state(100) == "FREE"
    assert world.ledger.port("p", 100).owner == ""


def test_a_port_given_a_nanosecond_early(empty):
    empty.define(ports="100")
    empty.release(empty.allocate("a"))
    empty.now = empty.ledger.port("p", 100).until - 1
    with pytest.raises(PoolExhausted):
        empty.decide(Allocate("p", owner="b"))
    with pytest.raises(PortUnavailable):
        empty.decide(Allocate("p", owner="b", port=100))
    empty.now += 1
    assert empty.do(Allocate("p", owner="b")) == ["freed", "allocated"]


def test_an_allocate_that_leaves_due_ports_unnoticed(world):
    for owner in "abc":
        world.allocate(owner)
    world.do(Block("p", 100, reason="r", for_s=5))
    world.release(world.ledger.find("b")[0])
    world.do(Block("p", 103, reason="for ever"))
    world.pass_time(20)
    assert world.do(Allocate("p", owner="x")) == ["unblocked", "freed", "allocated"]
    assert [world.state(port) for port in range(100, 104)] == ["QUARANTINED", "ALLOCATED", "ALLOCATED", "BLOCKED"]
    assert [event.cause for event in world.events[-3:]] == ["elapsed", "elapsed", ""]


def test_a_block_whose_end_makes_a_port_free_without_a_hold(empty):
    empty.define(ports="100")
    empty.do(Block("p", 100, reason="r", for_s=5))
    empty.pass_time(5)
    with pytest.raises(PoolExhausted):
        empty.decide(Allocate("p", owner="a"))
    assert empty.do(Sweep()) == ["unblocked"]
    assert empty.ledger.port("p", 100).until == empty.now + 10 * SECOND


@pytest.mark.parametrize("port", [None, 100])
def test_a_block_that_ends_in_a_pool_without_holds(empty, port):
    empty.define(ports="100", hold_s=0.0)
    empty.do(Block("p", 100, reason="r", for_s=5))
    empty.pass_time(5)
    assert empty.do(Allocate("p", owner="a", port=port)) == ["unblocked", "freed", "allocated"]


def test_one_allocate_that_frees_a_thousand(empty):
    empty.define(ports="1000-1999")
    for number in range(1000):
        empty.allocate(f"o{number}")
    for number in range(1000):
        empty.do(ReleaseOwner(f"o{number}"))
        empty.pass_time(0.001)
    empty.pass_time(60)
    kinds = empty.do(Allocate("p", owner="x"))
    assert kinds == ["freed"] * _decide.DRAIN_LIMIT + ["allocated"]
    freed = [event.port for event in empty.events[-len(kinds) : -1]]
    assert freed == list(range(1000, 1000 + _decide.DRAIN_LIMIT)), "those that ended first"
    assert empty.do(Allocate("p", owner="y", port=1900))[-1] == "allocated"


@pytest.mark.parametrize("hindrance", ["blocks that end", "ports that retire"])
def test_a_free_port_hidden_behind_many_that_are_due(empty, hindrance):
    """What is due first becomes no free port; the one that does must still be found."""
    empty.define(ports="1000-1300")
    for number in range(200):
        lease = empty.allocate(f"o{number}")
        if hindrance == "blocks that end":
            empty.release(lease, block="r", for_s=5)
        else:
            empty.release(lease)
    empty.pass_time(1)
    if hindrance == "ports that retire":
        empty.define(ports="1200-1300")
    for number in range(101):
        empty.release(empty.allocate(f"p{number}"))
    empty.pass_time(3600)
    assert empty.do(Allocate("p", owner="x"))[-1] == "allocated"
    assert empty.events[-1].port >= 1200
    assert empty.replayed().digest() == empty.ledger.digest()


def test_a_sweep_without_end(empty):
    """A batch is bounded; what is left is swept by the next one."""
    empty.define(ports="1000-6999", hold_s=1.0)
    for number in range(6000):
        empty.do(Hold("p", 1000 + number, hold_s=1))
    empty.pass_time(2)
    assert [len(empty.do(Sweep())) for _ in range(3)] == [4096, 1904, 0]


def test_a_sweep_of_one_pool_or_node_that_reaches_others(world):
    world.define("q", ports="200")
    for pool, node in (("p", ""), ("p", "n"), ("q", "")):
        world.release(world.allocate("a", pool, node=node))
    world.pass_time(60)
    assert world.do(Sweep(pool="p", node="n")) == ["freed"]
    assert (world.events[-1].node, world.events[-1].pool) == ("n", "p")
    assert len(world.do(Sweep())) == 2


def test_a_clock_set_back_that_frees_early_or_records_time_going_back(world):
    world.release(world.allocate("a"))
    released = world.events[-1]
    world.pass_time(-7200)
    world.do(Sweep())
    assert world.state(100) == "QUARANTINED"
    world.do(Block("p", 101, reason="r", for_s=1))
    assert world.events[-1].ts == released.ts
    assert world.events[-1].until == released.ts + SECOND


@pytest.mark.parametrize("now", [0, -1])
def test_a_clock_at_the_dawn_of_time_that_makes_a_port_look_unused(empty, now):
    empty.now = now
    empty.define()
    empty.allocate("a")
    assert [view.port for view in empty.ledger.ports()] == [100]
    assert empty.ledger.port("p", 100).since == 1


# ---------------------------------------------------------------------- ending a lease


def test_a_release_that_frees_at_once(world):
    lease = world.allocate("a", service="s")
    assert world.release(lease) == ["released"]
    event = world.events[-1]
    assert (event.owner, event.service, event.token, event.cause) == ("a", "s", lease.token, "released")
    assert (event.hold_ms, event.until) == (10_000, world.now + 10 * SECOND)
    view = world.ledger.port("p", lease.port)
    assert (view.state.value, view.owner, view.service, view.until) == ("QUARANTINED", "a", "s", event.until)


def test_a_pool_without_holds_that_is_freed_in_two_steps(empty):
    empty.define(hold_s=0.0)
    lease = empty.allocate("a")
    assert empty.release(lease) == ["released", "freed"]
    empty.do(Block("p", 100, reason="r"))
    assert empty.do(Unblock("p", 100)) == ["unblocked", "freed"]


def test_a_cancelled_call_that_costs_the_pool_a_port(world):
    lease = world.allocate("a")
    assert world.release(lease, cause="cancelled") == ["released", "freed"]
    assert world.state(lease.port) == "FREE"


@pytest.mark.parametrize("cause", ["cancelled", "released", "expired"])
@pytest.mark.parametrize("hold_s", [0.0, 1.0])
def test_an_earlier_hold_that_a_short_second_lease_cuts_off(world, cause, hold_s):
    """Traffic meant for the first holder does not end because a second one of the same service came and went."""
    world.release(world.allocate("a", service="s"))
    until = world.ledger.port("p", 100).until
    world.define(hold_s=hold_s)
    world.pass_time(2)
    second = world.allocate("b", service="s")
    assert second.port == 100
    assert world.release(second, cause=cause) == ["released"]
    assert world.ledger.port("p", 100).until == until
    assert world.events[-1].hold_ms == 8000


def test_an_earlier_hold_that_a_short_block_cuts_off(world):
    world.do(Hold("p", 100, hold_s=3600))
    until = world.ledger.port("p", 100).until
    world.do(Block("p", 100, reason="r", for_s=1))
    world.pass_time(2)
    assert world.do(Sweep()) == ["unblocked"]
    assert (world.state(100), world.ledger.port("p", 100).until) == ("QUARANTINED", until)


def test_an_earlier_hold_that_a_block_in_a_pool_without_holds_cuts_off(empty):
    empty.define(ports="100", hold_s=0.0)
    empty.do(Hold("p", 100, hold_s=60))
    empty.do(Block("p", 100, reason="r", for_s=1))
    empty.pass_time(2)
    for port in (None, 100):
        with pytest.raises((PoolExhausted, PortUnavailable)):
            empty.decide(Allocate("p", owner="a", port=port))
    assert empty.do(Unblock("p", 100)) == ["unblocked"]


def test_an_earlier_hold_that_an_adoption_from_a_block_cuts_off(world):
    world.do(Hold("p", 100, hold_s=3600))
    until = world.ledger.port("p", 100).until
    world.do(Block("p", 100, reason="r"))
    world.do(Adopt("p", 100, owner="a"))
    world.release(world.ledger.find("a")[0])
    assert world.ledger.port("p", 100).until == until


def test_a_block_that_keeps_its_former_holder_a_secret_from_the_log(world):
    lease = world.allocate("a", service="s")
    world.do(Block("p", 100, reason="broken", for_s=30))
    event = world.events[-1]
    assert (event.owner, event.service, event.token, event.reason, event.cause) == ("a", "s", lease.token, "broken", "operator")
    view = world.ledger.port("p", 100)
    assert (view.owner, view.service, view.reason, view.until) == ("a", "s", "broken", world.now + 30 * SECOND)
    assert not world.ledger.find("a")


def test_a_block_that_ends_and_still_counts_against_the_next_one(world):
    world.do(Block("p", 100, reason="first", for_s=5))
    assert world.do(Block("p", 100, reason="second")) == []
    assert world.ledger.port("p", 100).reason == "first"
    world.pass_time(5)
    assert world.do(Block("p", 100, reason="second")) == ["unblocked", "blocked"]
    assert [event.cause for event in world.events[-2:]] == ["elapsed", "operator"]
    view = world.ledger.port("p", 100)
    assert (view.state.value, view.reason, view.until) == ("BLOCKED", "second", None)


@pytest.mark.parametrize("ports", ["100-103", "101-103"], ids=["inside", "outside by now"])
def test_a_second_block_in_a_pool_without_holds_that_passes_through_free(empty, ports):
    """Outside the ranges it would retire on the way, and the block could not happen to it."""
    empty.define(hold_s=0.0)
    empty.do(Block("p", 100, reason="first", for_s=5))
    empty.define(hold_s=0.0, ports=ports)
    empty.pass_time(5)
    assert empty.do(Block("p", 100, reason="second")) == ["unblocked", "blocked"]
    assert empty.replayed().digest() == empty.ledger.digest()


def test_a_last_owner_that_is_forgotten_over_a_block(world):
    """After the block the same service may have it back within the hold, and nobody else."""
    world.release(world.allocate("a", service="s"), block="in use", for_s=1)
    world.pass_time(1)
    world.do(Sweep())
    with pytest.raises(PortUnavailable):
        world.decide(Allocate("p", owner="b", service="t", port=100))
    assert world.do(Allocate("p", owner="b", service="s", port=100)) == ["allocated"]


def test_an_owner_released_in_half(world):
    world.define("q", ports="200")
    for pool, node in (("p", ""), ("p", "n"), ("q", "")):
        world.allocate("a", pool, node=node)
    world.allocate("b")
    assert world.do(ReleaseOwner("a", node="n")) == ["released"]
    assert world.do(ReleaseOwner("a")) == ["released", "released"]
    assert world.do(ReleaseOwner("a")) == []
    assert len(world.ledger.find("b")) == 1


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


# ---------------------------------------------------------------------- the operator's hand


def test_a_hold_that_is_not_rounded_up(world):
    world.do(Hold("p", 100, hold_s=0.0001))
    assert (world.events[-1].hold_ms, world.events[-1].until) == (1, world.now + 1_000_000)


def test_a_word_of_the_operator_that_is_not_recorded(world):
    world.release(world.allocate("a"))
    world.do(Hold("p", 100, hold_s=60, reason="load balancer is slow"))
    assert world.ledger.port("p", 100).reason == "load balancer is slow"
    world.do(Free("p", 100, reason="checked by hand"))
    event = world.events[-1]
    assert (event.kind, event.cause, event.reason) == ("freed", "operator", "checked by hand")
    world.do(Block("p", 101, reason="r"))
    world.do(Unblock("p", 101, reason="repaired"))
    assert (world.events[-1].cause, world.events[-1].reason, world.events[-1].hold_ms) == ("operator", "repaired", 10_000)


def test_a_held_port_that_remembers_a_last_owner_it_never_had(world):
    world.do(Hold("p", 100, hold_s=60))
    view = world.ledger.port("p", 100)
    assert (view.owner, view.service, view.token) == ("", "", 0)
    assert world.allocate("a").port == 101


# ---------------------------------------------------------------------- pools


def test_a_spec_in_force_that_is_recorded_again(world):
    assert world.do(DefinePool(PoolSpec("p", ports=[103, 102, 100, 101]))) == []
    assert world.do(DefinePool(PoolSpec("p", ports="100-103", hold_s=11))) == ["pool_defined"]
    assert world.events[-1].data == {"ports": "100-103", "hold_s": 11.0, "floor_s": 0.0, "order": "lowest"}


@pytest.mark.parametrize("ports", ["99-103", "100-104", "1-2,100-103,65535"])
def test_a_range_that_grows_only_for_later_nodes(world, ports):
    for owner in "abcd":
        world.allocate(owner)
    world.define(ports=ports)
    grown = PoolSpec("p", ports=ports)
    new = [world.allocate(f"o{number}").port for number in range(grown.size - 4)]
    assert sorted([*new, 100, 101, 102, 103]) == [number for piece in grown.ports for number in piece]
    with pytest.raises(PoolExhausted):
        world.allocate("one more")
    assert world.ledger.digest() == world.replayed().digest()


@pytest.mark.parametrize("state", ["ALLOCATED", "QUARANTINED", "BLOCKED"])
def test_a_port_that_left_the_range_and_is_given_again(world, state):
    last, _ = world.put(state)
    world.define(ports="101-103")
    counts = world.ledger.statistics("p")
    assert (counts.size, counts.free, counts.retired) == (3, 3, 1)
    assert world.ledger.port("p", 100).state.value == state, "held: still to be seen"
    world.do(Unblock("p", 100)) if state == "BLOCKED" else world.do(Release(last))
    world.pass_time(60)
    world.do(Sweep())
    assert world.ledger.statistics("p").retired == 0
    for command in (Allocate("p", owner="x", port=100), Hold("p", 100, hold_s=1), Block("p", 100, reason="r"), Free("p", 100, reason="r")):
        with pytest.raises(PortOutOfRange):
            world.decide(command)
    assert [world.allocate(owner).port for owner in "xyz"] == [101, 102, 103]


def test_a_quarantined_port_outside_the_ranges_that_its_owner_gets_back(world):
    lease = world.allocate("a", port=100)
    world.release(lease)
    world.define(ports="101-103")
    assert world.allocate("a").port == 101


def test_a_holder_outside_the_ranges_that_is_given_a_second_port(world):
    lease = world.allocate("a", port=100)
    world.define(ports="101-103")
    assert world.do(Allocate("p", owner="a")) == world.do(Allocate("p", owner="a", port=lease.port)) == []


def test_a_range_that_comes_back_without_its_holds(world):
    last, _ = world.put("QUARANTINED")
    until = world.ledger.port("p", 100).until
    world.define(ports="101-103")
    world.define(ports="100-103")
    assert world.ledger.port("p", 100).until == until
    assert world.ledger.statistics("p").retired == 0
    assert world.allocate("x").port == 101


# ---------------------------------------------------------------------- the log itself


def open_(world, boot, **options):
    return world.do(Open(world.ledger.epoch + 1, "holder", boot, 1, 1, **options))


def test_a_hold_that_a_reboot_shortens(world):
    """What a clock that was lost says of the time since is worth nothing: each hold starts over in full."""
    open_(world, "one")
    world.release(world.allocate("a"))
    world.do(Hold("p", 101, hold_s=3600))
    world.do(Block("p", 102, reason="r"))
    world.pass_time(9)
    assert open_(world, "one") == ["opened"]
    assert sorted(open_(world, "two")) == ["held", "held", "opened"]
    assert {event.cause for event in world.events[-3:] if event.kind == "held"} == {"reboot"}
    assert world.ledger.port("p", 100).until == world.now + 10 * SECOND
    assert world.ledger.port("p", 101).until == world.now + 3600 * SECOND
    assert world.ledger.port("p", 101).until - world.ledger.port("p", 101).since > 3600 * SECOND


def test_a_first_opening_that_holds_ports(world):
    assert open_(world, "one") == ["opened"]


def test_holds_that_start_over_although_the_operator_trusts_the_clock(world):
    open_(world, "one")
    world.release(world.allocate("a"))
    assert open_(world, "two", restart_holds=False) == ["opened"]


def test_a_hold_lengthened_or_shortened_before_a_reboot(world):
    """Full means the longer of what was asked for and what the pool asks for now."""
    open_(world, "one")
    world.release(world.allocate("a"))
    world.define(hold_s=2.0)
    open_(world, "two")
    assert world.ledger.port("p", 100).until == world.now + 10 * SECOND
    world.define(hold_s=60.0)
    open_(world, "three")
    assert world.ledger.port("p", 100).until == world.now + 60 * SECOND
    world.define(hold_s=1.0)
    world.pass_time(1)
    open_(world, "four")
    assert world.ledger.port("p", 100).until == world.now + 60 * SECOND, "a second restart forgot the first"


def test_a_crash_in_the_middle_of_an_opening_that_loses_half_of_the_holds(empty):
    """The new boot is named in the last batch, so the next opening finds the rest not restarted, and restarts all."""
    empty.define(ports="1000-3999")
    open_(empty, "one")
    for number in range(3000):
        empty.do(Hold("p", 1000 + number, hold_s=10))
    empty.pass_time(9)
    opening = empty.decide(Open(2, "holder", "two", 1, 1))
    kinds = [event.kind.value for event in opening]
    assert len(opening) - kinds.index("opened") <= 2049, "opened and what follows fit one batch"
    empty.ledger = empty.replayed()
    empty.ledger.fold(opening[: kinds.index("opened")])
    empty.events += opening[: kinds.index("opened")]
    empty.pass_time(3)
    open_(empty, "two")
    assert {view.until for view in empty.ledger.ports()} == {empty.now + 10 * SECOND}


@pytest.mark.parametrize("epoch", [-1, 0, 1])
def test_an_opening_that_the_log_would_refuse(world, epoch):
    open_(world, "one")
    with pytest.raises(InvalidValue) as caught:
        world.decide(Open(epoch, "holder", "one", 1, 1))
    assert caught.value.name == "epoch"


def test_what_an_opening_had_to_mend_is_lost(world):
    open_(world, "one", recovered="a torn tail of 12 bytes was cut")
    event = world.events[-1]
    assert event.reason == "a torn tail of 12 bytes was cut"
    assert event.data == {"epoch": 1, "holder": "holder", "boot": "one", "boot_ns": 1, "wall_ns": 1}
    assert world.do(Close()) == ["closed"]


# ---------------------------------------------------------------------- arguments


LONG = "x" * 257


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("owner", lambda lease: Allocate("p", owner="")),
        ("owner", lambda lease: Allocate("p", owner=LONG)),
        ("owner", lambda lease: Allocate("p", owner="a\x1b[2J")),
        ("owner", lambda lease: Allocate("p", owner=None)),
        ("node", lambda lease: Allocate("p", owner="a", node=LONG)),
        ("node", lambda lease: Allocate("p", owner="a", node=None)),
        ("service", lambda lease: Allocate("p", owner="a", service="a\nb")),
        ("port", lambda lease: Allocate("p", owner="a", port=0)),
        ("port", lambda lease: Allocate("p", owner="a", port=65_536)),
        ("port", lambda lease: Allocate("p", owner="a", port=True)),
        ("port", lambda lease: Allocate("p", owner="a", port="100")),
        ("port", lambda lease: Adopt("p", 0, owner="a")),
        ("owner", lambda lease: Adopt("p", 100, owner="")),
        ("node", lambda lease: Adopt("p", 100, owner="a", node="\x00")),
        ("service", lambda lease: Adopt("p", 100, owner="a", service=LONG)),
        ("hold_s", lambda lease: Hold("p", 100, hold_s=-1)),
        ("hold_s", lambda lease: Hold("p", 100, hold_s=float("nan"))),
        ("hold_s", lambda lease: Hold("p", 100, hold_s=float("inf"))),
        ("hold_s", lambda lease: Hold("p", 100, hold_s=MAX_HOLD_S * 1.01)),
        ("port", lambda lease: Hold("p", -1, hold_s=1)),
        ("reason", lambda lease: Hold("p", 100, hold_s=1, reason="a\u202eb")),
        ("reason", lambda lease: Free("p", 100, reason="")),
        ("port", lambda lease: Free("p", 100.0, reason="r")),
        ("reason", lambda lease: Block("p", 100, reason="")),
        ("reason", lambda lease: Block("p", 100, reason="x" * 1025)),
        ("for_s", lambda lease: Block("p", 100, reason="r", for_s=-0.5)),
        ("node", lambda lease: Block("p", 100, reason="r", node="a\tb")),
        ("port", lambda lease: Unblock("p", 0)),
        ("reason", lambda lease: Unblock("p", 100, reason="\x07")),
        ("block", lambda lease: Release(lease, block="")),
        ("for_s", lambda lease: Release(lease, block="r", for_s=float("nan"))),
        ("for_s", lambda lease: Release(lease, for_s=5)),
        ("owner", lambda lease: ReleaseOwner("")),
        ("node", lambda lease: ReleaseOwner("a", node="\x85")),
    ],
)
def test_an_argument_that_no_state_could_allow(world, name, make):
    """Refused when the command is made, with the parameter's name and no advice meant for another one."""
    lease = world.allocate("holder")
    with pytest.raises(InvalidValue) as caught:
        make(lease)
    assert caught.value.name == name
    assert ("replica" in str(caught.value)) <= (name == "owner")


def test_a_command_that_changes_after_it_was_checked():
    for command in (Allocate("p", owner="a"), Sweep(), Block("p", 1, reason="r")):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            command.pool = "q"
