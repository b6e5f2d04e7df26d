"""A group obeys what its pools say of the static band and of too many ports held back, as a plain allocation does.

The band is KEP-3668's: a number that people ask for by hand is not lost to a pick. The pressure is RFC 6888's (REQ-8): the share that is
held back has a cap, and what happens beyond it is configured, recorded and never below the floor.
"""

from __future__ import annotations

import random

import anyio
import pytest

from portfsm import PoolSpec, open_manager
from portfsm.commands import Block, DefinePool, Hold, Join
from portfsm.errors import GroupUnavailable, InvalidValue, PoolExhausted
from portfsm.groups import Request
from tests.groups.asking import block, given, group
from tests.groups.callers import Callers

SECOND = 1_000_000_000
ORDERS = ["lowest", "longest-idle", "random"]


def define(world, name="p", *, ports="100-111", hold_s=10.0, **policy):
    world.do(DefinePool(PoolSpec(name, ports=ports, hold_s=hold_s, **policy), seed="s"))


def kept_for(world, ports):
    """Somebody holds these for ever."""
    for port in ports:
        world.allocate(f"at {port}", port=port)


# ---------------------------------------------------------------------- the band


@pytest.mark.parametrize("order", ORDERS)
def test_a_number_for_hands_taken_by_a_group(empty, order):
    """The lowest four come last, whatever the order; then all of them."""
    define(empty, static=4, order=order)
    assert min(given(empty, Request("p", "a", count=5), Request("p", "b", count=2))) >= 104
    rest = given(empty, Request("p", "c", count=5))
    assert max(rest) >= 104
    assert len(set(rest) - set(range(100, 104))) == 1


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_laid_into_the_band_while_there_is_room_above_it(empty, order):
    define(empty, static=4, order=order)
    assert min(given(empty, block(4, "a"))) >= 104
    kept_for(empty, [port for port in range(104, 112) if empty.state(port) == "FREE" and port != 104])
    if empty.state(104) == "FREE":
        assert given(empty, block(3, "b")) == [102, 103, 104], "no more of the band than there must be"
    else:
        assert given(empty, block(3, "b")) == [101, 102, 103]


@pytest.mark.parametrize("order", ORDERS)
def test_one_number_on_two_nodes_taken_from_the_band_of_one(empty, order):
    define(empty, static=4, order=order)
    ports = given(empty, *(Request("p", "a", node=node, count=3, same_port="k") for node in ("", "n2")))
    assert ports[:3] == ports[3:]
    assert min(ports) >= 104
    for port in range(104, 111):
        empty.allocate(f"x{port}", node="n3", port=port)
    ports = given(empty, *(Request("p", "b", node=node, count=2, same_port="k") for node in ("n2", "n3")))
    assert max(ports[:2]) == 111 or min(ports) < 104
    assert ports[:2] == ports[2:]


@pytest.mark.parametrize("order", ORDERS)
def test_a_number_of_the_band_that_no_group_may_ask_for(empty, order):
    define(empty, static=4, order=order)
    assert given(empty, Request("p", "a", port=102), block(2, "b", align=2))[0] == 102


def test_a_group_that_does_not_get_its_own_port_of_the_band_back(empty):
    define(empty, static=4)
    empty.release(empty.allocate("hand", service="s", port=101))
    assert given(empty, Request("p", "a", service="s", count=2)) == [101, 104]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", ORDERS)
def test_a_walk_in_which_a_group_enters_the_band_without_need(empty, order, seed):
    """Against a look at every row: single ports enter it when nothing above is left, a block when none fits above."""
    dice = random.Random(f"{order} {seed}")
    define(empty, static=4, order=order, hold_s=3.0, ports="100-104,106-111")
    for number in range(120):
        for view in [view for view in empty.ledger.ports() if dice.random() < 0.25 and view.state.value == "ALLOCATED"]:
            empty.release(next(lease for lease in empty.ledger.find(view.owner) if lease.port == view.port))
        empty.pass_time(dice.choice([0, 1, 4]))
        numbers = [*range(100, 105), *range(106, 112)]
        views = [empty.ledger.port("p", port) for port in numbers]
        free = {view.port for view in views if view.state.value == "FREE" or (view.until or 1 << 62) <= empty.now}
        count, contiguous = dice.randint(1, 4), dice.random() < 0.5
        try:
            got = given(empty, Request("p", f"g{number}", count=count, contiguous=contiguous))
        except (GroupUnavailable, InvalidValue):
            continue
        assert set(got) <= free
        if contiguous:
            above = [first for first in free if first > 103 and {*range(first, first + count)} <= free]
            assert got[0] > 103 or not above
        else:
            assert min(got) > 103 or not {port for port in free if port > 103} - set(got)


# ---------------------------------------------------------------------- freeing early


