"""What can go wrong between a writer and its server: what is kept, what is told, and that going on is right."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import psycopg
import pytest

from portfsm import read_journal, replay
from portfsm.errors import Fenced, JournalCorrupt, JournalError, JournalFull, JournalTooNew, JournalUnreadable, OutcomeUnknown
from portfsm.journals import _pg_schema
from portfsm.journals.postgres import PostgresJournal
from portfsm.manager import open_manager
from portfsm.testing.contract import sample_events
from tests import real_postgres
from tests.postgres.conftest import SPEC
from tests.postgres.link import Link


def name_of(url: str) -> str:
    return url.partition("log=")[2]


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


@pytest.fixture
def own_server(postgres):
    """A server that a test may stop, kill and fill."""
    folder = real_postgres.new_folder()
    server = real_postgres.Server(folder, programs=postgres.programs).make_like(postgres).start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


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


# ---------------------------------------------------------------------- another server, other tables


def test_two_servers_behind_one_url_are_taken_for_one_log(postgres, own_server, short):
    """The link leads to another server from one connection to the next, with a log of the same name."""
    for server in (postgres, own_server):
        PostgresJournal.from_url(server.url("same")).init()
    with Link(postgres.port) as link:
        url = own_server.url("same", port=link.port)
        journal = PostgresJournal.from_url(url, **short)
        journal.open("one")
        journal.append(sample_events(3))
        with journal.tail() as tail:
            assert [event for events in tail.take() for event in events] == sample_events(3)
            link.target = own_server.port
            link.cut()
            with pytest.raises(JournalUnreadable):
                list(tail.take())
            with pytest.raises(JournalCorrupt, match="another server answers"):
                list(tail.take())
        with contextlib.suppress(JournalUnreadable):
            journal.renew()  # finds out that the connection is gone
        with pytest.raises((Fenced, OutcomeUnknown)):
            journal.renew()
        with pytest.raises((Fenced, OutcomeUnknown)):
            journal.append(sample_events(1, after=3))
        journal.close()
    assert list(read_journal(own_server.url("same"))) == []


@pytest.mark.parametrize(
    "damage",
    [
        "delete from portfsm_event where seq = 3 and log = {log}",
        "update portfsm_event set line = 'x' where seq = 3 and log = {log}",
        "update portfsm_log set digest = '\\x00' where log = {log}",
        "update portfsm_log set header = 'x' where log = {log}",
    ],
)
def test_a_damaged_end_is_written_on(postgres, postgres_url, open_postgres, damage):
    """With a snapshot up to the end nothing of the log would be read: the last event is looked at all the same."""
    journal = open_postgres(postgres_url)
    journal.append(sample_events(3))
    journal.close()
    log = postgres.ask("select log from portfsm_log where name = %(name)s", name=name_of(postgres_url))[0][0]
    postgres.ask(damage.format(log=log))
    for _ in range(2):  # and the lead is not kept
        with pytest.raises(JournalCorrupt):
            open_postgres(postgres_url)


def test_a_database_with_another_isolation_refuses_the_lead(postgres, database):
    postgres.ask(f"alter database {database} set default_transaction_isolation = 'serializable'")
    url = postgres.url("ports", database)
    PostgresJournal.from_url(url).init()
    with ThreadPoolExecutor(8) as threads:
        journals = [PostgresJournal.from_url(url, lease_s=60.0) for _ in range(8)]
        errors = [outcome.exception() for outcome in [threads.submit(journal.open, "one") for journal in journals]]
    for journal in journals:
        journal.close()
    assert sorted(type(error).__name__ for error in errors) == ["JournalLocked"] * 7 + ["NoneType"]


@pytest.mark.parametrize("way", ["renew", "append"])
def test_a_server_that_forgot_events_is_written_on(postgres, postgres_url, through_link, link, short, way):
    """A stand-by was promoted that lacks the last event which its primary acknowledged."""
    journal = PostgresJournal.from_url(through_link, **short)
    journal.open("one")
    events = sample_events(3)
    journal.append(events[:1])
    head = journal.head()
    journal.append(events[1:2])
    name = {"name": name_of(postgres_url)}
    postgres.ask("delete from portfsm_event where seq = 2 and log = (select log from portfsm_log where name = %(name)s)", **name)
    postgres.ask("update portfsm_log set seq = 1, digest = %(digest)s where name = %(name)s", digest=bytes.fromhex(head.digest), **name)
    link.cut()
    with contextlib.suppress(JournalUnreadable):
        journal.renew()
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="ends at 1"):
            journal.renew() if way == "renew" else journal.append(events[2:])
    journal.close()
    assert list(read_journal(postgres_url)) == events[:1]


def test_tables_of_another_version_are_written(postgres, database):
    url = postgres.url("ports", database)
    with pytest.raises(JournalUnreadable, match="portfsm init"):
        PostgresJournal.from_url(url).open("one")
    journal = PostgresJournal.from_url(url)
    journal.init()
    postgres.ask("update portfsm_schema set version = version + 1", database)
    for use in (lambda: journal.open("one"), lambda: list(read_journal(url)), journal.init, journal.head_at):
        with pytest.raises(JournalTooNew, match="upgrade portfsm"):
            use()
    postgres.ask("update portfsm_schema set version = 1", database)
    for use in (lambda: journal.open("one"), lambda: list(read_journal(url))):
        with pytest.raises(JournalUnreadable, match="portfsm init"):
            use()
    assert postgres.ask("select epoch, seq, holder from portfsm_log", database) == [(0, 0, "")]


def test_an_older_database_is_not_brought_up(postgres, database):
    """One made by the first version's script alone; its log stays."""
    postgres.ask(_pg_schema.SCRIPTS[0], database)
    postgres.ask("insert into portfsm_schema values (1)", database)
    made = PostgresJournal.from_url(postgres.url("ports", database)).init()
    assert (made.version_before, made.version, made.new) == (1, len(_pg_schema.SCRIPTS), True)
    assert postgres.ask("select count(*) from portfsm_history", database) == [(0,)]


