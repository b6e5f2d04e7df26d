"""The hold after a loss: when it is over, what a restart makes of it, and who waits for it."""

from __future__ import annotations

import random

import anyio
import pytest

from portfsm import CommandRejected, InvalidValue, PoolExhausted, PoolSpec, PortUnavailable, open_manager, read_journal, replay
from portfsm.commands import Adopt, Allocate, Block, DefinePool, Free, Hold, Release, ReleaseOwner, Sweep, Unblock
from tests.lost.worlds import SECOND, reopen, same, sums
from tests.tasks import Callers

# ---------------------------------------------------------------------- the end


@pytest.mark.parametrize("noticed", ["allocate", "allocate on another node", "sweep", "free", "adopt"])
def test_an_end_that_nobody_records(lost, noticed):
    """Time changes nothing by itself; whoever notices records it, once for every node."""
    lost.do(Adopt("p", 103, owner="z"))
    lost.pass_time(10)
    assert sums(lost) == (0, 1, 3, 0)
    if noticed == "sweep":
        assert lost.do(Sweep()) == ["pool_defined"]
    elif noticed == "free":
        assert lost.do(Free("p", 100, reason="x")) == ["pool_defined"]
    elif noticed == "adopt":
        assert lost.do(Adopt("p", 100, owner="a")) == ["pool_defined", "adopted"]
        lost.do(ReleaseOwner("a", cause="cancelled"))
    else:
        assert lost.do(Allocate("p", owner="a", node="n" if "node" in noticed else "")) == ["pool_defined", "allocated"]
        lost.do(ReleaseOwner("a", cause="cancelled"))
    assert sums(lost) == (3, 1, 0, 0)
    assert lost.do(Sweep()) == []
    assert lost.ledger.lost == {}
    same(lost)


def test_the_end_of_one_pools_hold_that_ends_anothers(lost):
    lost.define("slow", ports="200-201", hold_s=100.0)
    lost.pass_time(10)
    lost.do(Sweep())
    assert (lost.state(100), lost.state(200, "slow")) == ("FREE", "QUARANTINED")
    with pytest.raises(PoolExhausted):
        lost.decide(Allocate("slow", owner="a"))


def test_a_pool_without_a_hold_that_waits(empty):
    reopen(empty, lost=True)
    empty.define(hold_s=0.0)
    assert empty.do(Allocate("p", owner="a")) == ["pool_defined", "allocated"]


def test_a_pool_of_a_later_opening_that_is_held_for_an_old_loss(lost):
    lost.pass_time(10)
    lost.do(Sweep())
    reopen(lost)
    lost.define("new", ports="200-201")
    assert lost.allocate("a", "new").port == 200


def test_a_hold_lengthened_by_the_opening_that_found_the_loss(world):
    """The copy knows the old policy; the controller that opens it brings a longer one, which the rule counts by."""
    reopen(world, lost=True)
    world.define(hold_s=100.0)
    assert world.ledger.port("p", 100).until == world.ledger.opened["ts"] + 100 * SECOND
    reopen(world)
    world.define(hold_s=1.0)
    assert world.ledger.port("p", 100).until > world.now + 99 * SECOND, "and no policy shortens"


# ---------------------------------------------------------------------- restarts


def test_a_restart_that_forgets_the_loss(lost):
    lost.pass_time(6)
    reopen(lost)
    with pytest.raises(PoolExhausted):
        lost.decide(Allocate("p", owner="a"))
    lost.pass_time(4)
    assert lost.allocate("a").port == 100, "and it does not begin anew"


@pytest.mark.parametrize("restart_holds", [True, False])
def test_a_restart_of_the_machine_that_shortens_it(lost, restart_holds):
    """Another boot, and the clock is lost with it: in full again, as every hold."""
    lost.do(Free("p", 103, reason="looked"))
    lost.pass_time(6)
    reopen(lost, boot="boot 2", restart_holds=restart_holds)
    assert lost.state(103) == "FREE", "what was known stays known"
    lost.pass_time(4)
    if restart_holds:
        with pytest.raises(PortUnavailable):
            lost.decide(Allocate("p", owner="a", port=100))
        lost.pass_time(6)
    assert lost.allocate("a", port=100).port == 100
    same(lost)


def test_a_second_loss_that_is_taken_for_the_first(lost):
    lost.do(Free("p", 103, reason="looked"))
    lost.pass_time(6)
    reopen(lost, lost=True)
    assert sums(lost) == (0, 0, 4, 0)
    lost.pass_time(9)
    with pytest.raises(PoolExhausted):
        lost.decide(Allocate("p", owner="a"))
    lost.pass_time(1)
    assert lost.allocate("a").port == 100


