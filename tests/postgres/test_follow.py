"""A copy of the state that keeps up: nothing is skipped, nothing shown twice, and what it says is what the leader says."""

from __future__ import annotations

import anyio
import pytest

from portfsm import follow, open_manager, read_journal
from portfsm.errors import InvalidValue, JournalCorrupt, JournalUnreadable, ManagerClosed, PortOutOfRange
from portfsm.events import Event
from portfsm.journals import FileJournal
from portfsm.journals._pg_log import PAGE
from portfsm.journals.postgres import PostgresJournal
from portfsm.states import EventKind
from portfsm.testing.contract import sample_events
from tests.postgres.conftest import SPEC

pytestmark = pytest.mark.anyio
NEVER_S = 3600.0


@pytest.fixture(params=["file", "postgres"])
def place(request, tmp_path):
    """A log's place, and how often it must be looked at."""
    if request.param == "file":
        return str(tmp_path / "log"), 0.02
    return request.getfixturevalue("postgres_url"), NEVER_S


async def test_a_follower_that_lags_skips_or_differs(place):
    target, poll_s = place
    async with open_manager(target, pools=[SPEC]) as manager:
        lease = await manager.allocate("http", owner="before", node="n")
        async with follow(target, poll_s=poll_s) as follower, anyio.create_task_group() as tasks:
            assert follower.find("before") == (lease,)
            seen = []

            async def watch() -> None:
                async for event in follower.watch(after=0):
                    seen.append(event)
                    if event.owner == "last":
                        return

            tasks.start_soon(watch)
            for number in range(200):
                lease = await manager.allocate("http", owner=f"o{number}")
                if number % 3:
                    await manager.release(lease)
            await manager.allocate("http", owner="last")
            with anyio.fail_after(10):
                await follower.reached(manager.seq)
            assert follower.digest() == manager.digest()
            assert follower.ports() == manager.ports()
            assert follower.statistics() == manager.statistics()
            assert follower.pools == manager.pools
            assert follower.epoch == manager.epoch
            assert follower.port("http", lease.port) == manager.port("http", lease.port)
            assert "replica" not in follower.explain("http", lease.port)
            with pytest.raises(PortOutOfRange):
                follower.port("http", 1)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert seen == list(read_journal(target))[: len(seen)]


async def test_word_that_was_lost_loses_an_event(postgres_url, open_postgres):
    """The listener is deaf; looking now and then is enough."""
    journal = open_postgres(postgres_url, lease_s=60.0)

    class Deaf(PostgresJournal):
        def tail(self, after=0):
            tail = super().tail(after)
            tail.fileno = lambda: -1
            return tail

    async with follow(Deaf.from_url(postgres_url), poll_s=0.05) as follower:
        for seq in range(1, 6):
            await anyio.to_thread.run_sync(journal.append, [Event(seq, seq, EventKind.CLOSED)])
            with anyio.fail_after(2):
                await follower.reached(seq)


async def test_word_that_comes_while_reading_is_forgotten(postgres_url, open_postgres):
    """It arrives with the answer to a query, so that the socket is silent afterwards."""
    journal = open_postgres(postgres_url, lease_s=60.0)
    count = 3 * PAGE
    journal.append([Event(seq, seq, EventKind.CLOSED) for seq in range(1, count + 1)])
    with journal.tail() as tail:
        parts = tail.take()
        next(parts)
        journal.append([Event(count + 1, count + 1, EventKind.CLOSED)])
        assert sum(map(len, parts)) == 2 * PAGE + 1


async def test_a_follower_gives_up_because_the_link_is_cut(postgres_url, through_link, link):
    async with open_manager(postgres_url, pools=[SPEC]) as manager, follow(through_link, poll_s=0.05) as follower:
        for round_ in range(3):
            link.target, target = 1, link.target
            link.cut()
            lease = await manager.allocate("http", owner=f"o{round_}")
            with anyio.fail_after(5):
                while not follower.trouble:  # noqa: ASYNC110  (nobody tells of trouble)
                    await anyio.sleep(0.01)
            assert not follower.find(f"o{round_}"), "it shows what it has"
            link.target = target
            with anyio.fail_after(5):
                await follower.reached(manager.seq)
            assert follower.find(f"o{round_}") == (lease,)
        assert follower.digest() == manager.digest()


async def test_another_server_is_followed_on(postgres, postgres_url, link, through_link, open_postgres):
    """The URL leads to another log of the same name: what was shown is not what is there."""
    journal = open_postgres(postgres_url, lease_s=60.0)
    journal.append([Event(1, 1, EventKind.CLOSED)])
    name = postgres_url.partition("log=")[2]
    PostgresJournal.from_url(postgres_url + "-other").init()
    other = open_postgres(postgres_url + "-other", lease_s=60.0)
    other.append([Event(seq, seq, EventKind.CLOSED) for seq in (1, 2)])
    async with follow(through_link, poll_s=0.05) as follower:
        assert follower.seq == 1
        for old, new in ((name, name + "-gone"), (name + "-other", name)):
            postgres.ask("update portfsm_log set name = %(new)s where name = %(old)s", new=new, old=old)
        link.cut()
        with anyio.fail_after(5), pytest.raises(JournalCorrupt, match="another server answers"):
            async for _ in follower.watch():
                pass
        with pytest.raises(JournalCorrupt):
            follower.ports()


async def test_damage_is_shown_as_the_present(postgres, postgres_url, open_postgres):
    journal = open_postgres(postgres_url, lease_s=60.0)
    journal.append(sample_events(3))
    journal.close()
    postgres.ask(
        "update portfsm_event set line = 'x' where log = (select log from portfsm_log where name = %(name)s)",
        name=postgres_url.partition("log=")[2],
    )
    with pytest.raises(JournalCorrupt):
        async with follow(postgres_url):
            pass


async def test_a_place_without_a_log_is_followed(tmp_path, postgres):
    for target, error in (
        (tmp_path / "none", JournalUnreadable),
        (postgres.url("never-made"), JournalUnreadable),
        ("redis://x", InvalidValue),
        (None, InvalidValue),
    ):
        with pytest.raises(error):
            async with follow(target):
                pass
    for poll_s in (-1, float("nan"), "1"):
        with pytest.raises((InvalidValue, JournalUnreadable)):
            async with follow(tmp_path / "none", poll_s=poll_s):
                pass


async def test_who_waits_for_an_event_is_left_in_silence(tmp_path):
    async with open_manager(tmp_path / "log", pools=[SPEC]):
        pass
    async with anyio.create_task_group() as tasks, follow(FileJournal(tmp_path / "log"), poll_s=0.02) as follower:

        async def wait() -> None:
            with pytest.raises(ManagerClosed):
                await follower.reached(1000)

        async def watch() -> None:
            assert [event.seq async for event in follower.watch(after=0)] == [1, 2, 3]

        tasks.start_soon(wait)
        tasks.start_soon(watch)
        await anyio.sleep(0.05)
