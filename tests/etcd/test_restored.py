"""A cluster that comes back from an older copy while a leader still runs, and takes it for the one that it knew.

The copy holds the leader's key and lease, so who leads is no question. What it wrote since is gone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portfsm.errors import HistoryLost, JournalError
from portfsm.journals import read_journal
from portfsm.journals._etcd_url import parse
from portfsm.journals._inspect import inspect_in
from portfsm.journals.etcd import EtcdJournal
from tests.etcd.behind import EVENTS
from tests.etcd.server import Cluster

PATIENT_S = 60.0


class Restorable:
    """A cluster of one, and a copy of its data."""

    def __init__(self, place: Path, cluster: Cluster) -> None:
        self.cluster, self._copy = cluster, place / "copy"
        (self._member,) = cluster.members
        self._data = place / self._member.name

    def _stopped(self, act: Callable[[], object]) -> None:
        self._member.kill()
        act()
        self._member.start()
        self._member.wait()

    def back_up(self) -> None:
        self._stopped(lambda: shutil.copytree(self._data, self._copy))

    def restore(self) -> None:
        self._stopped(lambda: (shutil.rmtree(self._data), shutil.copytree(self._copy, self._data)))


@pytest.fixture
def restorable(tmp_path: Path) -> Iterator[Restorable]:
    with Cluster(tmp_path) as cluster:
        yield Restorable(tmp_path, cluster)


@pytest.fixture
def journal(restorable: Restorable) -> Iterator[EtcdJournal]:
    journal = EtcdJournal(parse(restorable.cluster.url("ports")), lease_s=PATIENT_S, segment_bytes=4000)
    journal.open("leader")
    yield journal
    journal.close()


@pytest.mark.parametrize("lost", [3, 30], ids=["some events", "the whole segment"])
def test_a_leader_goes_on_behind_what_is_gone(restorable, journal, lost):
    """Its next event would lie behind a hole: kept, acknowledged, and lost with the next opening."""
    journal.append(EVENTS[:3])
    restorable.back_up()
    for seq in range(3, 3 + lost, 3):
        journal.append(EVENTS[seq : seq + 3])
    segments = len(inspect_in(journal.shelf()).segments)
    assert segments == 1 if lost == 3 else segments > 1
    restorable.restore()
    with pytest.raises(HistoryLost, match="older copy"):
        journal.append(EVENTS[3 + lost : 6 + lost])
    with pytest.raises(HistoryLost):
        journal.append(EVENTS[3 + lost : 6 + lost])
    journal.save_snapshot(3 + lost, [b"{}"])
    assert list(read_journal(restorable.cluster.url("ports"))) == EVENTS[:3]


def test_a_snapshot_of_what_is_gone_is_kept(restorable, journal):
    journal.append(EVENTS[:3])
    restorable.back_up()
    journal.append(EVENTS[3:6])
    restorable.restore()
    journal.save_snapshot(6, [b"{}"])
    assert not [name for name in journal.shelf().names() if ".snap." in name]


def test_a_leader_with_nothing_to_write_goes_on_leading(restorable, journal):
    """It would answer out of a memory that the log knows nothing of."""
    journal.append(EVENTS[:3])
    restorable.back_up()
    journal.append(EVENTS[3:6])
    restorable.restore()
    with pytest.raises(HistoryLost, match="older copy"):
        journal.renew()


def test_a_leader_is_told_that_another_leads_where_none_does(restorable):
    """The copy is from before its own term: whoever opens the log again as usual gives its ports to others."""
    for holder, lost in (("before", 0), ("leader", 3)):
        journal = EtcdJournal(parse(restorable.cluster.url("ports")), lease_s=PATIENT_S)
        journal.open(holder)
        journal.append(EVENTS[lost : lost + 3])
        if not lost:
            journal.close()
            restorable.back_up()
    restorable.restore()
    with pytest.raises(HistoryLost):
        journal.renew()
    with pytest.raises(HistoryLost):
        journal.append(EVENTS[6:9])
    journal.close()


def test_a_leader_that_lost_nothing_is_stopped(restorable, journal):
    """The copy is as new as what it knows: nothing is wrong."""
    journal.append(EVENTS[:3])
    restorable.back_up()
    restorable.restore()
    journal.append(EVENTS[3:6])
    assert list(read_journal(restorable.cluster.url("ports"))) == EVENTS[:6]


def test_the_next_leader_is_kept_from_what_is_there(restorable, journal):
    journal.append(EVENTS[:3])
    restorable.back_up()
    journal.append(EVENTS[3:6])
    restorable.restore()
    with pytest.raises(JournalError):
        journal.append(EVENTS[6:9])
    journal.close()
    after = EtcdJournal(parse(restorable.cluster.url("ports")))
    assert after.open("the next one") == 2
    assert list(after.read()) == EVENTS[:3]
    after.append(EVENTS[3:9])
    after.close()
    assert list(read_journal(restorable.cluster.url("ports"))) == EVENTS[:9]
