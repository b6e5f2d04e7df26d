"""A controller starts and its live replicas say which ports they use: each way in which that contradicts the log, by name.

Ray's two recovered replicas that claim one port are not told apart there, and a service deleted twice in Kubernetes frees the port
of the one that is left (kubernetes#64466). Here nothing is merged: a claim is adopted with a reason, or refused with both names.
"""

from __future__ import annotations

import anyio
import pytest

from portfsm import OwnerConflict, PoolSpec, PortOutOfRange, PortState, PortUnavailable, StaleLease, open_manager
from portfsm.commands import Adopt, Hold, ReleaseOwner
from tests.tasks import Callers

pytestmark = pytest.mark.anyio


@pytest.fixture
async def manager(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as opened:
        yield opened


def stands(manager, port=30_000):
    view = manager.port("http", port)
    return view.state.value, view.owner


# ---------------------------------------------------------------------- one claim against the log


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("free", ""),
        ("its own quarantine", ""),
        ("its service's quarantine", ""),
        ("another service's quarantine", "was quarantined for s9"),
        ("an operator's hold", "was quarantined for an operator"),
        ("blocked", "was blocked: nginx sits on it"),
        ("outside", "outside the range 30000-30003"),
        ("moved", "moved from port 30002"),
        ("blocked, and moved", "was blocked: nginx sits on it; moved from port 30002"),
    ],
)
async def test_a_live_replica_is_adopted_without_the_reason_recorded(manager, log, before, reason):
    port = 31_000 if before == "outside" else 30_000
    if "quarantine" in before:
        owner, service = {"its own quarantine": ("r1", "s9"), "its service's quarantine": ("r0", "s1")}.get(before, ("r0", "s9"))
        await manager.release(await manager.allocate("http", owner=owner, service=service, port=port))
    elif before == "an operator's hold":
        await manager.hold("http", port, hold_s=60)
    if "blocked" in before:
        await manager.block("http", port, reason="nginx sits on it")
    if "moved" in before:
        await manager.release(await manager.allocate("http", owner="r1", service="s1", port=30_002))
    lease = await manager.adopt("http", port, owner="r1", service="s1")
    adopted = log.events()[-1]
    assert (adopted.kind, adopted.owner, adopted.token, adopted.reason) == ("adopted", "r1", lease.token, reason)
    assert stands(manager, port) == ("ALLOCATED", "r1")
    assert not reason or reason.partition(": ")[0].split(";")[0] in manager.explain("http", port)


async def test_a_replica_that_moved_is_given_a_second_port(manager, log):
    """Same owner, other port: which of the two it uses is for the controller to find out."""
    lease = await manager.allocate("http", owner="r1", port=30_000)
    before = log.events()
    with pytest.raises(OwnerConflict, match="release the lease first") as caught:
        await manager.adopt("http", 30_003, owner="r1")
    error = caught.value
    assert (error.conflict, error.port, error.claimed, error.holder, error.claimant) == ("moved", 30_000, 30_003, "r1", "r1")
    assert log.events() == before
    await manager.release(lease)
    assert (await manager.adopt("http", 30_003, owner="r1")).port == 30_003
    assert log.events()[-1].reason == "moved from port 30000"
    assert stands(manager) == ("QUARANTINED", "r1")


async def test_a_replica_that_changed_its_service_keeps_the_old_ones_traffic(manager):
    await manager.allocate("http", owner="r1", service="s1", port=30_000)
    with pytest.raises(OwnerConflict) as caught:
        await manager.adopt("http", 30_000, owner="r1", service="s2")
    assert (caught.value.conflict, caught.value.port, caught.value.claimed) == ("service", 30_000, 30_000)


