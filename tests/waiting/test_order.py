"""Who of those that wait for a port is served, and who leaves the line. Time moves by hand alone."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import EventKind, JournalFull, ManagerClosed, OutcomeUnknown, OwnerConflict, PoolExhausted, PoolSpec
from tests.tasks import a_few_ticks

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- who is served


async def test_a_later_caller_is_served_first(callers, memory_log):
    async with callers(PoolSpec("one", ports="1000", hold_s=0)) as waiting:
        lease = await waiting.manager.allocate("one", owner="holder")
        names = [f"w{number}" for number in range(50)]
        for name in names:
            await waiting.start(name)
        for place, name in enumerate(names):
            assert waiting.order == names[:place]
            await waiting.manager.release(lease)
            await waiting.arrived(name)
            lease = waiting.got[name]
        await waiting.settled()
        assert waiting.order == names
        memory_log.check(waiting.manager)


async def test_a_caller_who_does_not_wait_overtakes(callers):
    async with callers(PoolSpec("two", ports="1-2", hold_s=10)) as waiting:
        lease = await waiting.manager.allocate("two", owner="a")
        await waiting.manager.allocate("two", owner="b")
        await waiting.start("first", "two")
        await waiting.manager.release(lease)  # quarantined for "a"
        for request in ({"owner": "x"}, {"owner": "a"}):
            with pytest.raises(PoolExhausted):  # even "a", who could have its port back: it is behind "first"
                await waiting.manager.allocate("two", **request)
        assert "first" not in waiting.got


async def test_waiters_in_one_place_hold_up_another(callers):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("w")
        assert (await waiting.manager.allocate("one", owner="b", node="elsewhere")).port == 1000
        assert (await waiting.manager.allocate("fast", owner="b")).port == 2000


async def test_a_port_is_promised_to_two(callers, memory_log):
    async with callers() as waiting:
        first = await waiting.manager.allocate("fast", owner="a")
        second = await waiting.manager.allocate("fast", owner="b")
        for name in ("w1", "w2", "w3"):
            await waiting.start(name, "fast")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.manager.release, first)
            tasks.start_soon(waiting.manager.release, second)
        await waiting.arrived("w1", "w2")
        await waiting.settled()
        assert {waiting.got["w1"].port, waiting.got["w2"].port} == {2000, 2001}
        assert "w3" not in waiting.got
        memory_log.check(waiting.manager)


async def test_a_waiter_for_one_number_takes_another(callers):
    async with callers() as waiting:
        a, b = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("picky", "fast", port=2001)
        await waiting.start("any", "fast")
        await waiting.manager.release(a)
        await waiting.arrived("any")
        assert waiting.got["any"].port == 2000
        assert "picky" not in waiting.got
        await waiting.manager.release(b)
        await waiting.arrived("picky")
        assert waiting.got["picky"].port == 2001


async def test_a_waiter_for_one_number_loses_it_to_one_who_came_later(callers):
    async with callers() as waiting:
        _, b = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("picky", "fast", port=2001)
        await waiting.start("any", "fast")
        await waiting.manager.release(b)
        await waiting.arrived("picky")
        await waiting.settled()
        assert waiting.got["picky"].port == 2001
        assert "any" not in waiting.got


async def test_the_first_in_line_is_passed_over_for_one_who_wants_its_number(callers):
    async with callers() as waiting:
        _, b = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("any", "fast")
        await waiting.start("picky", "fast", port=2001)
        await waiting.manager.release(b)
        await waiting.arrived("any")
        await waiting.settled()
        assert waiting.got["any"].port == 2001
        assert "picky" not in waiting.got


async def test_two_calls_of_one_owner_get_two_ports(callers, memory_log):
    async with callers() as waiting:
        a, _ = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("w1", "fast", owner="twin")
        await waiting.start("between", "fast")
        await waiting.start("w2", "fast", owner="twin")
        await waiting.manager.release(a)
        await waiting.arrived("w1", "w2")
        await waiting.settled()
        assert waiting.got["w1"] == waiting.got["w2"]
        assert "between" not in waiting.got
        assert [event.owner for event in memory_log.events() if event.kind is EventKind.ALLOCATED].count("twin") == 1


async def test_the_answer_to_an_owners_second_call_is_kept_from_its_first(callers):
    """Its first call stands behind a stranger; its second wants the number that is kept for it, and is served out of turn."""
    async with callers(PoolSpec("two", ports="1-2", hold_s=10)) as waiting:
        lease = await waiting.manager.allocate("two", owner="twin")
        await waiting.manager.allocate("two", owner="b")
        await waiting.start("stranger", "two")
        await waiting.manager.release(lease)  # quarantined for "twin"
        await waiting.start("first", "two", owner="twin")
        await waiting.start("second", "two", owner="twin", port=lease.port)
        await waiting.arrived("first", "second")
        assert waiting.got["first"] == waiting.got["second"]
        assert "stranger" not in waiting.got


async def test_a_waiting_owner_that_adopts_a_port_goes_on_waiting(callers):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("first")
        await waiting.start("w", owner="live")
        lease = await waiting.manager.adopt("one", 5000, owner="live")
        await waiting.arrived("w")
        assert waiting.got["w"] == lease
        assert "first" not in waiting.got


async def test_a_waiter_whose_owner_got_a_port_for_another_service_waits_for_ever(callers):
    async with callers() as waiting:
        await waiting.manager.allocate("one", owner="a")
        await waiting.start("w", owner="live", service="s1")
        await waiting.manager.adopt("one", 5000, owner="live", service="s2")
        await waiting.arrived("w")
        assert isinstance(waiting.got["w"], OwnerConflict)


async def test_a_service_waits_for_its_own_quarantined_port(callers):
    async with callers() as waiting:
        lease = await waiting.manager.allocate("one", owner="old", service="s")
        await waiting.start("w", service="s")
        await waiting.manager.release(lease)
        await waiting.arrived("w")
        assert waiting.got["w"].port == 1000


# ---------------------------------------------------------------------- leaving the line


async def test_a_cancelled_waiter_takes_a_port_with_it(callers, clock, memory_log):
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="a"))
        for name in ("w1", "w2", "w3"):
            await waiting.start(name)
        waiting.scopes["w1"].cancel()
        await waiting.settled()
        clock.advance(10)
        await waiting.arrived("w2")
        assert waiting.got["w2"].port == 1000
        assert memory_log.kinds() == ["allocated", "released", "freed", "allocated"]


async def test_who_waits_behind_a_cancelled_one_is_forgotten(callers):
    """What the second could have had all along (its service's own port) it gets when the first goes away."""
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="old", service="s2"))
        await waiting.start("first", service="s1")
        await waiting.start("second", service="s2")
        assert "second" not in waiting.got
        waiting.scopes["first"].cancel()
        await waiting.arrived("second")