def test_two_who_prepare_at_once_spoil_it(postgres, database):
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: PostgresJournal.from_url(postgres.url("ports", database)).init(), range(6)))
    assert sorted(one.new for one in made) == [False] * 5 + [True]
    assert postgres.ask("select count(*) from portfsm_schema", database) == [(1,)]


def test_a_pooler_gives_each_statement_another_session(postgres):
    """One shows by the key it hands out for cancelling: it is not the server's."""

    def forge(data: bytes) -> bytes:
        at = data.find(b"K\0\0\0\x0c")
        return data if at < 0 else data[: at + 5] + b"\0\0\0\x07" + data[at + 9 :]

    PostgresJournal.from_url(postgres.url("pooled")).init()
    with Link(postgres.port, change=forge) as link:
        url = postgres.url("pooled", port=link.port)
        with pytest.raises(JournalUnreadable, match="pooler=session"):
            PostgresJournal.from_url(url).open("one")
        journal = PostgresJournal.from_url(url + "&pooler=session")
        journal.open("one")
        journal.append(sample_events(2))
        journal.close()


def test_a_database_that_cannot_keep_every_name(postgres):
    postgres.ask("create database latin encoding 'LATIN1' locale 'C' template template0")
    with pytest.raises(JournalUnreadable, match="UTF8"):
        PostgresJournal.from_url(postgres.url("x", "latin")).init()


def test_a_user_without_rights_is_told_nothing_useful(postgres, database):
    url = postgres.url("ports", database)
    PostgresJournal.from_url(url).init()
    postgres.ask("create role reader login") if not postgres.ask("select 1 from pg_roles where rolname = 'reader'") else None
    as_reader = url.replace("postgres@", "reader@")
    with pytest.raises(JournalUnreadable, match="permission denied"):
        list(read_journal(as_reader))
    postgres.ask("grant select on all tables in schema public to reader", database)
    assert list(read_journal(as_reader)) == []
    with pytest.raises(JournalUnreadable, match="permission denied"):
        PostgresJournal.from_url(as_reader).open("one")


def test_the_rights_that_the_page_names_are_not_enough(postgres, database):
    url = postgres.url("ports", database)
    PostgresJournal.from_url(url).init()
    for role in ("leader", "auditor"):
        if not postgres.ask("select 1 from pg_roles where rolname = %(role)s", role=role):
            postgres.ask(f"create role {role} login")
    page = (Path(__file__).parents[2] / "docs" / "postgres.md").read_text()
    for grant in re.findall(r"^grant .*?;", page, re.MULTILINE):
        postgres.ask(grant, database)
    journal = PostgresJournal.from_url(url.replace("postgres@", "leader@"))
    journal.open("one")
    journal.append(sample_events(3))
    journal.save_snapshot(3, [b"x"])
    journal.renew()
    journal.close()
    assert journal.head_at() == journal.head()
    with journal.audit() as audit:
        assert audit.snapshot == (3, [b"x"])
    as_auditor = postgres.dsn(database).replace("postgres@", "auditor@")
    with psycopg.connect(as_auditor, autocommit=True) as connection:
        assert connection.execute("select count(*) from portfsm_history").fetchone() == (3,)
        assert connection.execute("select count(*) from portfsm_holders").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from portfsm_event")


def test_a_server_that_does_not_wait_for_its_disk_is_taken_at_its_word(postgres, database, open_postgres):
    postgres.ask(f"alter database {database} set synchronous_commit = off")
    url = postgres.url("ports", database)
    journal = PostgresJournal.from_url(url)
    journal.init()
    journal.open("one")
    assert journal._session.ask("show synchronous_commit") == [("on",)]
    journal.close()


def test_a_forked_process_writes_through_its_parents_connection(postgres_url, open_postgres):
    journal = open_postgres(postgres_url)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            journal.append(sample_events(1))
        except JournalError as error:
            code = 0 if "forked" in str(error) else 2
        journal.close()
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    journal.append(sample_events(1))


def test_a_url_or_a_journal_shows_its_password(postgres_url):
    journal = PostgresJournal.from_url("postgresql://u:hunter2@h/d?log=x")
    assert "hunter2" not in f"{journal!r} {journal.path} {journal.place}"
