"""Leases that end unless renewed: noticed in time, never earlier than promised, and into quarantine, as whoever held it may still listen."""

from __future__ import annotations

import math

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

from portfsm import InvalidValue, JournalCorrupt, OwnerConflict, PoolSpec, PortState, StaleLease, open_manager, replay
from portfsm._dump import dump, load
from portfsm._explain import explain
from portfsm._ledger import Ledger, apply
from portfsm.commands import Adopt, Allocate, Renew
from portfsm.errors import IllegalTransition
from portfsm.testing import GatedJournal
from tests.tasks import Callers

SECOND = 1_000_000_000
pytestmark = pytest.mark.anyio


@pytest.fixture
async def manager(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as opened:
        yield opened


async def settled(manager, condition):
    """Follow the log until `condition()` holds."""
    events = manager.watch(after=0)
    with anyio.fail_after(10):
        while not condition():
            await anext(events)


def state(manager, lease):
    return manager.port("http", lease.port).state.value


# ---------------------------------------------------------------------- ends


async def test_a_lease_of_a_silent_owner_that_nobody_ends(manager, clock, log):
    """Nothing else happens: no call, no waiter. Its port goes into a full hold, since a paused owner may still listen (nomad#12600)."""
    lease = await manager.allocate("http", owner="r1", ttl_s=30)
    clock.advance(29.9)
    await checkpoint()
    assert state(manager, lease) == "ALLOCATED"
    clock.advance(0.1)
    await settled(manager, lambda: state(manager, lease) == "QUARANTINED")
    ended = log.events()[-1]
    assert (ended.kind, ended.cause, ended.token, ended.hold_ms) == ("released", "expired", lease.token, 10_000)
    assert "expired" in manager.explain("http", lease.port)
    log.check(manager)


@pytest.mark.parametrize("call", ["allocate", "sweep", "renew", "release"])
async def test_an_end_that_a_call_overlooks_because_the_timer_has_not_run(manager, clock, log, call):
    lease = await manager.allocate("http", owner="r1", ttl_s=30)
    clock.advance(30)
    if call == "allocate":
        assert (await manager.allocate("http", owner="r1", ttl_s=30)).token != lease.token
    elif call == "sweep":
        await manager.sweep()
    elif call == "renew":
        with pytest.raises(StaleLease):
            await manager.renew(lease)
    else:
        await manager.release(lease)
    await manager.sweep()  # a refusal does not wait for the disk
    assert log.kinds()[:2] == ["allocated", "released"]
    assert [event.cause for event in log.events() if event.kind == "released"] == ["expired"]


async def test_an_owner_told_that_a_lease_was_released_which_had_expired_before(manager, clock, log):
    """Each end is told once: who is told of it takes the replica's traffic away, and it may be another's by then."""
    expired = await manager.allocate("http", owner="r1", ttl_s=30)
    kept = await manager.allocate("http", owner="r1", node="n2")
    clock.advance(30)
    assert await manager.release_owner("r1") == (kept,)
    assert [(event.token, event.cause) for event in log.events() if event.kind == "released"] == [
        (expired.token, "expired"),
        (kept.token, "released"),
    ]
    assert await manager.release_owner("r1") == ()


async def test_a_lease_in_a_block_that_cannot_have_an_end(manager, clock, log):
    """A worker that hangs within the block does not keep its port for ever."""
    async with manager.lease("http", owner="r1", ttl_s=30) as lease:
        assert lease.expires_ns == manager.now_ns + 30 * SECOND
        clock.advance(20)
        assert (await manager.renew(lease)).expires_ns == manager.now_ns + 30 * SECOND
        clock.advance(20)
        await manager.sweep()
        assert state(manager, lease) == "ALLOCATED"
    assert log.events()[-1].cause == "released"


@pytest.mark.parametrize("taken", [False, True])
async def test_the_end_of_a_block_that_takes_the_port_from_the_next_holder(manager, clock, log, taken):
    """The block outlasts its ttl: its release changes nothing, and says so where somebody else has the port by now."""

    async def outlast():
        async with manager.lease("http", owner="r1", ttl_s=30, port=30000) as lease:
            clock.advance(30)
            await manager.sweep()
            if taken:
                clock.advance(10)
                await manager.allocate("http", owner="r2", port=lease.port)

    if taken:
        with pytest.raises(StaleLease):
            await outlast()
    else:
        await outlast()
    assert [event.cause for event in log.events() if event.kind == "released"] == ["expired"]
    assert [lease.port for lease in manager.find("r2")] == [30000] * taken


async def test_a_waiter_that_sleeps_on_although_a_lease_has_ended(clock, log):
    async with open_manager(log.handle(), pools=[PoolSpec("one", ports="5000", hold_s=5)], clock=clock) as manager:
        await manager.allocate("one", owner="r1", ttl_s=30)
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.begin("r2", manager.allocate("one", owner="r2", wait_s=None))
            clock.advance(30)
            await settled(manager, lambda: manager.port("one", 5000).state is PortState.QUARANTINED)
            await callers.settled()
            assert not callers.got, "the hold comes after the end"
            clock.advance(5)
        assert callers.got["r2"].owner == "r2"
        assert log.kinds() == ["allocated", "released", "freed", "allocated"]


async def test_a_thousand_ends_at_once_that_leave_some_behind(clock, memory_log):
    async with open_manager(memory_log.handle(), pools=[PoolSpec("many", ports="1000-1999", hold_s=5)], clock=clock) as manager:
        for number in range(1000):
            await manager.allocate("many", owner=f"r{number}", ttl_s=30)
        clock.advance(30)
        await settled(manager, lambda: manager.statistics("many").quarantined == 1000)
        assert memory_log.kinds().count("released") == 1000


async def test_a_lease_without_a_ttl_that_ends(manager, clock, log):
    lease = await manager.allocate("http", owner="r1")
    assert lease.expires_ns is None
    clock.advance(10**8)
    await manager.sweep()
    assert await manager.renew(lease) == lease
    assert log.kinds() == ["allocated"]


async def test_an_adopted_lease_that_inherits_the_ttl_of_the_one_before(manager, clock):
    await manager.release(await manager.allocate("http", owner="r1", port=30_000, ttl_s=5))
    lease = await manager.adopt("http", 30_000, owner="r1")
    assert lease.expires_ns is None
    clock.advance(1000)
    await manager.sweep()
    assert state(manager, lease) == "ALLOCATED"


# ---------------------------------------------------------------------- renewals


async def test_a_renewed_lease_that_ends_or_a_renewal_that_is_recorded(manager, clock, log):
    lease = await manager.allocate("http", owner="r1", ttl_s=30)
    seq = manager.seq
    for _ in range(10):
        clock.advance(29)
        lease = await manager.renew(lease)
        assert lease.expires_ns == log.events()[0].ts + clock.boot_ns() - log.events()[0].data["boot_ns"] + 30 * SECOND
        assert manager.find("r1")[0].expires_ns == lease.expires_ns
    assert manager.seq == seq
    clock.advance(30)
    await settled(manager, lambda: state(manager, lease) == "QUARANTINED")


async def test_a_renewed_lease_that_is_no_longer_equal_to_itself(manager, clock):
    lease = await manager.allocate("http", owner="r1", ttl_s=30)
    clock.advance(10)
    renewed = await manager.renew(lease)
    assert renewed == lease
    assert renewed.expires_ns == lease.expires_ns + 10 * SECOND
    assert manager.find("r1") == (lease,)
    await manager.release(lease)


async def test_a_repeated_allocate_that_answers_with_a_lease_about_to_end(manager, clock, log):
    """A reply was lost and the caller asks again for thirty seconds: it gets them, and nothing is recorded."""
    lease = await manager.allocate("http", owner="r1", ttl_s=30)
    clock.advance(29)
    again = await manager.allocate("http", owner="r1", ttl_s=30)
    assert (again.token, again.expires_ns) == (lease.token, lease.expires_ns + 29 * SECOND)
    clock.advance(29)
    await checkpoint()
    assert state(manager, lease) == "ALLOCATED"
    assert log.kinds() == ["allocated"]


@pytest.mark.parametrize(("first", "second"), [(30, 60), (30, None), (None, 30), (60, 30)])
async def test_a_ttl_changed_without_a_trace(manager, first, second, log):
    """How long a lease lasts is recorded when it begins: with another ttl in memory alone, a crash would cut it short."""
    lease = await manager.allocate("http", owner="r1", ttl_s=first)
    with pytest.raises(OwnerConflict, match="ttl") as caught:
        await manager.allocate("http", owner="r1", ttl_s=second)
    assert (caught.value.holder, caught.value.claimant, caught.value.port) == ("r1", "r1", lease.port)
    assert log.kinds() == ["allocated"]


@pytest.mark.parametrize("later", ["quarantined", "somebody else's", "blocked", "free"])
async def test_a_late_renewal_that_is_taken_for_a_lease(manager, clock, log, later):
    """Silence would tell the former holder that it may go on listening."""
    lease = await manager.allocate("http", owner="r1", port=30_000, ttl_s=30)
    if later == "blocked":
        await manager.block("http", 30_000, reason="x")
    else:
        clock.advance(30)
        await manager.sweep()
    if later in ("free", "somebody else's"):
        clock.advance(10)
        await manager.sweep()
    current = lease.token
    if later == "somebody else's":
        current = (await manager.allocate("http", owner="r2", port=30_000, ttl_s=30)).token
    before = log.events()
    with pytest.raises(StaleLease, match="stop listening") as caught:
        await manager.renew(lease)
    assert (caught.value.token, caught.value.current, caught.value.port) == (lease.token, current, 30_000)
    assert log.events() == before


async def test_a_late_release_that_ends_the_next_holders_lease(manager, clock):
    lease = await manager.allocate("http", owner="r1", port=30_000, ttl_s=30)
    clock.advance(30)
    await manager.release(lease)
    await manager.release(lease)
    assert state(manager, lease) == "QUARANTINED"
    clock.advance(10)
    await manager.allocate("http", owner="r2", port=30_000)
    with pytest.raises(StaleLease):
        await manager.release(lease)
    assert manager.find("r2")[0].port == 30_000


# ---------------------------------------------------------------------- restarts, clocks, a slow disk


async def test_a_restart_that_ends_a_lease_its_owner_had_renewed(log, clock, pool):
    """The controller was away for longer than the ttl: nobody could renew, so each ttl starts anew."""
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        lease = await manager.allocate("http", owner="r1", ttl_s=30)
    clock.advance(1000)
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        clock.advance(29)
        await manager.sweep()
        assert state(manager, lease) == "ALLOCATED"
        assert (await manager.renew(lease)).token == lease.token
        clock.advance(29)
        await manager.sweep()
        assert state(manager, lease) == "ALLOCATED"
        clock.advance(1)
        await settled(manager, lambda: state(manager, lease) == "QUARANTINED")


async def test_a_lease_that_no_controller_ends_after_a_restart(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        lease = await manager.allocate("http", owner="r1", ttl_s=30)
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        clock.advance(30)
        await settled(manager, lambda: state(manager, lease) == "QUARANTINED")


async def test_a_wall_clock_that_ends_a_lease(manager, clock):
    lease = await manager.allocate("http", owner="r1", ttl_s=30)
    clock.step_wall(3600)
    await manager.sweep()
    assert state(manager, lease) == "ALLOCATED"
    clock.step_wall(-7200)
    clock.advance(30)
    await settled(manager, lambda: state(manager, lease) == "QUARANTINED")


@pytest.mark.parametrize("hangs_s", [20, 45])
async def test_a_lease_that_is_over_before_its_caller_hears_of_it(clock, pool, hangs_s):
    """The disk hangs for most of the ttl, or for longer: the time counts from the return of the call."""
    journal = GatedJournal()
    async with open_manager(journal, pools=[pool], clock=clock) as manager:
        got = []
        async with anyio.create_task_group() as tasks:

            async def take():
                got.append(await manager.allocate("http", owner="r1", ttl_s=30))

            journal.hold()
            tasks.start_soon(take)
            await journal.held()
            clock.advance(hangs_s)
            await checkpoint()
            journal.let_go()
        (lease,) = got
        assert state(manager, lease) == "ALLOCATED"
        clock.advance(29)
        await manager.sweep()
        assert state(manager, lease) == "ALLOCATED"
        clock.advance(1)
        await manager.sweep()
        assert state(manager, lease) == "QUARANTINED"


async def test_leases_released_in_time_that_are_remembered_for_ever(clock, memory_log):
    """A long ttl and short lives: what is kept of them does not grow with every lease."""
    async with open_manager(memory_log.handle(), pools=[PoolSpec("http", ports="30000-30003", hold_s=0)], clock=clock) as manager:
        for number in range(3000):
            await manager.release(await manager.allocate("http", owner=f"r{number}", ttl_s=86_400))
        assert len(manager._engine.terms) < 2000


# ---------------------------------------------------------------------- the log


async def test_a_ttl_that_replay_or_a_snapshot_forgets(world):
    lease = world.do(Allocate("p", owner="a", ttl_s=30)) and world.ledger.find("a")[0]
    begun = world.events[-1]
    assert (begun.until, lease.expires_ns) == (begun.ts + 30 * SECOND,) * 2
    assert world.replayed().digest() == world.ledger.digest()
    copy = Ledger()
    load(copy, list(dump(world.ledger)))
    assert copy.digest() == world.ledger.digest()
    assert copy.find("a")[0].expires_ns == lease.expires_ns
    assert "30.0 s without renew(lease)" in explain(world.ledger, "p", lease.port, now_ns=world.now)
    world.release(lease)
    assert world.do(Allocate("p", owner="a")) == ["allocated"]
    assert world.ledger.find("a")[0].expires_ns is None


async def test_a_ttl_that_shortens_an_earlier_hold(world):
    """The `until` of the row is the end of the hold that the port was taken from, and stays it."""
    world.release(world.allocate("a", service="s"))
    world.do(Allocate("p", owner="b", service="s", ttl_s=1))
    world.release(world.ledger.find("b")[0], cause="cancelled")
    assert world.state(100) == "QUARANTINED"


async def test_a_lease_that_ended_before_it_began_believed(world):
    world.do(Allocate("p", owner="a", ttl_s=30))
    begun = world.events.pop()
    ledger = world.replayed()
    for until in (begun.ts, begun.ts - 1, 1, -1, 1 << 62):
        wrong = type(begun)(begun.seq, begun.ts, begun.kind, begun.node, begun.pool, begun.port, begun.owner, token=begun.seq, until=until)
        with pytest.raises(IllegalTransition, match="ends before it begins"):
            apply(ledger, wrong)
        with pytest.raises(JournalCorrupt):
            replay([*world.events, wrong])


async def test_a_log_of_leases_without_ttl_that_digests_otherwise_than_before(world):
    """The column has no new field where nothing has a ttl."""
    world.do(Adopt("p", 104, owner="a"))
    _, (_, _, [row]) = (msgspec.json.decode(line) for line in dump(world.ledger))
    assert row == [104, 1, world.now, 0, 2, "a", "", "", "outside the range 100-103", 0, False, 0]


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("ttl_s", [0, 0.0, -0.0, -1, math.nan, math.inf, -math.inf, 1e12, "30", True, b"1", [30]])
async def test_a_ttl_that_no_lease_can_have(manager, log, ttl_s):
    with pytest.raises(InvalidValue, match="ttl_s") as caught:
        await manager.allocate("http", owner="r1", ttl_s=ttl_s)
    assert caught.value.name == "ttl_s"
    assert log.kinds() == []


@pytest.mark.parametrize("lease", [None, "r1", 7, object()])
async def test_a_renewal_of_something_that_is_no_lease(manager, lease):
    with pytest.raises(InvalidValue, match="lease must be"):
        await manager.renew(lease)
    with pytest.raises(InvalidValue):
        Renew(lease)


async def test_a_renewal_of_another_logs_lease(manager, clock):
    async with open_manager("memory:", pools=[PoolSpec("http", ports="30000-30003")], clock=clock) as other:
        for owner in ("r1", "r2"):
            lease = await other.allocate("http", owner=owner, ttl_s=5)
    with pytest.raises(InvalidValue, match="another log"):
        await manager.renew(lease)
