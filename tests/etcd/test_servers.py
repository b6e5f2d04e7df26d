"""What only servers and links can do to the journal in etcd."""

from __future__ import annotations

import signal
import time
from base64 import b64encode
from collections.abc import Iterator

import httpx
import pytest

from portfsm.errors import InvalidValue, JournalError, JournalFull, JournalUnreadable, OutcomeUnknown
from portfsm.journals import read_journal
from portfsm.journals._etcd_store import Keys
from portfsm.journals._etcd_url import parse
from portfsm.journals._etcd_wire import delete, put
from portfsm.journals._inspect import inspect_in
from portfsm.journals.etcd import EtcdJournal
from tests.etcd.behind import EVENTS, change
from tests.etcd.link import Link
from tests.etcd.server import Cluster

# ---------------------------------------------------------------------- links that are cut


@pytest.fixture
def link(etcd: Cluster) -> Iterator[Link]:
    with Link(etcd.members[0].port) as link:
        yield link


def through(link: Link, url: str) -> str:
    return f"etcd://{link.address}/{url.rpartition('/')[2]}"


def test_a_lost_answer_makes_an_event_twice_or_never(link, url, opened):
    """The journal asks again and finds its own bytes: at a header, in the midst of a segment, at a seal."""
    journal = opened(through(link, url))
    link.once = True
    for number in range(0, 90, 3):
        link.cut, link.answers = 0, 0
        journal.append(EVENTS[number : number + 3])
        assert link.cut
    journal.close()
    assert list(read_journal(url)) == EVENTS[:90]
    assert len(inspect_in(EtcdJournal.from_url(url).shelf()).segments) > 2


def test_a_link_cut_for_good_after_the_send_is_taken_for_success_or_failure(link, url, opened):
    journal = opened(through(link, url), lease_s=2.0)
    journal.append(EVENTS[:3])
    link.answers = 0
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown) as unknown:
        journal.append(EVENTS[3:6])
    assert time.monotonic() - began < 4
    assert link.address in str(unknown.value)
    link.answers = None
    with pytest.raises(OutcomeUnknown):
        journal.append(EVENTS[3:6])
    journal.close()
    again = opened(url)
    assert list(again.read()) == EVENTS[:6]  # it had arrived: opening again finds out
    again.append(EVENTS[6:9])


def test_a_request_that_never_arrived_is_taken_for_written(link, url, opened):
    journal = opened(through(link, url), lease_s=2.0)
    journal.append(EVENTS[:3])
    link.deaf = True
    with pytest.raises(OutcomeUnknown):
        journal.append(EVENTS[3:6])
    link.deaf = False
    journal.close()
    assert list(read_journal(url)) == EVENTS[:3]


@pytest.mark.parametrize("answers", range(8))
def test_a_lost_answer_to_the_opening_locks_everybody_out(link, url, opened, answers):
    """The writer that made the key recognises it, whichever answer of its opening was lost."""
    opened().append(EVENTS[:3])
    change(EtcdJournal(parse(url)), delete(Keys(parse(url).name).lead))
    link.once, link.answers = True, answers
    journal = opened(through(link, url))
    journal.append(EVENTS[3:6])
    journal.append(EVENTS[6:9])
    assert link.cut == 1
    journal.close()
    assert list(read_journal(url)) == EVENTS[:9]
    assert inspect_in(EtcdJournal.from_url(url).shelf()).segments[-1].epoch == 2


# ---------------------------------------------------------------------- servers


@pytest.mark.slow
def test_a_member_that_restarts_stops_the_writer(tmp_path, opened):
    with Cluster(tmp_path) as cluster:
        journal = opened(cluster.url("log"))
        journal.append(EVENTS[:3])
        for number in range(1, 4):
            cluster.members[0].kill()
            cluster.members[0].start()  # and the append waits for it
            journal.append(EVENTS[3 * number : 3 * number + 3])
        journal.close()
        assert list(read_journal(cluster.url("log"))) == EVENTS[:12]


