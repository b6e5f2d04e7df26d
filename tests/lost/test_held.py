"""The log is lost or an older copy: no port that a proxy may still route to is given away for it.

RFC 6888 asks for that of a NAT after a crash or a cold failover: ports that were in use wait as long as any other. Of the allocators
that we know only DHCP servers keep what they would need for it (amazon-vpc-cni-k8s#1127, ray#63920).
"""

from __future__ import annotations

import pytest

from portfsm import OwnerConflict, PoolExhausted, PoolSpec, PortState, PortUnavailable, Request, Verdict, open_manager
from portfsm._dump import dump
from portfsm._explain import explain
from portfsm.commands import Adopt, Allocate, AllocateGroup, Block, Clear, DefinePool, Free, Hold, Join, ReleaseOwner, Sweep, Unblock
from portfsm.testing import FakeWitness
from tests.lost.worlds import SECOND, reopen, same, sums

# ---------------------------------------------------------------------- held


@pytest.mark.parametrize("node", ["", "never seen before"])
@pytest.mark.parametrize("port", [None, 102])
def test_a_port_in_use_before_the_loss_given_to_a_stranger(lost, node, port):
    """Also on a node that is heard of only later: the hold is the log's, not that of what it happens to know."""
    lost.pass_time(9.999)
    with pytest.raises(PortUnavailable if port else PoolExhausted):
        lost.decide(Allocate("p", owner="a", node=node, port=port))
    lost.pass_time(0.001)
    assert lost.allocate("a", node=node, port=port).port == (port or 100)
    same(lost)


def test_an_older_copy_whose_free_ports_are_believed(world):
    """What the copy says is allocated stays so, what is quarantined waits in full, and everything else does, too."""
    reopen(world)
    world.allocate("a", port=100)
    world.release(world.allocate("b", port=101))
    world.pass_time(6)
    world.do(Block("p", 103, reason="x"))
    reopen(world, lost=True)
    restarted = [event for event in world.events if event.kind == "held"]
    assert [(event.port, event.cause, event.until, event.hold_ms) for event in restarted] == [
        (101, "lost", world.ledger.ts + 10 * SECOND, 10_000)
    ]
    assert sums(world) == (0, 1, 2, 1)
    world.pass_time(9)
    with pytest.raises(PoolExhausted):
        world.decide(Allocate("p", owner="c"))
    world.pass_time(2)
    assert [world.allocate(owner).port for owner in "cd"] == [101, 102]
    same(world)


def test_a_held_port_that_looks_free(lost):
    """Counted, listed, shown and explained as what it is (amazon-vpc-cni-k8s#1700: cooling ports counted as available)."""
    assert sums(lost) == sums(lost, node="n") == (0, 0, 4, 0)
    lost.do(Adopt("p", 101, owner="a"))
    assert sums(lost) == (0, 1, 3, 0)
    views = {view.port: view for view in lost.ledger.ports()}
    assert list(views) == [100, 101, 102, 103]
    assert views[102].state is PortState.QUARANTINED
    assert (views[102].since, views[102].until) == (lost.now, lost.now + 10 * SECOND)
    assert views[102] == lost.ledger.port("p", 102)
    assert "history before was lost" in views[102].reason
    assert [view.port for view in lost.ledger.ports(state=PortState.QUARANTINED)] == [100, 102, 103]
    assert list(lost.ledger.ports(state=PortState.FREE)) == []
    with pytest.raises(PoolExhausted) as caught:
        lost.decide(Allocate("p", owner="b"))
    assert caught.value.next_free_at == lost.now + 10 * SECOND
    with pytest.raises(PortUnavailable) as refused:
        lost.decide(Allocate("p", owner="b", port=102))
    assert (refused.value.state, refused.value.until) == (PortState.QUARANTINED, lost.now + 10 * SECOND)


def test_a_large_pool_whose_loss_floods_the_log(empty):
    """40,000 ports on a hundred nodes: an opening is one event, and a node costs a row for each port it uses."""
    reopen(empty, lost=True)
    empty.define(ports="20000-59999")
    assert [str(event.kind) for event in empty.events] == ["opened", "pool_defined"]
    for number in range(100):
        empty.do(Adopt("p", 20_000, owner=f"r{number}", node=f"n{number}"))
    assert len(empty.events) == 202
    assert len(list(dump(empty.ledger))) == 101
    assert sums(empty, node="n7") == (0, 1, 39_999, 0)


@pytest.mark.parametrize("order", ["lowest", "longest-idle", "random"])
def test_a_port_proven_free_since_that_is_held_on(lost, order):
    """Whatever happened after the loss is known: an operator's word, a whole life."""
    lost.define(order=order, seed="s")
    lost.do(Free("p", 102, reason="looked"))
    assert sums(lost) == (1, 0, 3, 0)
    assert lost.state(102) == "FREE"
    lease = lost.allocate("a")
    assert lease.port == 102
    lost.release(lease)
    with pytest.raises(PoolExhausted):
        lost.allocate("b")
    assert lost.allocate("a").port == 102
    same(lost)


