"""A database that comes back from an older copy while a leader still runs, its connection kept by a pooler: epochs and seqs come again."""

from __future__ import annotations

import msgspec
import pytest

from portfsm import read_journal
from portfsm.errors import OutcomeUnknown
from portfsm.journals.postgres import PostgresJournal
from portfsm.testing.contract import sample_events

EVENTS = sample_events(9)
OTHERS = [msgspec.structs.replace(event, reason="of the other history") for event in EVENTS[:3]]
TABLES = ("portfsm_snapshot", "portfsm_event", "portfsm_log")
"""A table before those that it refers to."""


class Restorable:
    """One log in a database of its own, and a copy of it."""

    def __init__(self, server, database, url):
        self.server, self.database, self.url = server, database, url

    def _ask(self, text):
        self.server.ask(text, database=self.database)

    def back_up(self):
        for table in TABLES:
            self._ask(f"create table copied_{table} as select * from {table}")

    def restore(self):
        for table in TABLES:
            self._ask(f"delete from {table}")
        for table in reversed(TABLES):
            self._ask(f"insert into {table} overriding system value select * from copied_{table}")


@pytest.fixture
def restorable(postgres, database):
    url = postgres.url("log", database=database)
    PostgresJournal.from_url(url).init()
    return Restorable(postgres, database, url)


@pytest.fixture
def both(postgres, restorable, open_postgres):
    """A leader of what is gone, and one of what is there: with the same epoch, at the same event."""
    restorable.back_up()
    stale = open_postgres(restorable.url, lease_s=60.0)
    stale.append(OTHERS)
    restorable.restore()
    leader = open_postgres(restorable.url, "two", lease_s=60.0)
    leader.append(EVENTS[:3])
    assert [row[0] for row in postgres.ask("select epoch from portfsm_log", database=restorable.database)] == [1]
    return stale, leader


def test_two_leaders_with_one_epoch_append(both, restorable):
    stale, leader = both
    with pytest.raises(OutcomeUnknown, match="otherwise"):
        stale.append(EVENTS[3:6])
    leader.append(EVENTS[3:9])
    assert list(read_journal(restorable.url)) == EVENTS


def test_the_state_of_a_history_that_is_gone_is_kept_for_the_next_opening(both, open_postgres, restorable):
    stale, leader = both
    stale.save_snapshot(3, [b"of another history"])
    leader.close()
    assert open_postgres(restorable.url, "three").load_snapshot() is None


def test_a_sign_of_life_of_a_history_that_is_gone_counts(both):
    stale, _ = both
    with pytest.raises(OutcomeUnknown, match="otherwise"):
        stale.renew()