@pytest.fixture
def pressed(empty):
    """Twelve ports: 100-107 quarantined since 0, 1 ... 7 s, the others held; the moment is 8 s, the floor three."""
    define(empty, floor_s=3.0, held_max=0.25, on_pressure="free-earliest")
    leases = [empty.allocate(f"r{number}", service=f"s{number}") for number in range(12)]
    for lease in leases[:8]:
        empty.release(lease)
        empty.pass_time(1)
    return empty


def cut_off(world, wanted):
    return [event for event in world.decide(wanted) if event.cause == "pressure"]


def test_a_group_refused_where_a_single_request_would_be_served(pressed):
    """As many as it lacks, the earliest end first, each said to be cut off."""
    assert [event.port for event in cut_off(pressed, group(Request("p", "a", count=3)))] == [100, 101, 102]
    for event in cut_off(pressed, group(Request("p", "a", count=3))):
        assert event.cause == "pressure"
        assert "cut off, past the floor of 3 s" in event.reason
    assert given(pressed, Request("p", "a", count=2), Request("p", "b")) == [100, 101, 102]


def test_a_group_that_has_its_ports_back_and_cuts_off_others(pressed):
    wanted = group(Request("p", "r7"), Request("p", "new", service="s6"), Request("p", "a"))
    assert [event.port for event in cut_off(pressed, wanted)] == [100]
    assert given(pressed, *wanted.requests) == [107, 106, 100]


def test_a_block_refused_where_holds_past_their_floor_are_all_that_is_in_the_way(pressed):
    """The block in which the fewest are cut off: r5 has two back."""
    assert given(pressed, block(4, "a")) == [100, 101, 102, 103]


def test_a_block_that_cuts_off_more_than_it_must(pressed):
    pressed.release(pressed.ledger.find("r11")[0])
    pressed.pass_time(-1)
    pressed.do(Hold("p", 100, hold_s=60.0))
    assert [event.port for event in cut_off(pressed, group(block(2, "a")))] == [101, 102]
    pressed.do(Block("p", 101, reason="r"))
    assert [event.port for event in cut_off(pressed, group(block(2, "r3", service="s2")))] == [], "its own and its service's are enough"
    assert [event.port for event in cut_off(pressed, group(block(3, "r3", service="s2")))] == [104]


def test_one_number_on_two_nodes_that_pressure_gives_on_both(pressed):
    for number in range(12):
        pressed.allocate(f"n{number}", node="n2")
    for number in (2, 3, 4, 5):
        pressed.release(pressed.ledger.find(f"n{number}")[0])
    pressed.pass_time(3)
    wanted = [Request("p", "a", node=node, same_port="k") for node in ("", "n2")]
    assert [(event.node, event.port) for event in cut_off(pressed, group(*wanted))] == [("", 102), ("n2", 102)]
    assert given(pressed, *wanted) == [102, 102]


@pytest.mark.parametrize("wanted", [Request("p", "a", count=7), block(6), block(2, align=53), Request("p", "a", port=100)])
def test_a_group_given_below_the_floor_or_the_cap(pressed, wanted):
    """Five of the eight are past their floor, and with three held back the share is kept; a number asked for is not cut off."""
    before = pressed.ledger.digest()
    with pytest.raises(PoolExhausted if wanted.port is None else Exception):
        pressed.decide(group(wanted))
    assert pressed.ledger.digest() == before


@pytest.mark.parametrize(("count", "held_max"), [(5, 0.25), (3, 0.49), (2, 0.5)])
def test_a_share_that_a_group_does_not_keep_to(pressed, count, held_max):
    """So many it may have, as single requests one after the other would, and no more."""
    define(pressed, floor_s=3.0, held_max=held_max, on_pressure="free-earliest")
    for more in (Request("p", "a", count=count + 1), block(count + 1)):
        with pytest.raises(GroupUnavailable):
            pressed.decide(group(more))
    assert given(pressed, Request("p", "a", count=count)) == list(range(100, 100 + count))
    with pytest.raises(GroupUnavailable):
        pressed.decide(group(Request("p", "b")))


@pytest.mark.parametrize("policy", ["refuse", "wait"])
def test_a_hold_that_a_group_cuts_off_although_nobody_said_so(pressed, policy):
    define(pressed, floor_s=3.0, held_max=0.25, on_pressure=policy)
    with pytest.raises(GroupUnavailable):
        pressed.decide(group(Request("p", "a")))


def test_a_group_that_takes_a_port_from_a_proxy(pressed):
    pressed.do(Join("proxy"))
    with pytest.raises(GroupUnavailable):
        pressed.decide(group(Request("p", "a")))


