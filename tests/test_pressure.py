"""Too much of a pool is held back: what its operator asked for happens, is recorded, and never goes below the floor.

RFC 6888 (REQ-8) has both the time a port is held and the greatest share that is held configurable. aws/amazon-vpc-cni-k8s#18: churn
exhausts a pool that knows the time alone.
"""

from __future__ import annotations

import random

import attrs
import msgspec
import pytest

from portfsm import PoolSpec, open_manager
from portfsm._dump import spec_data
from portfsm._ledger import apply
from portfsm._rejections import utc
from portfsm._whatif import Change, what_if
from portfsm.commands import Adopt, Allocate, Block, Clear, DefinePool, Hold, Join, Open, Sweep
from portfsm.errors import CommandRejected, IllegalTransition, InvalidValue, PoolExhausted, PortUnavailable
from portfsm.events import Event
from portfsm.states import EventKind

SECOND = 1_000_000_000
EARLY = PoolSpec("p", ports="100-103", hold_s=10.0, floor_s=2.0, on_pressure="free-earliest")


@pytest.fixture
def pressed(empty):
    """Three of four ports quarantined since 0, 1 and 2 s, one allocated; the moment is 2.5 s."""
    empty.do(DefinePool(EARLY))
    leases = [empty.allocate(owner, service=f"s{owner}") for owner in "abcd"]
    for lease in leases[:3]:
        empty.release(lease)
        empty.pass_time(1)
    empty.pass_time(-0.5)
    return empty


def refused(world, owner="x", **options):
    with pytest.raises(CommandRejected) as caught:
        world.decide(Allocate("p", owner=owner, **options))
    return caught.value


# ---------------------------------------------------------------------- freeing the earliest


def test_a_port_freed_early_in_silence(pressed):
    assert pressed.do(Allocate("p", owner="x")) == ["freed", "allocated"]
    freed, allocated = pressed.events[-2:]
    assert (freed.port, allocated.port, freed.cause) == (100, 100, "pressure")
    assert "3 of 4 ports were quarantined, more than held_max 0.5" in freed.reason
    assert "7.500 s of the hold cut off, past the floor of 2 s" in freed.reason
    assert pressed.replayed().digest() == pressed.ledger.digest()


def test_a_port_freed_below_its_floor(pressed):
    """Nothing goes below the floor: the second was released 1.5 s ago."""
    pressed.do(DefinePool(attrs.evolve(EARLY, held_max=0.0)))
    pressed.allocate("x")
    assert isinstance(refused(pressed, "y"), PoolExhausted)
    pressed.pass_time(0.5)
    assert pressed.allocate("y").port == 101


def test_a_refusal_that_keeps_the_floors_end_to_itself(pressed):
    pressed.do(DefinePool(attrs.evolve(EARLY, held_max=0.0)))
    pressed.allocate("x")
    error = refused(pressed, "y")
    assert f"may be freed early at {utc(pressed.now + SECOND // 2)}" in str(error)
    assert error.next_free_at == pressed.now + 8 * SECOND + SECOND // 2, "which time alone would bring"


@pytest.mark.parametrize(("held_max", "freed"), [(0.0, True), (0.74, True), (0.75, False), (1.0, False)])
def test_a_share_that_is_not_kept_to(pressed, held_max, freed):
    """Three of four are held: more than 0.74 of the pool, not more than 0.75."""
    pressed.do(DefinePool(attrs.evolve(EARLY, held_max=held_max)))
    if freed:
        assert pressed.do(Allocate("p", owner="x")) == ["freed", "allocated"]
    else:
        assert isinstance(refused(pressed), PoolExhausted)


def test_a_hold_cut_off_while_a_port_was_free(pressed):
    pressed.define("q", ports="200")
    pressed.do(DefinePool(attrs.evolve(EARLY, ports="100-104")))
    assert pressed.allocate("x").port == 104
    assert [event.cause for event in pressed.events if event.kind == "freed"] == []


def test_a_hold_cut_off_although_another_was_over(pressed):
    pressed.pass_time(7.5)
    assert pressed.do(Allocate("p", owner="x")) == ["freed", "allocated"]
    assert pressed.events[-2].cause == "elapsed"


@pytest.mark.parametrize("request_", [{"owner": "b"}, {"owner": "x", "service": "sb"}])
def test_a_hold_cut_off_for_one_that_has_its_own_port(pressed, request_):
    assert pressed.do(Allocate("p", **request_)) == ["allocated"]
    assert pressed.events[-1].port == 101


def test_a_number_asked_for_that_pressure_gives(pressed):
    assert isinstance(refused(pressed, port=100), PortUnavailable)


@pytest.mark.parametrize("on_silence", ["keep", "free"])
def test_a_port_taken_from_a_proxy_that_holds_it(pressed, on_silence):
    """While proxies are asked they alone end a hold early, in a pool that keeps its ports and in one that does not."""
    pressed.do(DefinePool(attrs.evolve(EARLY, on_silence=on_silence)))
    pressed.do(Join("edge"))
    pressed.pass_time(5)
    assert isinstance(refused(pressed), PoolExhausted)
    pressed.do(Clear("p", 101, reason="edge has let go"))
    assert pressed.allocate("x").port == 101


