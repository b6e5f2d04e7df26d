"""What no value may be made of, without a manager."""

from __future__ import annotations

import pytest

from portfsm import (
    Adopt,
    Allocate,
    Block,
    CommandRejected,
    DefinePool,
    Free,
    Hold,
    InvalidValue,
    PoolSpec,
    Release,
    ReleaseOwner,
    Sweep,
    Unblock,
    Withdraw,
)
from tests.bad_input.junk import CONTROLS, NO_PORTS, NO_SECONDS, NO_TEXTS, named


@pytest.mark.parametrize("value", NO_PORTS, ids=named)
def test_a_pool_of_ports_that_are_none(value):
    for ports in ([value], [1, value]):
        with pytest.raises(InvalidValue) as caught:
            PoolSpec("http", ports=ports)
        assert caught.value.name == "ports"


@pytest.mark.parametrize("value", [None, *NO_SECONDS], ids=named)
@pytest.mark.parametrize("name", ["hold_s", "floor_s"])
def test_a_pool_whose_hold_is_no_length_of_time(name, value):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec("http", ports="1-5", **{name: value})
    assert caught.value.name == name
    assert f"{value!r}"[:20] in str(caught.value)


@pytest.mark.parametrize("name", ["", "x" * 65, "Http", "ht tp", "ht/tp", "höttp", "http\n", *CONTROLS, None, *NO_TEXTS], ids=named)
def test_a_pool_name_that_no_command_line_could_pass(name):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec(name, ports="1-5")
    assert "[a-z0-9._-]{1,64}" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ports", ["5-1", "1-5,5", "1-5,3-9", [range(1, 6), 5], [7, 7], "1-5,1-5"], ids=str)
def test_a_port_that_is_in_a_pool_twice(ports):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec("http", ports=ports)
    assert any(way in str(caught.value) for way in ("name each port once", "write the lower number first"))


@pytest.mark.parametrize(
    "make",
    [
        lambda pool: Allocate(pool, owner="a"),
        lambda pool: Adopt(pool, 1, owner="a"),
        lambda pool: Block(pool, 1, reason="r"),
        lambda pool: Unblock(pool, 1),
        lambda pool: Hold(pool, 1, hold_s=1),
        lambda pool: Free(pool, 1, reason="r"),
    ],
)
@pytest.mark.parametrize("pool", [None, *NO_TEXTS], ids=named)
def test_a_command_whose_pool_is_no_text(make, pool):
    with pytest.raises(InvalidValue) as caught:
        make(pool)
    assert caught.value.name == "pool"


@pytest.mark.parametrize("make", [Release, Withdraw, DefinePool])
@pytest.mark.parametrize("value", [None, *NO_TEXTS], ids=named)
def test_a_command_about_something_else(make, value):
    with pytest.raises(InvalidValue) as caught:
        make(value)
    assert caught.value.name in {"lease", "spec"}


@pytest.mark.parametrize("command", [Sweep(pool="q"), Sweep(pool=5), Sweep(pool=[]), Sweep(node=5), Sweep(node="a\n")], ids=str)
def test_a_sweep_of_a_pool_that_is_none(world, command):
    with pytest.raises(CommandRejected):
        world.decide(command)


def test_a_refusal_by_a_command_that_touches_the_ledger(world):
    world.allocate("holder")
    before = world.ledger.digest()
    for command in (Allocate("q", owner="a"), Adopt("q", 1, owner="a"), Block("q", 1, reason="r"), Free("p", 65_535, reason="r")):
        with pytest.raises(CommandRejected):
            world.decide(command)
    assert world.decide(ReleaseOwner("nobody")) == ()
    assert world.ledger.digest() == before
