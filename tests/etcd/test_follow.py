"""Following a log in etcd: each event once, in order, whatever happens to the segments meanwhile."""

from __future__ import annotations

import anyio
import pytest

from portfsm import follow
from portfsm.errors import JournalCorrupt, JournalUnreadable
from portfsm.journals._etcd_url import parse
from portfsm.journals._etcd_wire import delete, put
from portfsm.journals.etcd import EtcdJournal
from portfsm.manager import open_manager
from portfsm.testing.contract import sample_events
from tests.etcd.behind import change
from tests.etcd.leader import SPEC
from tests.etcd.test_archive import written

EVENTS = sample_events(900)


def taken(tail) -> list[int]:
    return [event.seq for events in tail.take() for event in events]


@pytest.mark.parametrize("after", [0, 1, 7, 100])
def test_an_event_is_skipped_or_comes_twice(url, after):
    found = []
    journal = EtcdJournal(parse(url), segment_bytes=4000)
    with EtcdJournal.from_url(url).tail(after) as tail:
        with pytest.raises(JournalUnreadable):
            taken(tail)
        journal.open("nobody")
        assert taken(tail) == []
        journal.close()
        for opening in range(3):
            journal.open("writer")
            for start in range(100 * opening, 100 * opening + 100, 4):
                journal.append(EVENTS[start : start + 4])
                if start % 3:
                    found += taken(tail)
            journal.close()
        found += taken(tail)
        assert taken(tail) == []
    assert found == list(range(after + 1, 301))


def test_who_was_away_while_segments_were_shipped_waits_for_ever(url, tmp_path):
    archive = tmp_path / "archive"
    written(url, archive, last=30, snapshots=()).close()
    with EtcdJournal.from_url(f"{url}?archive={archive}").tail() as tail:
        assert taken(tail) == list(range(1, 31))
        written(url, archive, first=30).close()
        assert taken(tail) + taken(tail) == list(range(31, 601))


def test_bytes_that_a_new_leader_put_aside_are_shown(url):
    """The beginning of a long batch is there and is never finished; the next leader writes something else in its place."""
    long = sample_events(20_000)
    journal = EtcdJournal(parse(url), segment_bytes=4000)
    journal.open("first")
    journal.append(long[:3])
    journal.append(long[3:])
    shelf = journal.shelf()
    name = [name for name in shelf.names() if name.endswith(".jsonl")][-1]
    parts = shelf.parts(name)
    change(journal, delete(shelf.keys.piece(name, parts[-1][0])), delete(shelf.keys.lead))
    with EtcdJournal.from_url(url).tail() as tail:
        assert taken(tail) == [1, 2, 3]
        second = EtcdJournal(parse(url), segment_bytes=4000)
        second.open("second")
        second.append(EVENTS[3:9])
        second.close()
        assert taken(tail) + taken(tail) + taken(tail) == list(range(4, 10))
    journal.close()


def test_damage_ends_the_log_in_silence(url):
    journal = EtcdJournal(parse(url), segment_bytes=4000)
    journal.open("first")
    with journal.tail() as tail:
        journal.append(EVENTS[:3])
        assert taken(tail) == [1, 2, 3]
        shelf = journal.shelf()
        journal.append(EVENTS[3:6])
        journal.append(EVENTS[6:9])
        offset, data = shelf.parts(shelf.names()[0])[1]
        change(journal, put(shelf.keys.piece(shelf.names()[0], offset), data.replace(b"http", b"hptt")))
        with pytest.raises(JournalCorrupt):
            taken(tail)
    journal.close()


@pytest.mark.anyio
async def test_a_follower_differs_from_its_leader(url):
    async with open_manager(url, pools=[SPEC]) as manager, follow(url, poll_s=0.05) as follower:
        for number in range(20):
            lease = await manager.allocate("http", owner=f"replica-{number}")
            if number % 2:
                await manager.release(lease)
        with anyio.fail_after(10):
            await follower.reached(manager.seq)
        assert follower.digest() == manager.digest()
        assert [port.owner for port in follower.ports("http")] == [port.owner for port in manager.ports("http")]
