"""What a pool says it will have to give, and when, against what it then gives.

aws/amazon-vpc-cni-k8s#1700, #2896: cooling addresses were counted as available, and whoever scaled by that count believed in room that was
not there.
"""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from portfsm import PoolSpec, open_manager
from portfsm._forecast import forecast, held_in_flight
from portfsm.commands import Allocate, Block, DefinePool, Hold, Join, Sweep, Unblock
from portfsm.errors import InvalidValue, PoolExhausted, UnknownPool
from portfsm.testing import FakeWitness

SECOND = 1_000_000_000


def look(world, node=""):
    return forecast(world.ledger.pool("p", node), world.now)


def given_now(world):
    """How many ports strangers really get at this moment, the ledger left as it was."""
    before, taken = world.replayed(), 0
    try:
        while True:
            world.allocate(f"stranger {taken}")
            taken += 1
    except PoolExhausted:
        world.ledger = before
        del world.events[before.seq :]
        return taken


# ---------------------------------------------------------------------- what is free, and when


def test_a_cooling_port_counted_as_room(world):
    for owner in "abc":
        world.release(world.allocate(owner))
        world.pass_time(1)
    ahead = look(world)
    assert (ahead.size, ahead.free, ahead.quarantined) == (4, 1, 3)
    assert [ahead.free_at(world.now + seconds * SECOND) for seconds in (0, 6, 7, 8, 9, 1000)] == [1, 1, 2, 3, 4, 4]
    assert ahead.next_free_at == world.now + 7 * SECOND == world.ledger.statistics("p").next_free_at
    assert (ahead.fits(1), ahead.fits(2), ahead.fits(3, within_s=7.9), ahead.fits(3, within_s=8)) == (True, False, False, True)
    assert (ahead.when(0), ahead.when(4), ahead.when(5)) == (world.now, world.now + 9 * SECOND, None)


def test_a_port_that_is_due_called_held(world):
    """Nobody has noticed yet, but the next `allocate` would: it is to be had now."""
    world.release(world.allocate("a"))
    world.pass_time(12)
    ahead = look(world)
    assert (ahead.free, ahead.quarantined, ahead.free_at(world.now)) == (3, 1, 4)
    assert (ahead.when(4), ahead.rate.taken) == (world.now, 0)


def test_a_port_that_retires_promised(world):
    world.release(world.allocate("a", port=100))
    world.define(ports="101-102")
    ahead = look(world)
    assert (ahead.size, ahead.free, ahead.frees_at, ahead.when(3)) == (2, 2, (), None)


def test_a_block_that_is_forgotten_or_ends_without_its_hold(world):
    world.do(Block("p", 100, reason="r", for_s=5))
    world.do(Block("p", 101, reason="r"))
    assert look(world).frees_at == (world.now + 15 * SECOND,)
    world.pass_time(7)
    assert look(world).frees_at == (world.now + 10 * SECOND,), "its end is noticed now at the earliest, and a hold follows"
    assert world.ledger.statistics("p").next_free_at == world.now + 8 * SECOND, "as recorded"


def test_a_time_given_for_a_port_that_waits_for_a_proxy(world):
    world.do(Join("edge"))
    lease = world.allocate("a")
    world.release(lease)
    for owner in "bcd":
        world.allocate(owner)
    ahead = look(world)
    assert (ahead.kept, ahead.quarantined, ahead.next_free_at, ahead.when(1)) == (1, 1, None, None)
    counts = world.ledger.statistics("p")
    assert (counts.kept, counts.quarantined, counts.next_free_at) == (1, 1, None)
    with pytest.raises(PoolExhausted) as caught:
        world.decide(Allocate("p", owner="x"))
    assert caught.value.next_free_at is None
    assert "1 quarantined, 1 of them for edge and for no time" in str(caught.value)
    assert str(caught.value).endswith("pass wait_s= to wait for the proxies, or release some")


def test_a_silent_proxy_that_time_outvotes(world):
    world.do(DefinePool(PoolSpec("p", ports="100-103", on_silence="free")))
    world.do(Join("edge"))
    world.release(world.allocate("a"))
    assert (look(world).kept, look(world).next_free_at) == (0, world.now + 10 * SECOND)


def test_another_nodes_ports_counted(world):
    world.release(world.allocate("a", node="n"))
    assert look(world).free == 4
    assert look(world, "n").free == 3


steps = st.lists(
    st.tuples(
        st.sampled_from(["allocate", "release", "block", "unblock", "hold", "time"]),
        st.integers(0, 5),
        st.sampled_from([0.5, 3.0, 10.0, 40.0]),
    ),
    max_size=25,
)


@given(steps=steps, hold_s=st.sampled_from([0.0, 3.0, 10.0]), ahead_s=st.sampled_from([0.0, 1.0, 9.5, 10.0, 60.0]))
def test_a_forecast_that_does_not_come_true(steps, hold_s, ahead_s):
    """Scaling believed in room that was not there (amazon-vpc-cni-k8s#2896).

    Whatever happened before: what it says of a later moment is what strangers get then, if nothing happens meanwhile.
    """
    from tests.conftest import World

    world = World()
    world.define(ports="100-105", hold_s=hold_s)
    for kind, number, seconds in steps:
        port, leases = 100 + number, world.ledger.find(f"o{number}")
        state = world.state(port)
        if kind == "allocate" and world.ledger.statistics("p").free:
            world.allocate(f"o{number}")
        elif kind == "release" and leases:
            world.release(leases[0])
        elif kind == "block":
            world.do(Block("p", port, reason="r", for_s=seconds if number % 2 else None))
        elif kind == "unblock" and state != "ALLOCATED":
            world.do(Unblock("p", port))
        elif kind == "hold" and state in ("FREE", "QUARANTINED"):
            world.do(Hold("p", port, hold_s=seconds))
        elif kind == "time":
            world.pass_time(seconds)
            if number % 2:
                world.do(Sweep())
    ahead = look(world)
    then = world.now + round(ahead_s * SECOND)
    wait(world, then)
    assert ahead.free_at(then) == given_now(world)


