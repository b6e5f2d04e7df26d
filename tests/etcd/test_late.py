"""Requests that arrive once more, long after another try of them was answered: nothing that came since is changed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from portfsm.errors import JournalFull
from portfsm.journals import read_journal
from portfsm.journals._etcd_client import Client, NoRoom
from portfsm.journals._etcd_lead import Lead
from portfsm.journals._etcd_store import VALUE_BYTES, Shelf, Shipped
from portfsm.journals._etcd_tail import Tail, Writes
from portfsm.journals._etcd_url import parse
from portfsm.journals._etcd_wire import Txn, delete, encode, put
from portfsm.journals._segments import Standing, stand, survey
from portfsm.journals.etcd import EtcdJournal
from tests.etcd.behind import EVENTS, change

EPOCH = 7


class Line(Client):
    """Keeps what was asked, to have it arrive again. A cluster that is full from the write `full_at` on, if there is one."""

    full_at = None

    def __init__(self, url: str) -> None:
        super().__init__(parse(url), patience_s=5.0)
        self.asked: list[dict[str, Any]] = []

    def ask(self, path: str, body: dict[str, Any], *more: Any, **options: Any) -> Any:
        if path == "kv/txn":
            self.asked.append(body)
            grows = any("request_put" in part for part in body["success"])
            if grows and self.full_at is not None and len(self.asked) >= self.full_at:
                raise NoRoom("the cluster's quota is used up", path=self.place.shown, doubtful=False)
        return super().ask(path, body, *more, **options)

    def everything_arrives_again(self) -> None:
        for body in reversed(self.asked):
            super().ask("kv/txn", body, Txn)


class Writer:
    """What a journal is made of, over such a line."""

    def __init__(self, url: str) -> None:
        self.line = Line(url)
        self.shelf = Shelf(self.line)
        self.lead = Lead(self.shelf, 60.0)
        self.lead.acquire("the test", EPOCH)
        self.writes = Writes(self.shelf, self.lead)
        self.line.asked.clear()

    def standing(self) -> Standing:
        return stand(self.shelf, survey(self.shelf))

    def next_segment(self) -> Tail:
        standing = self.standing()
        joint, last = standing.joint, standing.segments[-1].header
        header = msgspec.structs.replace(last, no=joint.no, base=joint.base, prev=joint.prev, epoch=self.lead.epoch)
        return Tail(self.writes, header)


@pytest.fixture
def writer(url: str) -> Writer:
    """One after another, who was fenced in the middle of an append."""
    before = EtcdJournal(parse(url), lease_s=60.0)
    before.open("before")
    before.append(EVENTS[:3])
    shelf = before.shelf()
    (name,) = shelf.names()
    change(before, put(shelf.keys.piece(name, shelf.size(name)), b'{"seq":4,"ts"'), delete(shelf.keys.lead))
    before.close()
    return Writer(url)


def test_the_seal_of_a_mended_segment_is_put_aside(url, writer):
    standing = writer.standing()
    assert standing.ending is not None
    assert standing.ending.torn_bytes
    writer.writes.mend(standing.segments[-1], standing.ending)
    writer.next_segment().append(EVENTS[3:6])
    writer.line.everything_arrives_again()
    assert list(read_journal(url)) == EVENTS[:6]


def mended(writer: Writer) -> Tail:
    standing = writer.standing()
    writer.writes.mend(standing.segments[-1], standing.ending)
    tail = writer.next_segment()
    tail.append(EVENTS[3:6])
    return tail


def test_an_append_is_taken_back_with_the_one_before_it(url, writer):
    """It was cut short by a full cluster; what took its place, once there was room, stays."""
    tail = mended(writer)
    writer.line.full_at = len(writer.line.asked) + 2
    with pytest.raises(JournalFull):
        writer.writes.append(tail.name, tail.size, b"x" * 2 * VALUE_BYTES)
    writer.line.full_at = None
    tail.append(EVENTS[6:9])
    writer.line.everything_arrives_again()
    assert list(read_journal(url)) == EVENTS[:9]


def test_what_was_shipped_comes_back(url, writer):
    """The mark of how far it went does not go back either, or nobody finds the next one."""
    tail = mended(writer)
    tail.seal()
    writer.next_segment().append(EVENTS[6:9])
    first, second, _ = writer.standing().segments
    for segment in (first, second):
        shipped = Shipped.up_to(segment.header.no, segment.seal.last, segment.seal.sha256, "/elsewhere")
        writer.writes.ship(segment.name, encode(shipped))
    writer.line.everything_arrives_again()
    assert writer.shelf.names() == [writer.standing().segments[-1].name]
    assert writer.shelf.shipped == shipped
    assert list(read_journal(url, after=6)) == EVENTS[6:9]