def test_an_operators_hold_cut_off(pressed):
    pressed.do(Hold("p", 100, hold_s=60))
    pressed.pass_time(2)
    pressed.do(Hold("p", 101, hold_s=9))
    assert pressed.allocate("x").port == 102
    pressed.do(DefinePool(attrs.evolve(EARLY, held_max=0.0)))
    assert isinstance(refused(pressed, "y"), PoolExhausted)


def test_a_hold_that_a_reboot_began_anew_cut_off_by_the_time_before_it(pressed):
    """The clock was lost, and the floor with it."""
    pressed.do(Open(1, "h", "one", 1, 1))
    pressed.do(Open(2, "h", "two", 1, 1))
    pressed.pass_time(1.9)
    assert isinstance(refused(pressed), PoolExhausted)
    pressed.pass_time(0.1)
    assert pressed.allocate("x").port in (100, 101, 102)


def test_a_port_outside_the_ranges_that_is_given(pressed):
    pressed.do(DefinePool(attrs.evolve(EARLY, ports="101-103", held_max=0.0)))
    pressed.pass_time(0.5)
    assert pressed.allocate("x").port == 101
    pressed.do(DefinePool(attrs.evolve(EARLY, ports="103,200", held_max=0.0)))
    pressed.do(Block("p", 200, reason="r", for_s=60))
    pressed.pass_time(5)
    assert isinstance(refused(pressed, "y"), PoolExhausted), "102 retires, and 200 is blocked"


def test_a_kept_port_of_a_pool_with_many_blocks_that_is_never_found(empty):
    """Ends of blocks may come before the first end of a hold, however many they are."""
    empty.do(DefinePool(attrs.evolve(EARLY, ports="100-399", held_max=0.0)))
    for port in range(100, 399):
        empty.do(Block("p", port, reason="r", for_s=5))
    empty.release(empty.allocate("a"))
    empty.pass_time(2)
    assert empty.allocate("x").port == 399


# ---------------------------------------------------------------------- what replay allows


def freeing(world, port):
    ledger = world.ledger
    return Event(ledger.seq + 1, world.now, EventKind.FREED, "", "p", port, cause="pressure", reason="r")


def test_a_log_that_frees_early_where_no_policy_said_so(pressed):
    ready = pressed.now
    for spec in (attrs.evolve(EARLY, on_pressure="refuse"), attrs.evolve(EARLY, on_pressure="wait")):
        pressed.do(DefinePool(spec))
        with pytest.raises(IllegalTransition, match="the pool's policy ends no hold early"):
            apply(pressed.ledger, freeing(pressed, 100))
    pressed.do(DefinePool(EARLY))
    pressed.now = ready
    with pytest.raises(IllegalTransition, match="its floor"):
        apply(pressed.ledger, freeing(pressed, 101))
    apply(pressed.ledger, freeing(pressed, 100))


def test_a_log_that_frees_early_what_a_proxy_holds(pressed):
    pressed.do(Join("edge"))
    with pytest.raises(IllegalTransition, match="edge say when it ends"):
        apply(pressed.ledger, freeing(pressed, 100))


def test_an_old_log_that_digests_otherwise():
    """A policy nobody asked for is not written down."""
    assert spec_data(PoolSpec("p", ports="1-2"), "") == {"ports": "1-2", "hold_s": 10.0, "floor_s": 0.0, "order": "lowest"}
    assert spec_data(PoolSpec("p", ports="1-2", on_silence="free", order="random"), "s") == {
        "ports": "1-2", "hold_s": 10.0, "floor_s": 0.0, "order": "random", "on_silence": "free", "seed": "s",
    }  # fmt: skip
    found = spec_data(attrs.evolve(EARLY, held_max=0.25), "")
    assert (found["held_max"], found["on_pressure"]) == (0.25, "free-earliest")


