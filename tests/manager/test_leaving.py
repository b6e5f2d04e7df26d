"""Leaving a manager, and a disk that fills up under it."""

import anyio
import pytest

from portfsm import EventKind, JournalFull, ManagerClosed, PortState, open_manager

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- leaving


async def test_calls_after_leaving_hang_or_work(opened):
    async with opened() as manager:
        lease = await manager.allocate("http", owner="r1")
    for call in (
        manager.allocate("http", owner="r2"),
        manager.allocate("http", owner="r2", wait_s=None),
        manager.release(lease),
        manager.withdraw(lease),
        manager.release_owner("r1"),
        manager.adopt("http", 30001, owner="r3"),
        manager.block("http", 30001, reason="x"),
        manager.unblock("http", 30001),
        manager.hold("http", 30001, hold_s=1),
        manager.free("http", 30001, reason="x"),
        manager.sweep(),
    ):
        with pytest.raises(ManagerClosed):
            await call
    assert manager.find("r1") == (lease,)  # what was durable can still be read


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), ExceptionGroup("mine", [ValueError()])])
async def test_what_the_block_raises_comes_out_wrapped(opened, error):
    caught = None
    try:
        async with opened() as manager:
            await manager.allocate("http", owner="r1")
            raise error
    except BaseException as raised:
        caught = raised
    assert caught is error


async def test_what_the_block_raises_is_lost_when_it_is_cancelled_too(opened):
    with pytest.raises(ZeroDivisionError):
        with anyio.CancelScope() as scope:
            async with opened() as manager:
                await manager.allocate("http", owner="r1")
                scope.cancel()
                raise ZeroDivisionError


async def test_cancelling_the_block_leaves_the_log_open(opened, log):
    with anyio.CancelScope() as scope:
        async with opened() as manager:
            await manager.allocate("http", owner="r1")
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert log.events()[-1].kind is EventKind.CLOSED
    async with opened() as manager:
        assert manager.find("r1")


# ---------------------------------------------------------------------- a full disk


async def test_a_full_journal_takes_growing_calls(log, clock, pool):
    journal = log.gated()
    async with open_manager(journal, pools=[pool], clock=clock) as manager:
        lease = await manager.allocate("http", owner="r1")
        gone = await manager.allocate("http", owner="r2")
        journal.full = True
        seq = manager.seq
        for call in (
            manager.allocate("http", owner="r3"),
            manager.allocate("http", owner="r3", wait_s=None),
            manager.adopt("http", 30002, owner="r4"),
            manager.hold("http", 30002, hold_s=1),
        ):
            with pytest.raises(JournalFull):
                await call
        assert manager.seq == seq
        assert await manager.allocate("http", owner="r1") == lease  # a repeat records nothing and needs no room
        await manager.release(gone)
        assert (await manager.free("http", gone.port, reason="room")).state is PortState.FREE
        await manager.block("http", 30003, reason="x")
        await manager.unblock("http", 30003)
        await manager.withdraw(lease)
        await manager.release_owner("r1")
        clock.advance(100)
        assert await manager.sweep()
        assert manager.statistics("http").allocated == 0
    assert log.events()[-1].kind is EventKind.CLOSED


async def test_a_journal_that_was_full_once_refuses_for_ever(memory_log, clock, pool):
    """Nobody releases anything; an operator makes room; growing calls must work again."""
    journal = memory_log.gated()
    async with open_manager(journal, pools=[pool], clock=clock) as manager:
        journal.full = True
        with pytest.raises(JournalFull):
            await manager.allocate("http", owner="r1")
        journal.room = True
        with anyio.fail_after(30):
            while True:
                try:
                    lease = await manager.allocate("http", owner="r1")
                except JournalFull:
                    await anyio.lowlevel.checkpoint()
                else:
                    break
        assert manager.find("r1") == (lease,)