def wait(world, then):
    """Let time pass, and notice each end as it comes, as somebody who waits for a port does."""
    while ends := [max(view.until, world.now) for view in world.ledger.ports() if view.state.value != "ALLOCATED" and view.until]:
        if min(ends) > then:
            break
        world.now = min(ends)
        world.do(Sweep())
    world.now = then


# ---------------------------------------------------------------------- rates


def test_a_rate_that_the_pool_does_not_bear(world):
    """What is called sustainable is: one start and one stop at that pace, for ever. A little more is not."""
    world.define(ports="100-139", hold_s=10.0)
    for number in range(20):
        world.allocate(f"live {number}")
    assert look(world).sustainable_per_s == 2.0
    assert not churn(world, per_s=2.0, seconds=100)
    assert churn(world, per_s=2.5, seconds=100)


def churn(world, *, per_s, seconds):
    """Whether a pool ran dry under replicas that start, and stop at once."""
    for number in range(round(per_s * seconds)):
        try:
            lease = world.allocate(f"churn {per_s} {number}")
        except PoolExhausted:
            return True
        world.release(lease)
        world.pass_time(1 / per_s)
    return False


def test_a_rate_promised_on_ports_that_do_not_come_back(world):
    world.do(Hold("p", 100, hold_s=3600))
    world.do(Block("p", 101, reason="r"))
    world.allocate("a")
    world.pass_time(11)
    assert (look(world).rate.taken, look(world).sustainable_per_s) == (3, 0.1)
    world.allocate("b")
    assert look(world).sustainable_per_s == 0.0
    world.define(ports="100-109", hold_s=0.0)
    assert look(world).sustainable_per_s == math.inf


def test_a_port_stuck_behind_a_proxy_called_a_release(world):
    """Past its hold it is no sign of a rate any more; it is a port that the pool lacks."""
    world.do(Join("edge"))
    world.release(world.allocate("a"))
    assert (look(world).rate.per_s, look(world).rate.taken) == (1.0, 0)
    world.pass_time(60)
    assert (look(world).rate.per_s, look(world).rate.taken, look(world).short_by) == (0.0, 1, 0)


def test_a_need_that_differs_from_the_refusals(world):
    for owner in "abcd":
        world.release(world.allocate(owner))
        world.pass_time(1)
    with pytest.raises(PoolExhausted) as caught:
        world.decide(Allocate("p", owner="x"))
    assert look(world).short_by == caught.value.short_by == 7  # 4 in 4 s, times 10 s of hold, and one to give, of 4


@pytest.mark.parametrize(("per_s", "hold_s", "held"), [(5, 150, 750), (0.1, 10, 1), (0.07, 100, 7), (0.31, 10, 4), (0, 10, 0), (5, 0, 0)])
def test_a_product_rounded_to_the_wrong_side(per_s, hold_s, held):
    """0.07 * 100 is more than 7 in floating point, and no reason for one more port."""
    assert held_in_flight(per_s, hold_s) == held


# ---------------------------------------------------------------------- bad input, and the manager


@pytest.mark.parametrize("t_ns", [-1, 0, 1.5, None, "now", True])
def test_a_look_back(world, t_ns):
    with pytest.raises(InvalidValue) as caught:
        look(world).free_at(t_ns)
    assert (caught.value.name, caught.value.value) == ("t_ns", t_ns)


@pytest.mark.parametrize("count", [-1, 1.5, None, "2", True])
def test_a_rollout_of_no_number(world, count):
    for ask in (look(world).when, look(world).fits):
        with pytest.raises(InvalidValue) as caught:
            ask(count)
        assert (caught.value.name, caught.value.value) == ("count", count)


@pytest.mark.parametrize("within_s", [-1, math.nan, math.inf, "1"])
def test_a_rollout_within_no_time(world, within_s):
    with pytest.raises(InvalidValue) as caught:
        look(world).fits(1, within_s=within_s)
    assert caught.value.name == "within_s"


@pytest.mark.anyio
async def test_a_forecast_by_another_clock_than_the_holds(memory_log, clock, pool):
    async with open_manager(memory_log.handle(), pools=[pool], clock=clock) as manager:
        await manager.release(await manager.allocate("http", owner="a"))
        clock.step_wall(-3600)
        clock.advance(4)
        ahead = manager.forecast("http")
        assert ahead.next_free_at == ahead.at_ns + 6 * SECOND == manager.statistics("http").next_free_at
        clock.advance(6)
        assert manager.forecast("http").fits(4)
        with pytest.raises(UnknownPool):
            manager.forecast("nope")
        for wrong in ({"pool": 5}, {"pool": "http", "node": None}):
            with pytest.raises(InvalidValue):
                manager.forecast(**wrong)
        assert len(memory_log.kinds()) == 2, "looking recorded something"


@pytest.mark.anyio
async def test_a_controller_that_cannot_tell_ports_kept_from_ports_held(memory_log, clock, pool):
    async with open_manager(memory_log.handle(), pools=[pool], clock=clock, witnesses=[FakeWitness("edge")]) as manager:
        await manager.release(await manager.allocate("http", owner="a"))
        found = manager.statistics()
        assert (found.kept, found.next_free_at) == (found.quarantined, None)
