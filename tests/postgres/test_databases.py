"""Another server, other tables, other rights than the journal expects."""

from __future__ import annotations

import contextlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from portfsm import read_journal
from portfsm.errors import Fenced, JournalCorrupt, JournalError, JournalTooNew, JournalUnreadable, OutcomeUnknown
from portfsm.journals import _pg_schema
from portfsm.journals.postgres import PostgresJournal
from portfsm.testing.contract import sample_events
from tests.postgres.link import Link


def name_of(url: str) -> str:
    return url.partition("log=")[2]


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