async def test_who_waits_behind_one_whose_time_is_up_is_forgotten(callers, clock):
    async with callers() as waiting:
        await waiting.manager.release(await waiting.manager.allocate("one", owner="old", service="s2"))
        await waiting.start("first", service="s1", wait_s=1)
        await waiting.start("second", service="s2")
        clock.advance(1)
        await waiting.arrived("first", "second")
        assert isinstance(waiting.got["first"], PoolExhausted)
        assert waiting.got["second"].port == 1000


async def test_cancelled_just_after_it_was_served_it_keeps_the_port(callers, memory_log):
    async with callers(PoolSpec("one", ports="1000", hold_s=0)) as waiting:
        lease = await waiting.manager.allocate("one", owner="a")
        await waiting.start("w1")
        await waiting.start("w2")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.manager.release, lease)
            await checkpoint()  # w1 has its port and has not run since
            waiting.scopes["w1"].cancel()
        await waiting.arrived("w2")
        memory_log.check(waiting.manager)
        assert [found.owner for name in ("w1", "w2") for found in waiting.manager.find(name)] == ["w2"]


async def test_leaving_keeps_waiters_waiting(opened):
    errors = []

    async def wait(manager, wait_s):
        try:
            await manager.allocate("one", owner=f"w{wait_s}", wait_s=wait_s)
        except ManagerClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks, opened() as manager:
        await manager.allocate("one", owner="a")
        for wait_s in (None, 5, 1000):
            tasks.start_soon(wait, manager, wait_s)
        await a_few_ticks()
    assert len(errors) == 3


async def test_a_failing_journal_keeps_waiters_waiting(callers, memory_log):
    journal = memory_log.gated()
    broken = OutcomeUnknown("the disk is gone", path="x", errno=5)
    async with callers(journal=journal) as waiting:
        lease = await waiting.manager.allocate("one", owner="a")
        for name in ("w1", "w2"):
            await waiting.start(name, wait_s=100)
        journal.fail(broken)
        with pytest.raises(OutcomeUnknown):
            await waiting.manager.release(lease)
        await waiting.arrived("w1", "w2")
        assert waiting.got["w1"] is waiting.got["w2"] is broken


async def test_a_disk_that_fills_up_keeps_waiters_waiting(callers, memory_log):
    journal = memory_log.gated()
    async with callers(journal=journal) as waiting:
        leases = [await waiting.manager.allocate("fast", owner=owner) for owner in "ab"]
        await waiting.start("w", "fast")
        journal.full = True
        await waiting.manager.release(leases[0])
        await waiting.arrived("w")
        assert isinstance(waiting.got["w"], JournalFull)
