"""`PortManager.reconcile` on every loop: what is recorded, what a crash leaves, and what others do between the plan and the release."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import InvalidValue, ManagerClosed, Observation, OutcomeUnknown, PoolSpec, PortState, Sighting, UnknownPool, open_manager

pytestmark = pytest.mark.anyio

GRACE = 60


@pytest.fixture
def opened(log, clock, pool):
    """A manager on the log, as an async context."""

    def make(*pools):
        return open_manager(log.handle(), pools=pools or [pool], clock=clock)

    return make


def sighting(lease):
    return Sighting(lease.owner, lease.node, lease.pool, lease.port, lease.service)


def observe(manager, *live, complete=True):
    return Observation([""], [sighting(lease) for lease in live], manager.now_ns, complete=complete)


async def look(manager, clock, *live, **options):
    clock.advance(GRACE)
    return await manager.reconcile(observe(manager, *live), **options)


async def three(manager):
    """Leases of three replicas: two that will be seen, and one that will not."""
    return [await manager.allocate("http", owner=name, service="s") for name in ("a", "b", "lost")]


# ---------------------------------------------------------------------- what is recorded


async def test_a_leak_that_stays_or_is_not_durable(opened, log, clock):
    async with opened() as manager:
        *seen, lost = await three(manager)
        reports = [await look(manager, clock, *seen) for _ in range(3)]
        assert [report.released for report in reports] == [(), (), (lost,)]
        assert [report.leaked for report in reports] == [(lost,)] * 3
        view = manager.port("http", lost.port)
        assert (view.state, view.owner, view.reason) == (PortState.QUARANTINED, "lost", "reconciled")
        assert log.events()[-1].cause == "reconciled"
        assert "after 'lost' (service 's') held it (reconciled)" in manager.explain("http", lost.port)
        log.check(manager)
        assert (await look(manager, clock, *seen)).leaked == ()


async def test_a_dry_run_that_changes_something(opened, log, clock):
    """A repair that cannot be looked at beforehand freed what it had forgotten (kubernetes/kubernetes#64345)."""
    async with opened() as manager:
        *seen, lost = await three(manager)
        seq = manager.seq
        for _ in range(5):
            assert (await look(manager, clock, *seen, dry_run=True)).released == ()
        for expected in ((), (), (lost,)):
            clock.advance(GRACE)
            observation = observe(manager, *seen)
            shown = await manager.reconcile(observation, dry_run=True)
            assert shown.released == expected
            assert manager.seq == seq
            assert await manager.reconcile(observation) == shown
        log.check(manager)


async def test_what_was_told_to_adopt_cannot_be(opened, log, clock):
    """The loop a controller writes at its start."""
    async with opened() as manager:
        live = [Sighting(f"r{number}", "", "http", 30_000 + number, "s") for number in range(4)]
        clock.advance(1)
        report = await manager.reconcile(Observation([""], live, manager.now_ns, complete=True))
        assert report.unknown == tuple(live)
        leases = [
            await manager.adopt(each.pool, each.port, owner=each.owner, node=each.node, service=each.service) for each in report.unknown
        ]
        assert [lease.port for lease in leases] == [each.port for each in live]
        report = await look(manager, clock, *leases)
        assert (report.unknown, report.conflicts, report.moved, report.leaked) == ((), (), (), ())
        log.check(manager)


async def test_a_restart_takes_old_counts_for_new(opened, log, clock):
    """Two looks, a restart, and one look are not three looks of one observer: the count begins again."""
    async with opened() as manager:
        *seen, lost = await three(manager)
        for _ in range(2):
            await look(manager, clock, *seen)
        before = observe(manager, *seen)
    clock.advance(1)
    async with opened() as manager:
        with pytest.raises(InvalidValue, match="before this opening"):
            await manager.reconcile(before)
        reports = [await look(manager, clock, *seen) for _ in range(3)]
        assert [report.released for report in reports] == [(), (), (lost,)]
        log.check(manager)


async def test_a_report_comes_before_its_releases_are_durable(log, clock, pool):
    gate, reports = log.gated(), []
    async with open_manager(gate, pools=[pool], clock=clock) as manager:
        *seen, lost = await three(manager)
        await look(manager, clock, *seen)
        await look(manager, clock, *seen)
        clock.advance(GRACE)

        async def last():
            reports.append(await manager.reconcile(observe(manager, *seen)))

        gate.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(last)
            await gate.held()
            assert reports == []
            assert manager.port("http", lost.port).state is PortState.ALLOCATED
            gate.let_go()
        assert [report.released for report in reports] == [(lost,)]
        log.check(manager)


@pytest.mark.parametrize("kept", [False, True])
async def test_a_crash_inside_a_release_leaves_a_port_to_two(log, clock, pool, kept):
    """Whatever the disk kept, the next opening goes on from it: the lease stands and is counted from one, or its hold runs."""
    gate = log.gated()
    with pytest.raises(OutcomeUnknown):
        async with open_manager(gate, pools=[pool], clock=clock) as manager:
            *seen, lost = await three(manager)
            await look(manager, clock, *seen)
            await look(manager, clock, *seen)
            gate.fail(OutcomeUnknown("sync failed", path="x", errno=5), kept=kept)
            await look(manager, clock, *seen)
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        assert manager.port("http", lost.port).state is (PortState.QUARANTINED if kept else PortState.ALLOCATED)
        report = await look(manager, clock, *seen)
        assert (report.leaked, report.released) == (() if kept else (lost,), ())
        log.check(manager)


# ---------------------------------------------------------------------- what others do meanwhile


CROWD = PoolSpec("http", ports="20000-21399", hold_s=0.0)


async def crowd_of(manager):
    """1400 replicas, 140 of them lost: more than are released in two turns. Those seen, and those whose turn comes third."""
    async with anyio.create_task_group() as tasks:
        for number in range(1400):
            tasks.start_soon(partial(manager.allocate, "http", owner=f"r{number}"))
    held = manager.ports("http", state=PortState.ALLOCATED)
    live = [Sighting(view.owner, view.node, view.pool, view.port, view.service) for view in held]
    return live[140:], live[127:140]


MEANWHILE = {
    "released, and given to another": "release",
    "asked for again": "allocate",
    "adopted": "adopt",
    "seen": "reconcile",
}


@pytest.mark.parametrize("what", MEANWHILE.values(), ids=MEANWHILE.keys())
async def test_a_lease_is_released_that_came_back_between_the_plan_and_its_turn(memory_log, clock, what):
    """Cilium re-checks just before it detaches (cilium#46674). Releases are made a few at a time; meanwhile the world goes on."""
    async with open_manager(memory_log.handle(), pools=[CROWD], clock=clock) as manager:
        seen, third_turn = await crowd_of(manager)
        victim, reports = third_turn[-1], []

        async def reconcile():
            clock.advance(GRACE)
            reports.append(await manager.reconcile(Observation([""], seen, manager.now_ns, complete=True)))

        await reconcile()
        await reconcile()
        (lease,) = manager.find(victim.owner)
        async with anyio.create_task_group() as tasks:
            if what == "release":
                tasks.start_soon(partial(manager.allocate, "http", owner="heir", port=victim.port, wait_s=None))
            for _ in range(3):
                await checkpoint()
            tasks.start_soon(reconcile)
            for _ in range(2):  # which has had a turn by now, or two; not three
                await checkpoint()
            assert len(reports) == 2
            if what == "release":
                await manager.release(lease)
            elif what == "reconcile":
                clock.advance(1)
                await manager.reconcile(Observation([""], [victim], manager.now_ns, complete=False))
            elif what == "adopt":
                await manager.adopt("http", victim.port, owner=victim.owner)
            else:
                await manager.allocate("http", owner=victim.owner)
        report = reports[-1]
        assert lease in report.leaked
        assert len(report.released) == 139
        assert lease not in report.released
        (after,) = manager.find("heir" if what == "release" else victim.owner)
        assert after.port == victim.port
        memory_log.check(manager)


async def test_a_cancelled_reconcile_leaves_the_log_in_pieces(memory_log, clock):
    """What it had released is released and recorded; the rest is for the next."""
    async with open_manager(memory_log.handle(), pools=[CROWD], clock=clock) as manager:
        seen, _ = await crowd_of(manager)
        for _ in range(2):
            clock.advance(GRACE)
            await manager.reconcile(Observation([""], seen, manager.now_ns, complete=True))
        clock.advance(GRACE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(manager.reconcile, Observation([""], seen, manager.now_ns, complete=True))
            for _ in range(2):
                await checkpoint()
            tasks.cancel_scope.cancel()
        await manager.sweep()
        first = memory_log.kinds().count("released")
        assert 0 < first < 140
        clock.advance(GRACE)
        report = await manager.reconcile(Observation([""], seen, manager.now_ns, complete=True))
        assert len(report.leaked) == 140 - first
        assert len(report.released) == min(140 - first, (1400 - first) // 10)
        memory_log.check(manager)


async def test_a_replica_that_is_about_to_start_loses_its_port(opened, clock):
    """Its controller crashed between lease and start, came back, and was answered with the same lease: that counts as a sighting."""
    async with opened() as manager:
        *seen, lost = await three(manager)
        await look(manager, clock, *seen)
        await look(manager, clock, *seen)
        assert await manager.allocate("http", owner="lost", service="s") == lost
        reports = [await look(manager, clock, *seen) for _ in range(3)]
        assert [report.released for report in reports] == [(), (), (lost,)]


async def test_a_lease_is_released_before_its_caller_has_it(log, clock, pool):
    """The disk hangs for minutes: nobody can have started a replica on a lease that nobody was given yet."""
    gate = log.gated()
    async with open_manager(gate, pools=[pool], clock=clock) as manager, anyio.create_task_group() as tasks:
        seen = [await manager.allocate("http", owner=name) for name in "ab"]
        gate.hold()
        tasks.start_soon(partial(manager.allocate, "http", owner="late"))
        await gate.held()
        for _ in range(4):
            clock.advance(GRACE)
            tasks.start_soon(manager.reconcile, observe(manager, *seen))
            await anyio.wait_all_tasks_blocked()
        gate.let_go()
        while not manager.find("late"):
            await checkpoint()
        await manager.sweep()
        assert log.kinds() == ["allocated"] * 3


async def test_a_port_that_leaked_goes_past_those_who_wait(log, clock):
    async with open_manager(log.handle(), pools=[PoolSpec("http", ports="30000-30002", hold_s=0.0)], clock=clock) as manager:
        *seen, lost = await three(manager)
        heirs = []

        async def wait():
            heirs.append(await manager.allocate("http", owner="heir", wait_s=None))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            for _ in range(3):
                await look(manager, clock, *seen)
        assert [heir.port for heir in heirs] == [lost.port]


# ---------------------------------------------------------------------- what an operator is told


async def test_a_breaker_or_a_conflict_that_nobody_hears_of(opened, clock, told):
    async with opened() as manager:
        *_, lost = await three(manager)
        await look(manager, clock, lost)
        clock.advance(1)
        await manager.reconcile(Observation([""], [Sighting("x", "", "http", lost.port)], manager.now_ns, complete=False))
    warned = {line["event"]: line for line in told if line["log_level"] == "warning"}
    assert warned["portfsm.reconcile_breaker"]["pools"] == ("http",)
    assert warned["portfsm.reconcile_conflicts"]["count"] == 1
    assert "'x'" in warned["portfsm.reconcile_conflicts"]["first"]


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("grace_s", [-1, float("nan"), float("inf"), "60", True, None])
async def test_a_grace_that_is_no_length_of_time(opened, clock, grace_s):
    async with opened() as manager:
        await three(manager)
        clock.advance(1)
        observation = observe(manager)
        with pytest.raises(InvalidValue) as caught:
            await manager.reconcile(observation, leak_grace_s=grace_s)
        assert caught.value.name == "leak_grace_s"
        assert (await manager.reconcile(observation)).uncounted == ()


@pytest.mark.parametrize("what", [None, {}, [], "everything", PoolSpec])
async def test_an_observation_that_is_none(opened, what):
    async with opened() as manager:
        with pytest.raises(InvalidValue, match="Observation") as caught:
            await manager.reconcile(what)
        assert caught.value.name == "observation"


async def test_a_refused_observation_leaves_a_trace(opened, log, clock):
    async with opened() as manager:
        *seen, lost = await three(manager)
        await look(manager, clock, *seen)
        await look(manager, clock, *seen)
        clock.advance(GRACE)
        kinds = log.kinds()
        with pytest.raises(InvalidValue, match=r"read manager\.now_ns before you look"):
            await manager.reconcile(Observation([""], [], manager.now_ns + 1, complete=True))
        with pytest.raises(UnknownPool):
            await manager.reconcile(Observation([""], [Sighting("a", "", "grpc", 1)], manager.now_ns, complete=True))
        assert log.kinds() == kinds
        assert (await manager.reconcile(observe(manager, *seen))).released == (lost,)


async def test_a_manager_that_was_left_still_reconciles(opened, clock):
    async with opened() as manager:
        observation = observe(manager)
    with pytest.raises(ManagerClosed):
        await manager.reconcile(observation)
    with pytest.raises(ManagerClosed):
        await manager.reconcile(observation, dry_run=True)


async def test_a_present_that_stands_still_or_is_not_the_logs(opened, log, clock):
    async with opened() as manager:
        before = manager.now_ns
        clock.advance(2)
        clock.step_wall(-3600)
        assert manager.now_ns == before + 2_000_000_000
        lease = await manager.allocate("http", owner="a")
        assert lease.since_ns == manager.now_ns
