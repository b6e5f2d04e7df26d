"""A database that comes back from an older copy while a leader still runs, its connection kept by a pooler: epochs and seqs come again."""

from __future__ import annotations

import json

import msgspec
import pytest

from portfsm import PoolSpec, read_journal
from portfsm.contrib._ray_ports import Ports
from portfsm.errors import HistoryLost, JournalLocked, PoolExhausted
from portfsm.journals.postgres import PostgresJournal
from portfsm.testing.contract import sample_events
from tests.cli.serving import said, server
from tests.contrib.port_clients import parsed, request

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

    def end_lease(self):
        self._ask("update portfsm_log set lease_until = null")


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
    with pytest.raises(HistoryLost, match="otherwise"):
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
    with pytest.raises(HistoryLost, match="otherwise"):
        stale.renew()


@pytest.mark.parametrize("notices", [True, False])
def test_who_led_what_is_gone_gives_up_the_lead_of_another(both, open_postgres, restorable, notices):
    stale, leader = both
    if notices:
        with pytest.raises(HistoryLost):
            stale.renew()
    stale.close()
    with pytest.raises(JournalLocked):
        open_postgres(restorable.url, "three")
    leader.append(EVENTS[3:6])


def test_a_leader_is_told_that_another_leads_where_none_does(open_postgres, restorable):
    """The copy is from before its own term: whoever opens the log again as usual gives its ports to others."""
    open_postgres(restorable.url, "before").close()
    restorable.back_up()
    leader = open_postgres(restorable.url, "leader", lease_s=60.0)
    leader.append(EVENTS[:3])
    restorable.restore()
    with pytest.raises(HistoryLost):
        leader.append(EVENTS[3:6])


def test_replicas_that_live_lose_their_ports_to_others(restorable):
    """What is lost of the log, the controller that lives on remembers; who was gone by then is held in full."""
    ports = Ports(restorable.url, [PoolSpec("http", ports="30000-30003", hold_s=150.0)])
    early = ports.allocate("http", "n", "early")
    restorable.back_up()
    late = ports.allocate("http", "n", "late")
    gone = ports.allocate("http", "n", "gone")
    ports.release("http", "n", "gone", gone, block=False)
    restorable.restore()
    with pytest.raises(HistoryLost):
        ports.allocate("http", "n", "new")
    with pytest.raises(JournalLocked):  # the copy says that it is led still: by this very controller, as it was
        ports.allocate("http", "n", "new")
    restorable.end_lease()
    with pytest.raises(PoolExhausted):
        ports.allocate("http", "n", "new")
    assert [ports.find("http", "n", owner) for owner in ("early", "late", "gone")] == [early, late, None]
    ports.close()


def test_who_serves_a_log_leaves_its_loss_to_the_next_one(restorable, tmp_path):
    """It goes on itself: whoever starts it anew does not know, and would give away what a client has."""
    path = tmp_path / "s"

    def ask(owner):
        return parsed(said(path, request("/v1/allocate", {"pool": "http", "owner": owner})))

    with server(restorable.url, "--socket", path, "--pool", "http=30000-30003", "--hold", "1h") as (child, _):
        restorable.back_up()
        assert ask("early")[1]["port"] == 30000
        restorable.restore()
        assert ask("late")[0] >= 500
        restorable.end_lease()
        assert json.loads(child.stdout.readline())["socket"] == str(path)
        assert ask("late")[0] == 409
    assert [event.data.get("history") for event in read_journal(restorable.url) if event.kind == "opened"] == [None, "lost"]
