"""Commands met by `decide`: each in each state, repeated, late, from another log, and with arguments that are none."""

from __future__ import annotations

import attrs
import pytest

from portfsm.commands import Adopt, Allocate, Block, Free, Hold, Release, ReleaseOwner, Sweep, Unblock, Withdraw
from portfsm.errors import IllegalTransition, InvalidValue, OwnerConflict, PortOutOfRange, PortUnavailable, StaleLease, UnknownPool
from portfsm.specs import MAX_HOLD_S

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


@pytest.mark.parametrize(
    "command", [Allocate("nope", owner="a"), Adopt("nope", 100, owner="a"), Block("nope", 100, reason="r"), Sweep(pool="nope")]
)
def test_a_pool_that_nobody_defined(world, command):
    with pytest.raises(UnknownPool) as caught:
        world.decide(command)
    assert caught.value.known == ("p",)


@pytest.mark.parametrize("port", [99, 104])
@pytest.mark.parametrize(
    "command", [Unblock, lambda pool, port: Allocate(pool, owner="a", port=port), lambda pool, port: Block(pool, port, reason="r")]
)
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