@pytest.mark.slow
def test_a_dead_member_stops_the_cluster(tmp_path, opened):
    """Raft's leader is killed while the log is written: the others elect one, the writer goes on with them and keeps its lease."""
    with Cluster(tmp_path, 3) as cluster:
        journal = opened(cluster.url("log"))
        for number in range(100):
            if number == 50:
                cluster.leader().kill()
            journal.append(EVENTS[3 * number : 3 * number + 3])
        journal.close()
        assert list(read_journal(cluster.url("log"))) == EVENTS[:300]


def test_a_frozen_member_hangs_the_writer(tmp_path, opened):
    """A member that takes the connection and answers nothing, first in the URL: its turn passes."""
    with Cluster(tmp_path, 3) as cluster:
        cluster.members[0].signal(signal.SIGSTOP)
        journal = opened(cluster.url("log"), lease_s=6.0)
        began = time.monotonic()
        for number in range(10):
            journal.append(EVENTS[3 * number : 3 * number + 3])
        assert time.monotonic() - began < 6
        journal.close()


def test_members_of_two_clusters_are_taken_for_one(tmp_path, opened, etcd):
    with Cluster(tmp_path) as other:
        journal = opened(f"etcd://{other.members[0].address},{etcd.members[0].address}/log-of-two", lease_s=2.0)
        journal.append(EVENTS[:3])
        other.members[0].kill()
        with pytest.raises(OutcomeUnknown, match="one cluster"):
            journal.append(EVENTS[3:6])
        with pytest.raises(JournalUnreadable):
            list(read_journal(f"etcd://{etcd.members[0].address}/log-of-two"))
        journal.close()


def test_a_full_cluster_loses_events_or_stays_full(tmp_path, opened):
    """The quota is used up: nothing is written and the error says what to do. Done that, the same journal goes on."""
    with Cluster(tmp_path, 1, "--quota-backend-bytes", str(4 << 20)) as cluster:
        member = cluster.members[0]
        journal = opened(cluster.url("log"))
        journal.append(EVENTS[:3])
        filler = 0
        while change_ok(journal, put(b"filler/%d" % filler, bytes(1 << 20))):
            filler += 1
        assert filler
        for _ in range(2):
            with pytest.raises(JournalFull) as full:
                journal.append(EVENTS[3:6])
        assert all(word in str(full.value) for word in ("compact", "defrag", "disarm", "archive", "--quota-backend-bytes"))
        journal.renew()
        assert list(read_journal(cluster.url("log"))) == EVENTS[:3]
        revision = member.post("kv/deleterange", {"key": "ZmlsbGVyLw==", "range_end": "ZmlsbGVyMA=="}).json()["header"]["revision"]
        member.post("kv/compaction", {"revision": str(revision), "physical": True})
        member.post("maintenance/defragment", {})
        assert (
            member.post("maintenance/alarm", {"action": "DEACTIVATE", "memberID": alarmed(member), "alarm": "NOSPACE"}).status_code == 200
        )
        journal.append(EVENTS[3:6])
        journal.close()
        assert list(read_journal(cluster.url("log"))) == EVENTS[:6]


def change_ok(journal: EtcdJournal, *parts: dict[str, object]) -> bool:
    try:
        change(journal, *parts)
    except JournalError:
        return False
    return True


def alarmed(member) -> str:
    return member.post("maintenance/alarm", {"action": "GET"}).json()["alarms"][0]["memberID"]


def test_a_full_cluster_says_something_else_to_who_opens(tmp_path):
    with Cluster(tmp_path, 1, "--quota-backend-bytes", str(2 << 20)) as cluster:
        journal = EtcdJournal.from_url(cluster.url("log"))
        filler = 0
        while change_ok(journal, put(b"filler/%d" % filler, bytes(1 << 20))):
            filler += 1
        with pytest.raises(JournalFull, match="disarm"):
            journal.open("late")