def test_a_loss_at_the_very_moment_of_the_last_event(world):
    """Clocks may stand still between two events, and a release before the loss is no word after it."""
    reopen(world)
    lease = world.allocate("a", port=102)
    world.release(lease)
    world.do(Free("p", 102, reason="x"))
    reopen(world, lost=True)
    assert world.state(102) == "QUARANTINED"
    world.do(Free("p", 102, reason="x"))
    assert world.state(102) == "FREE"


def test_a_late_finding_of_a_former_holder_that_frees(world):
    reopen(world)
    lease = world.allocate("a", port=102)
    world.release(lease)
    world.pass_time(10)
    world.do(Sweep())
    reopen(world, lost=True)
    assert world.do(Release(lease)) == []
    assert world.do(Release(lease, block="x")) == ["held", "blocked"]
    same(world)


# ---------------------------------------------------------------------- the manager


@pytest.mark.anyio
async def test_a_lost_directory_replaced_by_an_empty_one(tmp_path, clock, pool):
    """The whole story: live replicas are adopted, the dead ones' ports wait, and the next opening goes on from there."""
    async with open_manager(tmp_path / "new", pools=[pool], clock=clock, history="lost") as manager:
        lease = await manager.adopt("http", 30_001, owner="live", node="n")
        with pytest.raises(PoolExhausted):
            await manager.allocate("http", owner="new", node="n")
        assert "history before was lost" in manager.explain("http", 30_000, node="n")
        assert manager.statistics("http", node="n").quarantined == 3
    clock.advance(4)
    async with open_manager(tmp_path / "new", pools=[pool], clock=clock) as manager:
        assert manager.find("live") == (lease,)
        clock.advance(5)
        with pytest.raises(PoolExhausted):
            await manager.allocate("http", owner="new", node="n")
        clock.advance(1)
        assert (await manager.allocate("http", owner="new", node="n")).port == 30_000
        assert manager.digest() == replay(read_journal(tmp_path / "new")).digest()
    opened = next(iter(read_journal(tmp_path / "new")))
    assert opened.data["history"] == "lost"
    assert "history before was lost" in opened.reason


@pytest.mark.anyio
async def test_a_waiter_that_sleeps_on_when_the_hold_is_over(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock, history="lost") as manager:
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.begin("new", manager.allocate("http", owner="new", wait_s=None))
            await callers.settled()
            assert not callers.got
            clock.advance(10)
        assert callers.got["new"].port == 30_000


@pytest.mark.anyio
@pytest.mark.parametrize("history", ["", "LOST", "Kept", None, True, 1])
async def test_a_word_for_the_history_that_is_none(tmp_path, history):
    with pytest.raises(InvalidValue, match="history is") as caught:
        async with open_manager(tmp_path / "log", history=history):
            pass
    assert (caught.value.name, caught.value.value) == ("history", history)
    assert not (tmp_path / "log").exists()


# ---------------------------------------------------------------------- against a naive model


@pytest.mark.parametrize("seed", range(12))
def test_a_walk_after_a_loss_gives_a_port_too_early(empty, seed):
    """Whatever is done: a port of which nobody told since is not given within a hold, counts add up, replay agrees."""
    dice = random.Random(seed)
    order = ["lowest", "longest-idle", "random"][seed % 3]
    reopen(empty, lost=True)
    empty.define(order=order, seed="s", ports="100-105")
    since, unknown = empty.ledger.opened["ts"], {(node, port) for node in ("", "n") for port in range(100, 106)}
    for _ in range(150):
        node, port, owner = dice.choice(["", "n"]), dice.randrange(100, 106), dice.choice("abcd")
        command = dice.choice(
            [
                Allocate("p", owner=owner, node=node, port=dice.choice([None, None, port])),
                Adopt("p", port, owner=owner, node=node),
                ReleaseOwner(owner),
                Block("p", port, node=node, reason="x", for_s=dice.choice([None, 1.0])),
                Unblock("p", port, node=node),
                Hold("p", port, node=node, hold_s=dice.choice([1.0, 12.0])),
                Free("p", port, node=node, reason="x"),
                Sweep(),
                DefinePool(PoolSpec("p", ports="100-105", hold_s=dice.choice([1.0, 10.0]), order=order), seed="s"),
            ]
        )
        if dice.random() < 0.02:
            reopen(empty, boot=dice.choice(["boot 1", "boot 2"]))
        first = len(empty.events)
        try:
            empty.do(command)
        except CommandRejected:
            assert len(empty.events) == first
        for event in empty.events[first:]:
            place = event.node, event.port
            early = empty.now < since + 10 * SECOND
            assert not (event.kind == "allocated" and place in unknown and early), f"{place} was given {event}"
            if event.kind in ("adopted", "freed") or (event.kind == "allocated"):
                unknown.discard(place)
        for node in ("", "n"):
            sums(empty, node=node)
        same(empty)
        empty.pass_time(dice.choice([0, 0.1, 0.5]))