def test_a_repeated_word_of_an_operator_that_records_something_new(lost):
    """The hold of the pool is over meanwhile, which is nothing that freeing a FREE port has to notice."""
    lost.do(Free("p", 101, reason="looked"))
    lost.pass_time(20)
    assert lost.do(Free("p", 101, reason="looked")) == []


@pytest.mark.parametrize("many", [False, True])
def test_a_port_given_back_to_whom_the_copy_names_which_another_had_in_what_was_lost(world, many):
    """In the copy `old` holds the port; since then it was released and given to another service, whose traffic still comes."""
    lease = world.allocate("old", service="s")
    reopen(world, lost=True)
    world.release(lease)
    heir = AllocateGroup([Request("p", "new", service="s", count=1, contiguous=many)])
    last = AllocateGroup([Request("p", "old", service="s", count=1, contiguous=many)])
    alone = [Allocate("p", owner=owner, service="s", port=port) for owner in ("new", "old") for port in (None, lease.port)]
    for wanted in (heir, last, *alone):
        with pytest.raises((PoolExhausted, PortUnavailable)):
            world.decide(wanted)
    world.pass_time(10.001)
    assert world.decide(heir)[-1].port == world.allocate("new", service="s").port == lease.port


@pytest.mark.parametrize("many", [False, True])
def test_a_replica_that_lived_through_the_loss_and_restarts_loses_its_port(lost, many):
    """Its lease began with the adoption, after the loss: nobody can have had the port since."""
    lost.do(Adopt("p", 101, owner="a", service="s"))
    lost.do(ReleaseOwner("a"))
    same(lost)
    with pytest.raises(PoolExhausted):  # an heir is another matter: what still arrives there may be meant for any other
        lost.decide(Allocate("p", owner="b", service="s"))
    assert lost.decide(AllocateGroup([Request("p", "a", service="s", count=1, contiguous=many)]))[-1].port == 101
    assert lost.allocate("a", service="s").port == 101


@pytest.mark.parametrize("owner", ["old", "new"])
@pytest.mark.parametrize("many", [False, True])
def test_a_port_that_a_proxy_still_has_given_back_to_whom_the_copy_names(world, owner, many):
    """Where silence keeps ports no time is long enough, and their evidence is."""
    world.do(Join("edge"))
    lease = world.allocate("old", service="s")
    reopen(world, lost=True)
    world.release(lease)
    wanted = AllocateGroup([Request("p", owner, service="s", count=1, contiguous=many)])
    for _ in range(2):
        for each in (wanted, Allocate("p", owner=owner, service="s"), Allocate("p", owner=owner, service="s", port=lease.port)):
            with pytest.raises((PoolExhausted, PortUnavailable)):
                world.decide(each)
        world.pass_time(20)
        same(world)
    world.do(Clear("p", lease.port, reason="edge: clear"))
    assert world.decide(wanted)[-1].port == lease.port


def test_an_explanation_that_says_who_gets_a_port_that_nobody_gets(world):
    lease = world.allocate("old", service="s")
    reopen(world, lost=True)
    world.release(lease)
    assert "gets it" not in explain(world.ledger, "p", lease.port, node="", now_ns=world.now)
    world.do(Adopt("p", 101, owner="new"))
    world.do(ReleaseOwner("new"))
    assert "only owner 'new' gets it" in explain(world.ledger, "p", 101, node="", now_ns=world.now)


@pytest.mark.parametrize("order", ["lowest", "longest-idle", "random"])
def test_an_order_forgotten_during_the_loss(lost, order):
    lost.define(order=order, seed="s", ports="100-109")
    for port in (104, 102, 108):
        lost.pass_time(0.001)
        lost.do(Free("p", port, reason="looked"))
    given = [lost.allocate(owner).port for owner in "abc"]
    assert sorted(given) == [102, 104, 108]
    assert given == {"lowest": [102, 104, 108], "longest-idle": [104, 102, 108]}.get(order, given)
    with pytest.raises(PoolExhausted):
        lost.allocate("d")


@pytest.mark.parametrize("order", ["lowest", "longest-idle", "random"])
def test_a_number_for_hands_taken_by_a_pick_during_the_loss(lost, order):
    lost.do(DefinePool(PoolSpec("p", ports="100-103", hold_s=10.0, order=order, static=2), seed="s"))
    for port in (100, 102, 101):
        lost.do(Free("p", port, reason="looked"))
    assert lost.allocate("a").port == 102
    assert lost.allocate("b").port in {100, 101}


# ---------------------------------------------------------------------- proven live


@pytest.mark.parametrize("node", ["", "n"])
def test_a_live_replica_kept_from_its_port(lost, node):
    """Adopted out of it, and both facts are on record; its end leaves the others' hold as it was."""
    lost.do(Adopt("p", 101, owner="a", service="s", node=node))
    held, adopted = lost.events[-2:]
    assert (held.kind, held.cause, held.until, held.hold_ms) == ("held", "lost", lost.now + 10 * SECOND, 10_000)
    assert (adopted.kind, adopted.reason) == ("adopted", "was held: the history before was lost")
    lost.do(ReleaseOwner("a", cause="cancelled"))
    assert lost.ledger.port("p", 101, node=node).until == lost.now + 10 * SECOND
    same(lost)