async def test_a_port_adopted_outside_the_range_is_given_to_the_next(manager, clock):
    """A recovered port joined the pool when it was released (ray-project/ray#64623).

    Ray#64623: a recovered port outside the range joined the pool on its release.
    """
    await manager.release(await manager.adopt("http", 31_000, owner="r1"))
    clock.advance(10)
    await manager.sweep()
    with pytest.raises(PortOutOfRange):
        await manager.allocate("http", owner="r2", port=31_000)
    with pytest.raises(PortOutOfRange):
        manager.port("http", 31_000)


# ---------------------------------------------------------------------- two claimants


async def claimed(manager):
    """`a` holds port 30000 and `b` proves that it listens there."""
    lease = await manager.allocate("http", owner="a", port=30_000)
    with pytest.raises(OwnerConflict) as caught:
        await manager.adopt("http", 30_000, owner="b")
    assert (caught.value.conflict, caught.value.holder, caught.value.claimant, caught.value.claimed) == ("owner", "a", "b", 30_000)
    return lease


async def test_a_second_claimant_that_changes_the_first_ones_lease(manager, log):
    await claimed(manager)
    assert log.kinds() == ["allocated"]
    assert stands(manager) == ("ALLOCATED", "a")
    assert "Also claimed by 'b'" in manager.explain("http", 30_000)


@pytest.mark.parametrize("end", ["release", "release_owner", "expired"])
async def test_the_holders_release_gives_away_the_port_that_the_claimant_uses(log, clock, end):
    """Kubernetes#64466: one of two duplicate owners went, and the port of the other was free."""
    async with open_manager(log.handle(), pools=[PoolSpec("http", ports="30000", hold_s=0)], clock=clock) as manager:
        lease = await manager.allocate("http", owner="a", ttl_s=5 if end == "expired" else None)
        with pytest.raises(OwnerConflict):
            await manager.adopt("http", 30_000, owner="b")
        async with anyio.create_task_group() as tasks:
            callers = Callers(manager, tasks)
            await callers.begin("c", manager.allocate("http", owner="c", wait_s=None))
            if end == "release":
                await manager.release(lease)
            elif end == "release_owner":
                await manager.release_owner("a")
            else:
                clock.advance(5)
            await manager.sweep()
            await callers.settled()
            assert not callers.got
            blocked = log.events()[-1]
            assert (blocked.kind, blocked.cause) == ("blocked", "conflict")
            assert "'a' is gone and 'b' claims the port" in blocked.reason
            assert stands(manager) == ("BLOCKED", "a" if blocked.owner else "")
            tasks.cancel_scope.cancel()
        log.check(manager)


async def test_the_claimant_cannot_have_the_port_that_was_kept_for_it(manager, log):
    lease = await claimed(manager)
    await manager.release(lease)
    await manager.release(lease)
    adopted = await manager.adopt("http", 30_000, owner="b")
    assert stands(manager) == ("ALLOCATED", "b")
    assert log.events()[-1].reason.startswith("was blocked: 'a' is gone and 'b' claims the port")
    with pytest.raises(StaleLease):
        await manager.release(lease)
    assert stands(manager) == ("ALLOCATED", "b"), "the former holder's late release"
    await manager.release(adopted)
    assert stands(manager) == ("QUARANTINED", "b"), "and the claim is settled"


async def test_a_late_release_of_the_former_claimant_ends_the_holders_lease(manager, clock):
    """The other way round: the claimant got the port first, the log gave it on, and only then the claimant lets go."""
    first = await manager.adopt("http", 30_000, owner="b")
    await manager.release(first)
    clock.advance(10)
    await manager.allocate("http", owner="a", port=30_000)
    for _ in range(2):
        with pytest.raises(StaleLease):
            await manager.release(first)
    with pytest.raises(OwnerConflict):
        await manager.adopt("http", 30_000, owner="b")
    with pytest.raises(StaleLease):
        await manager.release(first, block="not mine")
    assert stands(manager) == ("ALLOCATED", "a")


async def test_a_claim_that_was_settled_blocks_the_port_again(manager, clock):
    await manager.release(await claimed(manager))
    await manager.unblock("http", 30_000)
    clock.advance(10)
    await manager.release(await manager.allocate("http", owner="c", port=30_000))
    assert stands(manager) == ("QUARANTINED", "c")


