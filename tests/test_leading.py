"""A leader whose lease may be over asks before it answers out of its memory: somebody else may have given the port to another since."""

from __future__ import annotations

import anyio
import pytest

from portfsm.errors import Fenced, JournalUnreadable, ManagerClosed, OutcomeUnknown
from portfsm.journals import MemoryJournal
from portfsm.manager import open_manager
from portfsm.specs import PoolSpec
from portfsm.testing import ManualClock

pytestmark = pytest.mark.anyio

SPEC = PoolSpec("http", ports="30000-30009", hold_s=1.0)
LEASE_S = 9.0


class SharedMemory(MemoryJournal):
    """A journal in memory that is led. Tells how often it was asked for a sign of life, and can be silent."""

    lease_s = LEASE_S
    append_renews = True
    signs = 0
    silent = False

    def renew(self) -> None:
        self.signs += 1
        if self.silent:
            raise JournalUnreadable("nobody answers", path="memory:", errno=None)
        self.append(())

    def usurp(self) -> MemoryJournal:
        """Another takes the lead, and this one does not know."""
        self.abandon()
        other = self.reopened()
        other.open("the next one")
        return other


ANSWERS = {
    "allocate again": lambda manager, lease: manager.allocate("http", owner="a", ttl_s=60.0),
    "renew": lambda manager, lease: manager.renew(lease),
    "release what is released": lambda manager, lease: manager.release_owner("nobody"),
}


@pytest.mark.parametrize("call", ANSWERS.values(), ids=ANSWERS)
async def test_a_superseded_leader_answers_out_of_its_memory(call):
    """It slept through its lease. The owner it tells that the port is its own may have lost it long ago."""
    journal, clock = SharedMemory(), ManualClock()
    async with open_manager(journal, pools=[SPEC], clock=clock) as manager:
        lease = await manager.allocate("http", owner="a", ttl_s=60.0)
        journal.usurp()
        clock.advance(LEASE_S)
        with pytest.raises(Fenced):
            await call(manager, lease)


async def test_a_leader_asks_for_every_answer():
    """Not while its lease is young, and once for all who wait."""
    journal, clock = SharedMemory(), ManualClock()
    async with open_manager(journal, pools=[SPEC], clock=clock) as manager:
        lease = await manager.allocate("http", owner="a")
        clock.advance(LEASE_S / 3)
        assert await manager.allocate("http", owner="a") == lease
        assert journal.signs == 0
        clock.advance(LEASE_S)
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(lambda: manager.allocate("http", owner="a"))
        assert journal.signs == 1
        clock.advance(LEASE_S)
        await manager.allocate("http", owner="b")
        assert journal.signs == 1, "an append is a sign of life"


async def test_an_append_is_taken_for_a_sign_of_life_that_is_none():
    """etcd's lease runs on while its leader writes: who is told of a lease then hears it from one that asked."""
    journal, clock = SharedMemory(), ManualClock()
    journal.append_renews = False
    async with open_manager(journal, pools=[SPEC], clock=clock) as manager:
        clock.advance(LEASE_S)
        lease = await manager.allocate("http", owner="a")
        assert journal.signs == 1
        assert await manager.allocate("http", owner="a") == lease
        assert journal.signs == 1


async def test_a_server_that_is_silent_for_a_while_ends_the_lead():
    journal, clock = SharedMemory(), ManualClock()
    async with open_manager(journal, pools=[SPEC], clock=clock) as manager:
        lease = await manager.allocate("http", owner="a")
        clock.advance(LEASE_S)
        journal.silent = True
        with pytest.raises(JournalUnreadable, match="nobody answers"):
            await manager.renew(lease)
        journal.silent = False
        assert await manager.renew(lease) == lease


async def test_who_asks_a_manager_that_was_left_waits_for_ever():
    journal, clock = SharedMemory(), ManualClock()
    async with open_manager(journal, pools=[SPEC], clock=clock) as manager:
        lease = await manager.allocate("http", owner="a")
        await manager.release(lease)
    clock.advance(LEASE_S)
    with anyio.fail_after(5), pytest.raises(ManagerClosed):
        await manager.wait_clear(lease)


async def test_a_lease_is_handed_out_long_after_the_lead_was_lost():
    """The append was in time; the process stood still before anybody heard of it, and another leads since."""
    journal, clock = SharedMemory(), ManualClock()
    append = journal.append

    def slow(events):
        append(events)
        if any(event.owner == "b" for event in events):
            journal.usurp()
            clock.advance(LEASE_S)

    journal.append = slow
    async with open_manager(journal, pools=[SPEC], clock=clock) as manager:
        with pytest.raises(OutcomeUnknown, match=r"recorded up to event 3.*superseded"):
            await manager.allocate("http", owner="b")
        with pytest.raises(Fenced):
            await manager.allocate("http", owner="c")


async def test_a_lease_that_nobody_was_told_of_stays():
    """Recorded, and then the server fell silent before its leader could be sure: the call fails, and its lease is given back."""
    journal, clock = SharedMemory(), ManualClock()
    append = journal.append

    def slow(events):
        append(events)
        if any(event.owner == "b" and event.kind == "allocated" for event in events):
            journal.silent = True
            clock.advance(LEASE_S)

    journal.append = slow
    async with open_manager(journal, pools=[SPEC], clock=clock) as manager:
        with pytest.raises(JournalUnreadable):
            await manager.allocate("http", owner="b")
        journal.silent = False
        await manager.sweep()
        assert not manager.find("b")