def test_a_cluster_nearly_full_takes_what_grows(tmp_path, opened):
    """Nine tenths of the stated quota: `full`, which lets releases through only. Room again: no longer."""
    with Cluster(tmp_path) as cluster:
        journal = opened(cluster.url("log", quota_mib=4), lease_s=3.0)
        assert not journal.full
        for number in range(4):
            change(journal, put(b"filler/%d" % number, bytes(1 << 20)))
        start = 0
        while not journal.full and start < 600:
            journal.append(EVENTS[start : start + 3])
            start += 3
            time.sleep(0.01)  # what was written is counted ten times a second
        assert journal.full
        revision = change(journal, delete(b"filler/", b"filler0")).header.revision
        cluster.members[0].post("kv/compaction", {"revision": str(revision), "physical": True})
        until = time.monotonic() + 5
        while journal.full and time.monotonic() < until:
            change(journal, put(b"filler", b""))  # what was freed is counted with the next write
            journal.append(())
            time.sleep(0.05)
        journal.close()
        assert not journal.full


# ---------------------------------------------------------------------- who is let in


def test_a_password_is_not_asked_for_or_not_sent(tmp_path, opened):
    with Cluster(tmp_path) as cluster:
        member = cluster.members[0]
        member.post("auth/user/add", {"name": "root", "password": "p@ss"})
        member.post("auth/role/add", {"name": "root"})
        member.post("auth/user/grant", {"user": "root", "role": "root"})
        assert member.post("auth/enable", {}).status_code == 200
        journal = opened(f"etcd://root:p%40ss@{member.address}/log")
        journal.append(EVENTS[:3])
        member.kill()  # tokens do not survive it
        member.start()
        journal.append(EVENTS[3:6])
        journal.close()
        for path, body in (
            ("auth/user/add", {"name": "ports", "password": "hunter2"}),
            ("auth/role/add", {"name": "ports"}),
            (
                "auth/role/grant",
                {"name": "ports", "perm": {"permType": "READWRITE", "key": base64("portfsm/log/"), "range_end": base64("portfsm/log0")}},
            ),
            ("auth/user/grant", {"user": "ports", "role": "ports"}),
        ):
            assert as_root(member, path, body) == 200
        journal = opened(f"etcd://ports:hunter2@{member.address}/log")  # no right to anything else in the cluster
        for start in range(6, 90, 3):
            journal.append(EVENTS[start : start + 3])
        journal.save_snapshot(90, [b"state"])
        journal.renew()
        journal.close()
        with pytest.raises(JournalError, match="permission denied"):
            opened(f"etcd://ports:hunter2@{member.address}/other")
        for wrong in (f"etcd://root:wr%40ng@{member.address}/log", f"etcd://{member.address}/log"):
            with pytest.raises(JournalError) as refused:
                opened(wrong)
            assert "ng" not in str(refused.value).replace("nothing", "")
            assert "user" in str(refused.value)
        assert "p@ss" not in repr(journal.place) + journal.path


def base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def as_root(member, path: str, body: dict) -> int:
    token = member.post("auth/authenticate", {"name": "root", "password": "p@ss"}).json()["token"]
    return httpx.post(f"http://{member.address}/v3/{path}", json=body, headers={"Authorization": token}, trust_env=False).status_code


@pytest.mark.slow
def test_an_encrypted_cluster_is_spoken_to_in_clear(tmp_path, opened):
    with Cluster(tmp_path, 1, secure=True) as cluster:
        member = cluster.members[0]
        certificate = member.place / member.name / "fixtures" / "client" / "cert.pem"
        journal = opened(f"etcd://{member.address}/log?ca={certificate}")
        journal.append(EVENTS[:3])
        journal.close()
        assert list(read_journal(f"etcd://{member.address}/log?ca={certificate}")) == EVENTS[:3]
        for other in ("", "?tls=yes"):
            with pytest.raises(JournalUnreadable, match=member.address):
                EtcdJournal(parse(f"etcd://{member.address}/log{other}"), lease_s=2).open("stranger")
        with pytest.raises(InvalidValue, match="cert"):
            EtcdJournal(parse(f"etcd://{member.address}/log?ca=/no/such/file")).open("stranger")
