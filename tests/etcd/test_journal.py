"""The journal in etcd, against a real member: the contract, leaders that come and go, damage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from portfsm.errors import Fenced, JournalCorrupt, JournalError, JournalLocked, JournalUnreadable
from portfsm.journals import read_journal
from portfsm.journals._etcd_store import Keys
from portfsm.journals._etcd_url import parse
from portfsm.journals._etcd_wire import delete, put
from portfsm.journals._inspect import head_at, inspect_in
from portfsm.journals.etcd import EtcdJournal
from portfsm.protocols import Journal
from portfsm.testing.contract import JournalContract, sample_events
from tests.etcd.behind import EVENTS, change
from tests.etcd.conftest import name_for
from tests.etcd.server import Cluster


class TestEtcdJournal(JournalContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, etcd: Cluster) -> None:
        self.cluster = etcd

    def handle(self, place: Path) -> Journal:
        return EtcdJournal(parse(self.cluster.url(name_for(place))), segment_bytes=4000)

    def usurp(self, journal: Journal) -> None:
        """Its key went with its lease, and another leader came and went."""
        assert isinstance(journal, EtcdJournal)
        change(journal, delete(Keys(journal.place.name).lead))
        other = EtcdJournal(journal.place)
        other.open("usurper")
        other.close()


# ---------------------------------------------------------------------- leaders that come and go


def test_a_leader_whose_lease_ran_out_writes(url, opened):
    late = opened(lease_s=2.0)
    late.append(EVENTS[:3])
    until = time.monotonic() + 10
    while True:
        try:
            successor = opened()
            break
        except JournalLocked:
            assert time.monotonic() < until
            time.sleep(0.05)
    with pytest.raises(Fenced) as fenced:
        late.append(EVENTS[3:6])
    assert fenced.value.current == successor._epoch > fenced.value.epoch
    assert f"epoch {successor._epoch}" in str(fenced.value)
    late.close()
    successor.append(EVENTS[3:9])
    successor.close()
    assert list(read_journal(url)) == EVENTS[:9]
    assert [segment.epoch for segment in inspect_in(EtcdJournal.from_url(url).shelf()).segments] == [1, fenced.value.current]


def test_a_leader_with_nothing_to_write_loses_its_lease(url, opened):
    journal = opened(lease_s=2.0)
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        journal.renew()
        time.sleep(0.3)
        with pytest.raises(JournalLocked):
            EtcdJournal(parse(url)).open("another")
    journal.append(EVENTS[:3])


def test_a_busy_leader_loses_its_lease(url, opened):
    """Appends alone are a sign of life, too."""
    journal = opened(lease_s=2.0)
    end, seq = time.monotonic() + 4.0, 0
    while time.monotonic() < end:
        journal.append(EVENTS[seq : seq + 3])
        seq += 3
        time.sleep(0.1)
    journal.close()
    assert list(read_journal(url)) == EVENTS[:seq]


def test_a_leader_that_lost_its_lease_is_not_told(opened):
    journal = opened()
    change(journal, delete(Keys(journal.place.name).lead))
    journal._client.ask("lease/revoke", {"ID": str(journal._lead._lease)}, dict)
    for _ in range(2):
        with pytest.raises(Fenced):
            journal.renew()
    with pytest.raises(Fenced):
        journal.append(EVENTS[:1])


def test_a_closed_log_waits_for_its_lease_to_end(opened):
    for number in range(3):
        began = time.monotonic()
        opened(lease_s=60.0).close()
        assert time.monotonic() - began < 2, number


def test_an_append_of_several_values_is_read_by_half(url, opened):
    """A leader dies between the values of one long batch: it was never acknowledged, so nothing of it is there, and its bytes are kept."""
    long = sample_events(20_000)
    journal = opened()
    journal.append(long[:3])
    journal.append(long[3:])
    shelf = journal.shelf()
    name = [name for name in shelf.names() if name.endswith(".jsonl")][-1]
    parts = shelf.parts(name)
    assert len(parts) > 2
    last = parts[-1][0]
    change(journal, delete(shelf.keys.piece(name, last)), delete(shelf.keys.lead))
    with pytest.raises(JournalError):
        journal.append(sample_events(3, after=20_000))
    journal.close()
    assert list(read_journal(url)) == long[:3]
    again = opened()
    assert "torn" in again.recovered
    assert list(again.read()) == long[:3]
    again.append(EVENTS[3:6])
    again.close()
    assert list(read_journal(url)) == EVENTS[:6]
    kept = change(again, {"request_range": {"key": shelf.keys.all + b"torn/", "range_end": shelf.keys.all + b"torn0"}}).kvs(0)
    assert b"".join(pair.value for pair in kept) == b"".join(data for _, data in parts[:-1])
    assert inspect_in(EtcdJournal.from_url(url).shelf()).damage == ()


# ---------------------------------------------------------------------- damage


def test_an_edited_value_is_believed(url, opened):
    journal = opened()
    for start in range(0, 300, 3):
        journal.append(EVENTS[start : start + 3])
    head = journal.head()
    journal.close()
    assert head_at(url) == head
    assert inspect_in(EtcdJournal.from_url(url).shelf()).damage == ()
    shelf = journal.shelf()
    name = shelf.names()[1]
    offset, data = shelf.parts(name)[3]
    change(journal, put(shelf.keys.piece(name, offset), data.replace(b"http", b"hptt")))
    with pytest.raises(JournalCorrupt) as corrupt:
        list(read_journal(url))
    assert (corrupt.value.segment, corrupt.value.offset) == (name, offset)
    assert [damage.segment for damage in inspect_in(EtcdJournal.from_url(url).shelf()).damage] == [name]


@pytest.mark.parametrize("gone", ["a value", "a segment"])
def test_a_hole_is_read_over(url, opened, gone):
    journal = opened()
    for start in range(0, 300, 3):
        journal.append(EVENTS[start : start + 3])
    journal.close()
    shelf = journal.shelf()
    name = shelf.names()[1]
    if gone == "a value":
        change(journal, delete(shelf.keys.piece(name, shelf.parts(name)[2][0])))
    else:
        change(journal, delete(shelf.keys.file(name), shelf.keys.file(name)[:-1] + b"0"))
    with pytest.raises(JournalCorrupt):
        list(read_journal(url))
    again = EtcdJournal(parse(url))
    for _ in range(2):
        with pytest.raises(JournalCorrupt):
            again.open("again")
            list(again.read())
        again.close()


def test_an_epoch_is_given_twice(url, opened):
    for number in range(3):
        journal = opened()
        journal.append(EVENTS[number : number + 1])
        journal.close()
    change(journal, put(Keys(journal.place.name).epoch, b"1"))
    with pytest.raises(JournalCorrupt, match="epoch 3"):
        opened()


def test_a_copy_that_was_never_finished_is_opened(url, opened):
    journal = opened()
    journal.append(EVENTS[:3])
    journal.close()
    change(journal, put(Keys(journal.place.name).moving, b"somewhere"))
    for use in (lambda: journal.open("x"), lambda: list(read_journal(url)), lambda: head_at(url)):
        with pytest.raises(JournalUnreadable, match="portfsm copy"):
            use()