@pytest.mark.parametrize("held_max", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_a_walk_in_which_a_hold_is_cut_off_without_need(empty, seed, held_max):
    """Seen from the events alone: each early end came past the floor, with nothing free, and with more than the share held."""
    dice = random.Random(f"{seed} {held_max}")
    spec = PoolSpec("p", ports="100-107", hold_s=10.0, floor_s=2.0, held_max=held_max, on_pressure="free-earliest")
    empty.do(DefinePool(spec))
    for number in range(300):
        step = dice.choice("aaaarrrrtthb")
        living = [view.owner for view in empty.ledger.ports() if view.state.value == "ALLOCATED"]
        if step == "a":
            try:
                empty.allocate(f"o{number}", service=dice.choice(["", "x"]))
            except PoolExhausted:
                empty.do(Sweep())
        elif step == "r" and living:
            empty.release(empty.ledger.find(dice.choice(living))[0])
        elif step == "t":
            empty.pass_time(dice.choice([0.3, 1, 3]))
        elif step in "hb":
            port = dice.randrange(100, 108)
            if empty.state(port) == "QUARANTINED" and step == "h":
                empty.do(Hold("p", port, hold_s=15))
            elif empty.state(port) == "FREE":
                empty.do(Block("p", port, reason="r", for_s=4))
    state, since, until, by_hand = dict.fromkeys(range(100, 108), "FREE"), {}, {}, set()
    after = {"allocated": "ALLOCATED", "released": "QUARANTINED", "held": "QUARANTINED", "unblocked": "QUARANTINED"}
    early = 0
    for event in empty.events:
        if not event.port:
            continue
        if event.cause == "pressure":
            early += 1
            assert event.ts >= since[event.port] + 2 * SECOND
            assert event.port not in by_hand
            held = [port for port, found in state.items() if found == "QUARANTINED"]
            assert len(held) > held_max * 8
            assert not [port for port, found in state.items() if found == "FREE" or (found == "QUARANTINED" and until[port] <= event.ts)]
        if event.kind == "freed" and event.cause == "elapsed":
            assert event.ts >= until[event.port]
        state[event.port] = after.get(event.kind, "BLOCKED" if event.kind == "blocked" else "FREE")
        if event.kind in ("released", "unblocked"):
            since[event.port] = event.ts
        if event.until:
            until[event.port] = event.until
        by_hand = by_hand | {event.port} if event.kind == "held" else by_hand - {event.port}
    assert early
    assert empty.replayed().digest() == empty.ledger.digest()


def test_a_plan_that_forgets_the_pressure(empty):
    """Replayed under a longer hold, ports are freed early there too, and who waits is served at the floor's end."""
    empty.do(DefinePool(attrs.evolve(EARLY, hold_s=2.0, held_max=0.0, ports="100-101")))
    for owner in "ab":
        empty.release(empty.allocate(owner))
        empty.pass_time(0.5)
    empty.pass_time(1.2)
    empty.allocate("c")
    empty.define(ports="100-109")
    empty.allocate("d")
    empty.pass_time(50)
    empty.allocate("last")
    spec = attrs.evolve(EARLY, hold_s=2.0, held_max=0.0, ports="100-101")
    events = [event if event.kind != "pool_defined" else msgspec.structs.replace(event, data=spec_data(spec, "")) for event in empty.events]
    waits = what_if(events, Change(hold_s=40.0)).waits
    assert [(wait.event.owner, wait.waited_ns) for wait in waits] == [("d", 3 * SECOND // 10), ("last", None)]


# ---------------------------------------------------------------------- in the manager


@pytest.mark.anyio
async def test_a_policy_that_a_crash_forgets(log, clock):
    async with open_manager(log.handle(), pools=[EARLY], clock=clock) as manager:
        leases = [await manager.allocate("p", owner=owner) for owner in "abcd"]
        for lease in leases:
            await manager.release(lease)
        clock.advance(2)
    async with open_manager(log.handle(), clock=clock) as manager:
        assert manager.pools["p"] == EARLY
        await manager.allocate("p", owner="x")
        log.check(manager)
    assert [event.cause for event in log.events() if event.kind == "freed"] == ["pressure"]


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, True, 50])
def test_a_share_that_is_none(value):
    with pytest.raises(InvalidValue, match="share of the pool from 0 to 1") as caught:
        PoolSpec("p", ports="1", held_max=value)
    assert caught.value.name == "held_max"


@pytest.mark.parametrize("value", ["free", "", None, 1, "REFUSE"])
def test_a_policy_of_another_word(value):
    with pytest.raises(InvalidValue, match="refuse, wait, free-earliest") as caught:
        PoolSpec("p", ports="1", on_pressure=value)
    assert (caught.value.name, caught.value.value) == ("on_pressure", value)


def test_holds_cut_off_down_to_nothing():
    with pytest.raises(InvalidValue, match="say how long a port is held whatever happens") as caught:
        PoolSpec("p", ports="1", on_pressure="free-earliest")
    assert caught.value.name == "floor_s"


def test_an_environment_that_is_not_read(monkeypatch):
    for key, value in {"PORTS": "1-9", "FLOOR_S": "1", "HELD_MAX": "0.25", "ON_PRESSURE": "free-earliest"}.items():
        monkeypatch.setenv(f"HTTP_{key}", value)
    assert PoolSpec.from_env("HTTP") == PoolSpec("http", ports="1-9", floor_s=1, held_max=0.25, on_pressure="free-earliest")
    for key, value in (("HELD_MAX", "half"), ("HELD_MAX", "nan"), ("HELD_MAX", "2"), ("ON_PRESSURE", "panic")):
        with monkeypatch.context() as patch, pytest.raises(InvalidValue, match=f"HTTP_{key}"):
            patch.setenv(f"HTTP_{key}", value)
            PoolSpec.from_env("HTTP")


def test_an_adoption_under_pressure_that_frees_anything(pressed):
    assert pressed.do(Adopt("p", 100, owner="x")) == ["adopted"]
