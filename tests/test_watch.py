"""Following the log while it grows, from memory and from the log: each durable event once, in order, to the end."""

import gc
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import EventKind, InvalidValue, OutcomeUnknown, PoolSpec, open_manager
from tests.tasks import a_few_ticks

pytestmark = pytest.mark.anyio


@pytest.fixture
def opened(log, clock, pool):
    def make(journal=None, *pools):
        return open_manager(journal or log.handle(), pools=pools or [pool], clock=clock, close_s=5)

    return make


async def collect(watch, into):
    async for event in watch:
        into.append(event)


async def test_a_watch_misses_or_doubles_an_event(opened, log):
    """Watchers that start at any point, while calls go on, all the way to `closed`."""
    seen = {}
    async with anyio.create_task_group() as tasks, opened() as manager:
        for number in range(20):
            after = number if number < manager.seq else None
            seen[number] = (manager.seq if after is None else after, [])
            tasks.start_soon(collect, manager.watch(after=after), seen[number][1])
            if number % 2:
                await checkpoint()
            await manager.release(await manager.allocate("http", owner=f"r{number % 4}", service="s"))
    events = log.events()
    for after, got in seen.values():
        assert got == events[after:]
    assert events[-1].kind is EventKind.CLOSED


async def test_a_watch_starts_when_it_is_first_looked_at(opened):
    """From the call of `watch()` on: what happens before the first look is not missed."""
    async with opened() as manager:
        watch = manager.watch()
        lease = await manager.allocate("http", owner="r1")
        assert (await anext(watch)).token == lease.token


async def test_a_watch_shows_what_is_not_durable(opened, log):
    """The journal has written the event, where readers can see it, and has not synced it: a watch that reads the log waits."""
    async with opened() as manager:
        await manager.allocate("http", owner="old")
    journal = log.gated()
    async with opened(journal) as manager:
        watch, got = manager.watch(after=0), []
        async with anyio.create_task_group() as tasks:
            journal.hold()
            tasks.start_soon(partial(manager.allocate, "http", owner="r1"))
            await journal.held()
            tasks.start_soon(collect, watch, got)
            await a_few_ticks()
            assert "r1" not in {event.owner for event in got}
            journal.let_go()
            await manager.release_owner("nobody")
            with anyio.fail_after(30):
                while len(got) < manager.seq:
                    await checkpoint()
            tasks.cancel_scope.cancel()
        assert got == log.events()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_watch_that_falls_far_behind_misses_events(opened, log):
    """More events than are kept in memory: the rest is read from the log, also where the two meet."""
    spec = PoolSpec("p", ports="1-40000", hold_s=0)
    async with opened(None, spec) as manager:
        watch = manager.watch(after=0)
        first = [await anext(watch) for _ in range(2)]

        async def churn(name):
            for _ in range(100):
                await manager.release(await manager.allocate("p", owner=name))

        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(churn, f"r{number}")
        assert manager.seq > 9000
        got = first + [await anext(watch) for _ in range(manager.seq - 2)]
        late = manager.watch(after=manager.seq - 1)
        assert await anext(late) == got[-1]
        assert got == log.events()


async def test_a_watch_of_the_past_needs_the_memory_of_this_opening(opened, log):
    for number in range(3):
        async with opened() as manager:
            await manager.allocate("http", owner=f"r{number}")
    async with opened() as manager:
        for after in (0, 1, 5, manager.seq - 1):
            watch = manager.watch(after=after)
            assert [await anext(watch) for _ in range(manager.seq - after)] == log.events(after=after)


async def test_a_watch_outlives_its_manager(opened, log):
    async with opened() as manager:
        running = manager.watch()
        await manager.allocate("http", owner="r1")
    got = []
    with anyio.fail_after(30):
        await collect(running, got)
        assert [event.kind for event in got] == [EventKind.ALLOCATED, EventKind.CLOSED]
        await collect(manager.watch(), got := [])
        assert got == []
        await collect(manager.watch(after=0), got)
        assert got == log.events()


async def test_a_watch_hangs_when_the_journal_fails(opened, log):
    journal = log.gated()
    async with opened(journal) as manager:
        got = []

        async def watch():
            with pytest.raises(OutcomeUnknown):
                await collect(manager.watch(), got)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            lease = await manager.allocate("http", owner="r1")
            journal.fail(OutcomeUnknown("gone", path="x", errno=5))
            with pytest.raises(OutcomeUnknown):
                await manager.release(lease)
        assert [event.token for event in got] == [lease.token]


@pytest.mark.parametrize("after", [-1, 10**6, 1.0, "1", True])
async def test_a_watch_from_nowhere_is_begun(opened, after):
    async with opened() as manager:
        with pytest.raises(InvalidValue, match="after"):
            manager.watch(after=after)
        with pytest.raises(InvalidValue, match=str(manager.seq)):
            manager.watch(after=manager.seq + 1)


async def test_a_watch_left_half_way_leaves_something_behind(opened):
    """No generator to be closed, no warning, nothing that grows in the manager."""
    async with opened() as manager:
        for number in range(3):
            async for _ in manager.watch(after=0):
                break
            await manager.allocate("http", owner=f"r{number}")
        gc.collect()


async def test_a_slow_consumer_holds_up_the_others(opened):
    async with opened() as manager, anyio.create_task_group() as tasks:
        slow, quick = manager.watch(), []
        tasks.start_soon(collect, manager.watch(), quick)
        for number in range(4):
            await manager.allocate("http", owner=f"r{number}")
        await a_few_ticks()
        assert len(quick) == 4
        assert (await anext(slow)) == quick[0]
        tasks.cancel_scope.cancel()


async def test_two_tasks_share_a_watch_and_lose_an_event(opened, log):
    """Not meant to be, but nothing may be lost or doubled."""
    got = []
    async with anyio.create_task_group() as tasks, opened() as manager:
        watch = manager.watch(after=0)
        for _ in range(3):
            tasks.start_soon(collect, watch, got)
        for number in range(4):
            await manager.allocate("http", owner=f"r{number}")
    assert sorted(event.seq for event in got) == [event.seq for event in log.events()]


# ---------------------------------------------------------------------- structlog


async def test_structlog_is_told_something_else_than_the_log(opened, log, told):
    async with opened() as manager:
        await manager.release(await manager.allocate("http", owner="r1", service="s"))
        await manager.block("http", 30003, reason="EADDRINUSE")
    lines = [line for line in told if line["event"] != "portfsm.recovered"]
    events = log.events()
    assert [line["event"] for line in lines] == [f"portfsm.{event.kind.value}" for event in events]
    for line, event in zip(lines, events, strict=True):
        assert line["seq"] == event.seq
        assert line["log_level"] == "info"
        for name in ("owner", "service", "port", "token", "cause", "reason", "until"):
            assert line.get(name, type(getattr(event, name))()) == getattr(event, name)
            assert name not in line or line[name]
    blocked = next(line for line in lines if line["event"] == "portfsm.blocked")
    assert blocked["reason"] == "EADDRINUSE"


async def test_structlog_is_told_what_nobody_asked_for(opened, capfd):
    async with opened() as manager:
        await manager.release(await manager.allocate("http", owner="r1"))
    out, err = capfd.readouterr()
    assert "portfsm.allocated" not in out + err
