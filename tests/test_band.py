"""The static band: the lowest ports, for those who ask for a number, until nothing else is free.

Kubernetes splits its ranges for the same reason (KEP-3668): a number chosen by hand collided with one that an automatic pick had taken.
"""

from __future__ import annotations

import random

import pytest

from portfsm import PoolSpec
from portfsm._decide import decide
from portfsm._dump import spec_data
from portfsm._index import Index
from portfsm.commands import Allocate, Block, DefinePool, Sweep, Unblock
from portfsm.errors import InvalidValue, PoolExhausted

ORDERS = ["lowest", "longest-idle", "random"]


def define(world, order, *, ports="100-104,110-114", static=4, hold_s=10.0):
    world.do(DefinePool(PoolSpec("p", ports=ports, order=order, static=static, hold_s=hold_s), seed="s"))


@pytest.mark.parametrize("order", ORDERS)
def test_a_number_for_hands_taken_by_a_pick(empty, order):
    """The lowest four of two ranges are picked last, and then all of them."""
    define(empty, order)
    picks = [empty.allocate(f"r{number}").port for number in range(10)]
    assert sorted(picks[:6]) == [104, 110, 111, 112, 113, 114]
    assert sorted(picks[6:]) == [100, 101, 102, 103]
    with pytest.raises(PoolExhausted):
        empty.allocate("x")


@pytest.mark.parametrize("order", ["lowest", "longest-idle"])
def test_a_band_that_is_entered_in_another_order(empty, order):
    define(empty, order, static=4, hold_s=0.0)
    for port in (101, 100):
        empty.release(empty.allocate("hand", port=port))
        empty.pass_time(1)
    for number in range(6):
        empty.allocate(f"r{number}")
    found = [empty.allocate(f"s{number}").port for number in range(4)]
    assert found == ([100, 101, 102, 103] if order == "lowest" else [102, 103, 101, 100])


@pytest.mark.parametrize("order", ORDERS)
def test_a_number_of_the_band_that_nobody_gets(empty, order):
    define(empty, order)
    assert empty.allocate("hand", port=102).port == 102
    assert empty.allocate("x").port >= 104


@pytest.mark.parametrize("order", ORDERS)
def test_a_service_that_does_not_get_its_own_port_back(empty, order):
    define(empty, order)
    empty.release(empty.allocate("hand", service="s", port=100))
    assert empty.allocate("r", service="s").port == 100


@pytest.mark.parametrize("order", ORDERS)
def test_a_band_entered_although_a_hold_above_it_is_over(empty, order):
    define(empty, order, ports="100-103", static=2)
    leases = [empty.allocate(f"r{number}") for number in range(2)]
    for lease in leases:
        empty.release(lease)
    empty.pass_time(10)
    assert empty.allocate("x").port >= 102
    assert empty.allocate("y").port >= 102
    assert empty.allocate("z").port < 102


@pytest.mark.parametrize("order", ORDERS)
def test_a_hold_in_the_band_that_is_over_and_not_given(empty, order):
    define(empty, order, ports="100-102", static=1)
    empty.release(empty.allocate("hand", port=100))
    for owner in "ab":
        empty.allocate(owner)
    empty.pass_time(10)
    assert empty.allocate("x").port == 100


def test_a_band_that_stays_where_the_pool_was(empty):
    define(empty, "longest-idle", ports="100-109", static=2)
    empty.release(empty.allocate("a", port=101))
    empty.pass_time(10)
    empty.do(Sweep())
    define(empty, "longest-idle", ports="98-103", static=2)
    assert sorted(empty.allocate(f"r{number}").port for number in range(4)) == [100, 101, 102, 103]
    define(empty, "lowest", ports="98-103", static=0)
    assert empty.allocate("x").port == 98


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", range(4))
def test_a_walk_that_enters_the_band_without_need(empty, seed, order):
    """Against a look at every row, and against an index made afresh: whatever happened, above the band first."""
    dice = random.Random(seed)
    define(empty, order, hold_s=3.0)
    numbers = [100, 101, 102, 103, 104, 110, 111, 112, 113, 114]
    for number in range(250):
        living = [view.owner for view in empty.ledger.ports() if view.state.value == "ALLOCATED"]
        step = dice.choice("aaaanrrrtbu")
        if step == "a":
            before = {port: empty.state(port) for port in numbers}
            due = {view.port for view in empty.ledger.ports() if view.state.value == "QUARANTINED" and view.until <= empty.now}
            command = Allocate("p", owner=f"r{number}")
            try:
                decided = empty.decide(command)
            except PoolExhausted:
                assert not due
                assert "FREE" not in before.values()
                continue
            assert decided == decide(empty.replayed(), command, now_ns=empty.now), "an index made afresh leads elsewhere"
            port = empty.allocate(f"r{number}").port
            free = {port for port in numbers if before[port] == "FREE"} | due
            assert port in free
            assert port >= 104 or max(free) < 104
            if order == "lowest":
                assert port == min(found for found in free if found >= 104 or max(free) < 104)
        elif step == "n" and empty.state(port := dice.choice(numbers)) == "FREE":
            empty.allocate(f"r{number}", port=port)
        elif step == "r" and living:
            empty.release(empty.ledger.find(dice.choice(living))[0])
        elif step == "b":
            empty.do(Block("p", dice.choice(numbers), reason="r"))
        elif step == "u":
            for view in [view for view in empty.ledger.ports() if view.state.value == "BLOCKED"]:
                empty.do(Unblock("p", view.port))
        elif step == "t":
            empty.pass_time(dice.choice([0.5, 2, 4]))
    pool = empty.ledger.pool("p", "")
    if order == "longest-idle":
        assert all(entry & 0xFFFF >= pool.index.band for entry in (pool.index or Index(pool)).idle)


def test_an_old_log_that_digests_otherwise():
    assert "static" not in spec_data(PoolSpec("p", ports="1-2"), "")
    assert spec_data(PoolSpec("p", ports="1-2", static=1), "")["static"] == 1


@pytest.mark.parametrize("value", [-1, 4, 5, 1.0, "1", None, True])
def test_a_band_that_leaves_nothing(value):
    with pytest.raises(InvalidValue, match="leave at least one of the pool's 4") as caught:
        PoolSpec("p", ports="1-4", static=value)
    assert (caught.value.name, caught.value.value) == ("static", value)


def test_an_environment_that_is_not_read(monkeypatch):
    monkeypatch.setenv("HTTP_PORTS", "1-9")
    monkeypatch.setenv("HTTP_STATIC", "3")
    assert PoolSpec.from_env("HTTP").static == 3
    for text in ("-1", "many", "9"):
        monkeypatch.setenv("HTTP_STATIC", text)
        with pytest.raises(InvalidValue, match="HTTP_STATIC"):
            PoolSpec.from_env("HTTP")