def test_a_hold_cut_off_by_a_group_while_a_port_was_free_or_due(pressed):
    pressed.pass_time(2.5)
    events = [event for event in pressed.decide(group(Request("p", "a", count=4))) if event.kind == "freed"]
    assert [(event.port, event.cause) for event in events] == [
        (100, "elapsed"), (101, "pressure"), (102, "pressure"), (103, "pressure"),
    ]  # fmt: skip


def test_one_pool_in_want_that_cuts_off_holds_in_another(pressed):
    define(pressed, "q", ports="200")
    pressed.allocate("x", "q")
    with pytest.raises(GroupUnavailable) as caught:
        pressed.decide(group(Request("p", "a"), Request("q", "a")))
    assert caught.value.pool == "q"


def test_a_refused_group_that_is_not_told_when_pressure_frees_more(pressed):
    with pytest.raises(GroupUnavailable, match=r"more may be freed early from 2023-11-14T22:13:29\.000000Z on") as caught:
        pressed.decide(group(Request("p", "a", count=6)))
    assert not {view.port for view in caught.value.in_the_way} & {100, 101, 102, 103, 104}, "those it would have had"


@pytest.mark.parametrize("seed", range(4))
def test_a_walk_in_which_a_group_gets_other_than_one_by_one(empty, seed):
    """Several ports for several owners at once, against the same owners asking one after the other: as many, and as early."""
    dice = random.Random(seed)
    define(empty, floor_s=2.0, held_max=0.2, on_pressure="free-earliest", hold_s=6.0)
    for number in range(150):
        for view in [view for view in empty.ledger.ports() if dice.random() < 0.2 and view.state.value == "ALLOCATED"]:
            empty.release(empty.ledger.find(view.owner)[0])
        empty.pass_time(dice.choice([0, 0.5, 1, 4]))
        owners = [f"g{number}-{each}" for each in range(dice.randint(1, 5))]
        alone, singles = type(empty)(), []
        alone.ledger, alone.now = empty.replayed(), empty.now
        for owner in owners:
            try:
                singles.append(alone.allocate(owner).port)
            except PoolExhausted:
                break
        try:
            got = given(empty, *(Request("p", owner) for owner in owners))
        except GroupUnavailable:
            assert len(singles) < len(owners)
        else:
            assert got == singles


# ---------------------------------------------------------------------- waiting


@pytest.mark.anyio
@pytest.mark.parametrize("ends", ["port", "patience"])
async def test_an_impatient_group_refused_where_the_policy_says_wait(memory_log, clock, ends):
    """It asked for no wait, and waits a hold at most: as long as the pressure can last by itself."""
    spec = PoolSpec("p", ports="100-103", hold_s=10.0, held_max=0.25, on_pressure="wait")
    async with open_manager(memory_log.handle(), pools=[spec], clock=clock) as manager:
        leases = [await manager.allocate("p", owner=f"r{number}") for number in range(4)]
        for lease in leases[:2]:
            await manager.release(lease)
            clock.advance(1)
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("a", Request("p", "a", count=2 if ends == "port" else 4), wait_s=0)
            await callers.settled()
            assert callers.got == {}
            clock.advance(9 if ends == "port" else 10)
            await callers.arrived("a")
        if ends == "port":
            assert sorted(callers.ports("a")) == [100, 101]
        else:
            assert isinstance(callers.got["a"], GroupUnavailable)
        assert not manager._engine.waiters


@pytest.mark.anyio
async def test_a_group_that_waits_for_a_pool_whose_policy_says_refuse(memory_log, clock):
    """The pool that lacks ports is asked what to do, not one that has enough."""
    patient = PoolSpec("p", ports="100-103", hold_s=10.0, held_max=0.0, on_pressure="wait")
    async with open_manager(memory_log.handle(), pools=[patient, PoolSpec("q", ports="200")], clock=clock) as manager:
        await manager.release(await manager.allocate("p", owner="r"))
        await manager.allocate("q", owner="x")
        with anyio.fail_after(5), pytest.raises(GroupUnavailable):
            await manager.allocate_group([Request("p", "a"), Request("q", "a")])


@pytest.mark.anyio
async def test_a_waiting_group_that_sleeps_past_the_floor(memory_log, clock):
    spec = PoolSpec("p", ports="100-102", hold_s=1000.0, floor_s=3.0, held_max=0.0, on_pressure="free-earliest")
    async with open_manager(memory_log.handle(), pools=[spec], clock=clock) as manager:
        leases = [await manager.allocate("p", owner=f"r{number}") for number in range(3)]
        for lease in leases:
            await manager.release(lease)
            clock.advance(1)
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.start("a", Request("p", "a", count=3))
            for _ in range(2):
                await callers.settled()
                assert callers.got == {}
                clock.advance(1)
            await callers.arrived("a")
            assert callers.ports("a")
        assert [event.cause for event in memory_log.events() if event.kind == "freed"] == ["pressure"] * 3
