"""What can go wrong between a writer and its server: what is kept, what is told, and that going on is right."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from portfsm import read_journal, replay
from portfsm.errors import JournalError, JournalFull, JournalUnreadable, OutcomeUnknown
from portfsm.journals.postgres import PostgresJournal
from portfsm.manager import open_manager
from portfsm.testing.contract import sample_events
from tests import real_postgres
from tests.postgres.conftest import SPEC

# ---------------------------------------------------------------------- the link


@pytest.mark.parametrize("how", ["answer lost", "cut"])
@pytest.mark.parametrize("reopened", ["at once"])
def test_an_append_without_an_answer_is_called_kept_or_lost(postgres_url, through_link, link, open_postgres, how, reopened):
    events = sample_events(6)
    journal = open_postgres(through_link)
    journal.append(events[:2])
    if how == "cut":
        link.cut()
        kept = 2
    else:
        link.mute()
        kept = 4
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="open the log again"):
        journal.append(events[2:4])
    assert time.monotonic() - began < 4
    link.heal()
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):  # for ever
            journal.append(events[2:4])
    journal.close()  # lets the next one in at once, by a connection of its own
    journal = open_postgres(through_link)
    assert list(journal.read()) == events[:kept]
    journal.append(events[kept:])
    journal.close()
    assert list(read_journal(postgres_url)) == events


@pytest.mark.anyio
async def test_a_caller_is_told_of_a_lease_whose_answer_was_lost(postgres_url, through_link, link, short):
    def journal() -> PostgresJournal:
        return PostgresJournal.from_url(through_link, **short)

    async with open_manager(journal(), pools=[SPEC]) as manager:
        first = await manager.allocate("http", owner="a")
        link.mute()
        with pytest.raises(OutcomeUnknown):
            await manager.allocate("http", owner="b")
        assert not manager.find("b")
        link.heal()
        with pytest.raises(OutcomeUnknown):
            await manager.release(first)
    async with open_manager(journal(), pools=[SPEC]) as manager:
        again = await manager.allocate("http", owner="b")
        assert manager.find("a") == (first,)
        assert manager.find("b") == (again,)
    replay(read_journal(postgres_url))
    assert [event.owner for event in read_journal(postgres_url) if event.kind == "allocated"] == ["a", "b"], "a repeat, not a second lease"


@pytest.mark.anyio
async def test_an_idle_leader_loses_the_lead_over_a_cut_link(through_link, link, short):
    """Nothing was on its way: its next sign of life goes through another connection."""
    async with open_manager(PostgresJournal.from_url(through_link, **short), pools=[SPEC]) as manager:
        link.cut()
        await anyio.sleep(2 * short["lease_s"])
        await manager.allocate("http", owner="a")


def test_a_server_that_stops_answering_hangs_its_client(through_link, link, short):
    """The kernel still acknowledges every packet, so that only our own watchdog ends the wait."""
    journal = PostgresJournal.from_url(through_link, **short)
    journal.open("one")
    link.mute()
    began = time.monotonic()
    with pytest.raises(JournalUnreadable):
        journal.renew()
    assert time.monotonic() - began < 4
    link.cut()
    link.heal()
    journal.renew()
    journal.close()


@pytest.mark.parametrize("url", ["postgresql://postgres@127.0.0.1:1/d", "postgresql://postgres@127.0.0.1:1,127.0.0.1:2/d"])
def test_a_server_that_is_not_there_gives_no_hint(url):
    with pytest.raises(JournalUnreadable) as refused:
        PostgresJournal.from_url(url).open("one")
    for port in url.partition("@")[2].removesuffix("/d").split(","):
        assert f"port {port.partition(':')[2]}" in str(refused.value), "what was tried"
    assert "Waited" in str(refused.value)


def test_an_address_that_swallows_everything_is_waited_for_without_end(short):
    """A listener whose queue is full answers nothing at all."""
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener, contextlib.ExitStack() as stack:
        port = listener.getsockname()[1]
        for _ in range(8):
            stack.enter_context(socket.socket()).setblocking(False)
        url = f"postgresql://postgres@127.0.0.1:{port}/d?connect_timeout=2"
        began = time.monotonic()
        with pytest.raises(JournalUnreadable, match="at most 2 s"):
            PostgresJournal.from_url(url, **short).open("one")
        assert time.monotonic() - began < 6


# ---------------------------------------------------------------------- the server


@pytest.mark.anyio
async def test_an_acknowledged_event_is_lost_by_a_server_that_is_killed(own_server, short):
    url = own_server.url("ports")
    PostgresJournal.from_url(url).init()
    acknowledged, enough = [], anyio.Event()

    async def churn(number: int) -> None:
        with contextlib.suppress(JournalError):
            for count in range(10_000):
                lease = await manager.allocate("http", owner=f"{number}-{count}")
                acknowledged.append(lease)
                if len(acknowledged) == 100:
                    enough.set()
                await manager.release(lease)

    async with open_manager(PostgresJournal.from_url(url, **short), pools=[SPEC]) as manager, anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(churn, number)
        await enough.wait()
        own_server.kill()
    own_server.start()
    events = {event.seq: event for event in read_journal(url)}
    assert len(acknowledged) >= 100
    assert all(events[lease.token].owner == lease.owner for lease in acknowledged)
    await anyio.sleep(short["lease_s"])
    async with open_manager(PostgresJournal.from_url(url, **short)) as manager:
        await manager.allocate("http", owner="next")
    own_server.stop()
    own_server.start()
    replay(read_journal(url))


@pytest.mark.anyio
async def test_an_idle_manager_dies_of_a_server_that_restarts(own_server):
    url = own_server.url("ports")
    PostgresJournal.from_url(url).init()
    async with open_manager(url, pools=[SPEC], lease_s=2.0) as manager:
        await manager.allocate("http", owner="a")
        own_server.stop()
        own_server.start()
        await anyio.sleep(1.5)
        await manager.allocate("http", owner="b")


def test_a_full_disk_is_told_as_something_else(own_server):
    """A tablespace on a file system of a few megabytes of its own. Needs the right to mount one."""
    small = own_server.folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        if whom := real_postgres.as_whom():
            os.chown(small, whom["user"], whom["group"])
        small.chmod(0o700)
        own_server.ask(f"create tablespace small location '{small}'")
        own_server.ask("create database ports tablespace small")
        url = own_server.url("ports", "ports")
        journal = PostgresJournal.from_url(url)
        journal.init()
        journal.open("one")
        events = sample_events(200_000)
        written = 0
        with pytest.raises(JournalFull, match="make room"):
            while True:
                journal.append(events[written : written + 1000])
                written += 1000
        with pytest.raises(JournalFull):
            journal.append(events[written : written + 1])
        journal.close()
        assert list(read_journal(url)) == events[:written]
    finally:
        own_server.stop(signal.SIGQUIT)
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_an_acknowledged_event_is_lost_with_a_primary_whose_stand_by_is_promoted(own_server, short):
    """With `synchronous_standby_names` an append returns when both have it."""
    own_server.ask("alter system set synchronous_standby_names = '*'")
    second = real_postgres.Server(own_server.folder / "second", programs=own_server.programs)
    second.folder.mkdir()
    if whom := real_postgres.as_whom():
        os.chown(second.folder, whom["user"], whom["group"])
    own_server.run(
        "pg_basebackup",
        "-h",
        "127.0.0.1",
        "-p",
        str(own_server.port),
        "-U",
        "postgres",
        "-D",
        str(second.data),
        "-R",
        "-X",
        "stream",
        "-c",
        "fast",
    )
    second.start()
    own_server.ask("select pg_reload_conf()")
    try:
        both = f"postgresql://postgres@127.0.0.1:{second.port},127.0.0.1:{own_server.port}/postgres?log=ports"  # the stand-by first
        journal = PostgresJournal.from_url(both, **short)
        journal.init()
        journal.open("one")
        events = sample_events(4000)
        for start in range(0, 3000, 10):
            journal.append(events[start : start + 10])
        with PostgresJournal.from_url(second.url("ports")).tail() as tail:
            assert sum(map(len, tail.take())) == 3000, "a stand-by is read as well"
            assert tail.fileno() == -1, "and asked now and then, as it tells nobody"
        own_server.kill()
        with pytest.raises(OutcomeUnknown):
            journal.append(events[3000:3010])
        journal.close()
        second.ask("select pg_promote(true, 30)")
        second.ask("alter system reset synchronous_standby_names")
        second.ask("select pg_reload_conf()")
        time.sleep(short["lease_s"])
        journal = PostgresJournal.from_url(both, **short)  # the same URL finds the new primary
        assert journal.open("two") == 2
        kept = list(journal.read())
        assert kept in (events[:3000], events[:3010])
        journal.append(events[len(kept) : len(kept) + 5])
        journal.close()
    finally:
        if second.process is not None:
            second.stop(signal.SIGQUIT)


def test_an_append_is_acknowledged_that_only_the_primary_has(own_server):
    """The stand-by is away and an operator ends the wait: the server says so in a warning, and calls it done."""
    url = own_server.url("ports")
    PostgresJournal.from_url(url).init()
    journal = PostgresJournal.from_url(url, lease_s=60.0)
    journal.open("one")
    own_server.ask("alter system set synchronous_standby_names = 'away'")
    own_server.ask("select pg_reload_conf()")
    with ThreadPoolExecutor(1) as thread:
        appended = thread.submit(journal.append, sample_events(1))
        waiting = "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"
        while not appended.done() and not own_server.ask(waiting):
            time.sleep(0.02)
        with pytest.raises(OutcomeUnknown, match="canceling wait"):
            appended.result(10)
    own_server.ask("alter system reset synchronous_standby_names")
    own_server.ask("select pg_reload_conf()")
    journal.close()