def test_two_replicas_that_prove_one_port(lost):
    lost.do(Adopt("p", 101, owner="a"))
    with pytest.raises(OwnerConflict) as caught:
        lost.decide(Adopt("p", 101, owner="b"))
    assert caught.value.conflict == "owner"


@pytest.mark.parametrize("call", [Block("p", 100, reason="x", for_s=1), Hold("p", 100, hold_s=60), Hold("p", 100, hold_s=3)])
def test_an_operators_hand_that_shortens_the_hold(lost, call):
    longer = isinstance(call, Hold) and call.hold_s == 60
    lost.do(call)
    lost.do(Unblock("p", 100))
    assert lost.state(100) == "QUARANTINED"
    lost.pass_time(10 - 0.001)
    lost.do(Sweep())
    assert lost.state(100) == "QUARANTINED"
    lost.pass_time(0.001)
    lost.do(Sweep())
    assert lost.state(100) == ("QUARANTINED" if longer else "FREE")
    same(lost)


def test_a_shorter_hold_that_is_recorded(lost):
    assert lost.do(Hold("p", 100, hold_s=3)) == []
    assert lost.do(Hold("p", 100, hold_s=60)) == ["held", "held"]
    assert lost.do(Hold("p", 100, hold_s=3)) == []


def test_a_hold_begun_before_a_block_that_a_short_block_ends(empty):
    """Pool with a short hold since: the hold of the loss is longer than the one that follows the block."""
    reopen(empty, lost=True)
    empty.define(hold_s=100.0)
    empty.define(hold_s=1.0)
    empty.do(Block("p", 100, reason="x"))
    empty.do(Unblock("p", 100))
    assert empty.ledger.port("p", 100).until == empty.now + 100 * SECOND


# ---------------------------------------------------------------------- proxies


def test_a_loss_that_time_ends_although_proxies_were_not_asked(lost):
    """A proxy that joined may have had any of the ports before: some at a time are held by an event, and so asked about."""
    lost.do(Join("edge"))
    lost.pass_time(100)
    with pytest.raises(PoolExhausted):
        lost.decide(Allocate("p", owner="a"))
    assert lost.do(Sweep(pool="p", node="n")) == ["held"] * 4
    assert {event.cause for event in lost.events[-4:]} == {"lost"}
    assert lost.do(Sweep(pool="p", node="n")) == []
    same(lost)


def test_a_window_of_questions_that_grows_into_a_flood(empty):
    reopen(empty, lost=True)
    empty.define(ports="20000-59999")
    empty.do(Join("edge"))
    for _ in range(3):
        empty.do(Sweep(pool="p", node="n"))
    assert sum(event.kind == "held" for event in empty.events) == 64
    for port in range(20_000, 20_010):
        empty.do(Free("p", port, node="n", reason="x"))
    empty.do(Sweep(pool="p", node="n"))
    assert sum(event.kind == "held" for event in empty.events) == 74


@pytest.mark.anyio
async def test_a_lost_pool_that_proxies_could_have_cleared_at_once(log, clock):
    """They have let go of every port: nobody waits for the hold, and a port that one still has is not given."""
    witness = FakeWitness("edge", [Verdict.CLEAR])
    pool = PoolSpec("http", ports="30000-30003", hold_s=600)
    async with open_manager(log.handle(), pools=[pool], clock=clock, witnesses=[witness], history="lost") as manager:
        lease = await manager.allocate("http", owner="a", node="n", wait_s=None)
        assert lease.port in range(30_000, 30_004)
        assert {event.cause for event in log.events() if event.kind == "freed"} == {"evidence"}
        log.check(manager)


# ---------------------------------------------------------------------- what was quarantined already


@pytest.mark.parametrize(("asked_s", "cleared_after_s"), [(None, 5), (100, 94)])
def test_evidence_that_ends_a_hold_begun_anew_at_its_old_floor(empty, asked_s, cleared_after_s):
    """The floor starts over with the hold, and one that an operator asked for stays his."""
    reopen(empty)
    empty.do(DefinePool(PoolSpec("p", ports="100-103", hold_s=10, floor_s=5)))
    empty.do(Join("edge"))
    empty.release(empty.allocate("a", port=100))
    if asked_s is not None:
        empty.do(Hold("p", 100, hold_s=asked_s))
    empty.pass_time(6)
    reopen(empty, lost=True)
    empty.pass_time(cleared_after_s - 0.001)
    assert empty.do(Clear("p", 100, reason="edge: clear")) == []
    empty.pass_time(0.001 if asked_s is None else 10)
    assert empty.do(Clear("p", 100, reason="edge: clear")) == ["freed"]


def test_a_hold_that_is_over_begun_again_by_a_new_policy(lost):
    lost.pass_time(10)
    lost.do(Sweep())
    lost.define(hold_s=100.0)
    assert lost.allocate("a").port == 100