async def test_a_port_that_an_owner_moved_to_is_given_away_under_it(manager):
    """It holds 30001 and proves 30000, which another holds: the end of that lease must not free it."""
    lease = await manager.allocate("http", owner="a", port=30_000)
    await manager.allocate("http", owner="b", port=30_001)
    with pytest.raises(OwnerConflict) as caught:
        await manager.adopt("http", 30_000, owner="b")
    assert caught.value.conflict == "moved"
    await manager.release(lease)
    assert stands(manager) == ("BLOCKED", "a")


@pytest.mark.parametrize("news", ["adopted elsewhere", "released"])
async def test_a_claim_that_outlives_its_owner(manager, news):
    lease = await claimed(manager)
    if news == "released":
        await manager.release_owner("b")
    else:
        await manager.adopt("http", 30_001, owner="b")
    assert "claimed" not in manager.explain("http", 30_000)
    await manager.release(lease)
    assert stands(manager) == ("QUARANTINED", "a")


@pytest.mark.parametrize("news", ["adopted on another node", "released on another node", "another's"])
async def test_a_claim_forgotten_for_what_happened_elsewhere(manager, news):
    lease = await claimed(manager)
    if news == "released on another node":
        await manager.release_owner("b", node="n2")
    else:
        await manager.adopt("http", 30_001, owner="b" if "node" in news else "d", node="n2")
    await manager.release(lease)
    assert stands(manager)[0] == "BLOCKED"


async def test_a_claimed_port_outside_the_range_that_stops_the_manager(log, clock):
    """It retires with its release, so there is nothing to block."""
    async with open_manager(log.handle(), pools=[PoolSpec("http", ports="30000", hold_s=0)], clock=clock) as manager:
        lease = await manager.adopt("http", 31_000, owner="a")
        with pytest.raises(OwnerConflict):
            await manager.adopt("http", 31_000, owner="b")
        await manager.release(lease)
        assert log.kinds()[-1] == "freed"
        assert (await manager.adopt("http", 31_000, owner="b")).port == 31_000


async def test_a_conflict_that_no_operator_is_told_of(told, clock, pool):
    async with open_manager("memory:", pools=[pool], clock=clock) as manager:
        await claimed(manager)
    (line,) = [line for line in told if line["event"] == "portfsm.port_claimed"]
    assert (line["claimant"], line["port"]) == ("b", 30_000)
    assert "held by 'a'" in line["error"]


async def test_a_restarted_controller_that_hears_a_claim_and_forgets_the_log(log, clock, pool):
    """Adoption at the start, claim by claim: what the log knows stays, what it does not know is added, nothing is merged."""
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        for owner, port in (("a", 30_000), ("b", 30_001)):
            await manager.allocate("http", owner=owner, port=port)
        await manager.release(await manager.allocate("http", owner="c", service="s", port=30_002))
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        seen = {}
        for owner, port in (("a", 30_000), ("x", 30_000), ("b", 30_003), ("y", 30_002), ("z", 31_000)):
            try:
                seen[owner] = (await manager.adopt("http", port, owner=owner)).port
            except OwnerConflict as error:
                seen[owner] = error.conflict
        assert seen == {"a": 30_000, "x": "owner", "b": "moved", "y": 30_002, "z": 31_000}
        assert [view.owner for view in manager.ports("http", state=PortState.ALLOCATED)] == ["a", "b", "y", "z"]
        with pytest.raises(PortUnavailable):
            await manager.allocate("http", owner="n", port=30_001)
        log.check(manager)


def test_an_adoption_that_cuts_off_an_operators_hold(world):
    world.do(Hold("p", 100, hold_s=600))
    world.do(Adopt("p", 100, owner="a"))
    world.do(ReleaseOwner("a"))
    assert world.ledger.port("p", 100).until == world.now + 600_000_000_000
