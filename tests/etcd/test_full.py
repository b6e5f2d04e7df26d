"""A cluster that is full just when a log must be mended."""

from __future__ import annotations

import pytest

from portfsm.errors import JournalError, JournalFull
from portfsm.journals import read_journal
from portfsm.journals._etcd_client import Client
from portfsm.journals._etcd_store import Keys
from portfsm.journals._etcd_wire import delete, put, transaction
from portfsm.journals._inspect import inspect_in
from portfsm.journals.etcd import EtcdJournal
from portfsm.testing.contract import sample_events
from tests.etcd.server import Cluster

EVENTS = sample_events(10)


def test_a_log_that_could_not_be_mended_for_want_of_room_is_written_on_to_unmended(tmp_path):
    """The last leader left its segment unsealed. The seal has no room; once it has, it comes before the new segment."""
    with Cluster(tmp_path, 1, "--quota-backend-bytes", str(4 << 20)) as cluster:
        member, url = cluster.members[0], cluster.url("log")
        before, journal = EtcdJournal.from_url(url), EtcdJournal.from_url(url)
        before.open("before")
        before.append(EVENTS[:3])
        client = Client(before.place, patience_s=5)
        client.ask("kv/txn", transaction([], [delete(Keys("log").lead)]), dict)
        journal.open("after")
        number = 0
        with pytest.raises(JournalError, match=r"space exceeded|quota"):
            while client.ask("kv/txn", transaction([], [put(b"filler/%d" % number, bytes(1 << 20))]), dict):
                number += 1
        for _ in range(2):
            with pytest.raises(JournalFull):
                journal.append(EVENTS[3:6])
        revision = member.post("kv/deleterange", {"key": "ZmlsbGVyLw==", "range_end": "ZmlsbGVyMA=="}).json()["header"]["revision"]
        member.post("kv/compaction", {"revision": str(revision), "physical": True})
        member.post("maintenance/defragment", {})
        alarm = member.post("maintenance/alarm", {"action": "GET"}).json()["alarms"][0]
        member.post("maintenance/alarm", {"action": "DEACTIVATE", "memberID": alarm["memberID"], "alarm": "NOSPACE"})
        journal.append(EVENTS[3:6])
        journal.close()
        before.close()
        assert inspect_in(EtcdJournal.from_url(url).shelf()).damage == ()
        assert list(read_journal(url)) == EVENTS[:6]
