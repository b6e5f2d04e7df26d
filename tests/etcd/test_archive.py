"""Older segments go to files before they leave etcd: nothing is deleted that is not proven there, and the two read as one log."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from portfsm.errors import JournalCorrupt, JournalUnreadable
from portfsm.journals import read_journal
from portfsm.journals._etcd_url import parse
from portfsm.journals._inspect import head_at, inspect, inspect_in
from portfsm.journals.etcd import EtcdJournal
from portfsm.testing.contract import sample_events

EVENTS = sample_events(900)
LINES = [b"state"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def written(url: str, archive: Path, *, first: int = 0, last: int = 600, snapshots: tuple[int, ...] = (300, 600)) -> EtcdJournal:
    """Events in small segments, with snapshots on the way; still open."""
    journal = EtcdJournal(parse(f"{url}?archive={archive}"), segment_bytes=4000)
    journal.open("writer")
    for start in range(first, last, 3):
        journal.append(EVENTS[start : start + 3])
        if start + 3 in snapshots:
            journal.save_snapshot(start + 3, LINES)
    return journal


def here(journal: EtcdJournal) -> list[str]:
    return [
        name for name in EtcdJournal.from_url(f"etcd://{journal.place.hosts[0]}/{journal.place.name}").shelf().names() if "snap" not in name
    ]


def test_what_was_shipped_stays_in_etcd_or_is_lost(url, archive):
    journal = written(url, archive)
    kept = here(journal)
    head = journal.head()
    journal.close()
    there = sorted(path.name for path in archive.iterdir())
    assert len(there) > 3
    assert int(kept[0][:20]) > 100
    assert kept[0] in there or int(there[-1][:20]) < int(kept[0][:20])
    whole = f"{url}?archive={archive}"
    assert list(read_journal(whole)) == EVENTS[:600]
    assert list(read_journal(whole, after=450)) == EVENTS[450:600]
    assert head_at(whole) == head
    assert inspect_in(EtcdJournal.from_url(whole).shelf()).damage == ()


def test_the_archive_is_no_log_of_its_own(url, archive):
    written(url, archive).close()
    events = list(read_journal(archive))
    assert events == EVENTS[: len(events)]
    assert len(events) > 300
    report = inspect(str(archive))
    assert report.damage == ()
    assert report.torn_bytes == 0
    assert head_at(str(archive), 200) == head_at(f"{url}?archive={archive}", 200)


def test_events_that_were_shipped_are_passed_over(url, archive):
    """Without the archive the log does not begin at its beginning: said so, with where it is; what is here can be read."""
    journal = written(url, archive)
    base = int(here(journal)[0][:20]) - 1
    journal.close()
    with pytest.raises(JournalUnreadable) as refused:
        list(read_journal(url))
    assert str(archive) in str(refused.value)
    assert f"@{base}" in str(refused.value)
    assert "archive=" in str(refused.value)
    assert list(read_journal(url, after=base)) == EVENTS[base:600]


def test_opening_needs_the_archive(url, archive):
    """The snapshots stand for what was shipped, on a machine that does not have the files as well."""
    written(url, archive).close()
    journal = EtcdJournal.from_url(url)
    journal.open("elsewhere")
    assert journal.load_snapshot() == (600, LINES)
    assert list(journal.read(600)) == []
    assert list(journal.read(300)) == EVENTS[300:600]  # the older snapshot would do as well
    journal.append(EVENTS[600:603])
    journal.close()
    assert list(read_journal(f"{url}?archive={archive}")) == EVENTS[:603]


def test_the_next_leader_ships_nothing_more(url, archive):
    written(url, archive).close()
    count = len(list(archive.iterdir()))
    written(url, archive, first=600, last=900, snapshots=(750, 900)).close()
    assert len(list(archive.iterdir())) > count
    whole = f"{url}?archive={archive}"
    assert list(read_journal(whole)) == EVENTS
    assert inspect(str(archive)).damage == ()


def test_what_another_machine_shipped_is_left_out_of_the_archive(url, archive, tmp_path, told):
    """A second machine's directory does not go on where etcd begins: nothing is copied there, and nothing is deleted."""
    written(url, archive).close()
    journal = written(url, tmp_path / "other", first=600, last=900, snapshots=(750, 900))
    assert int(here(journal)[0][:20]) <= 301
    journal.close()
    assert not list((tmp_path / "other").glob("*.jsonl"))
    assert any(line["event"] == "journal.not_shipped" and "does not belong" in str(line["why"]) for line in told)
    assert list(read_journal(f"{url}?archive={archive}")) == EVENTS


@pytest.mark.parametrize("wrong", ["another log", "an edited copy", "a torn copy"])
def test_what_is_not_proven_in_the_archive_is_deleted(url, archive, wrong, told):
    if wrong == "another log":
        other = EtcdJournal(parse(f"{url}-other?archive={archive}"), segment_bytes=4000)
        other.open("other")
        for start in range(0, 60, 3):
            other.append(EVENTS[start : start + 3])
        other.close()
    else:
        written(url, archive, last=60, snapshots=()).close()
        first = min(archive.iterdir())
        data = first.read_bytes()
        first.write_bytes(data.replace(b"http", b"hptt") if wrong == "an edited copy" else data[:-100])
    journal = written(url, archive, first=60 if "copy" in wrong else 0)
    assert here(journal)[0] == f"{1:020d}.jsonl"
    journal.close()
    assert any(line["event"] == "journal.not_shipped" for line in told)
    shutil.rmtree(archive, ignore_errors=True)
    assert list(read_journal(url)) == EVENTS[:600]


def test_an_archive_that_is_none_shows_when_the_cluster_is_full(url, archive):
    archive.write_text("in the way")
    for _ in range(2):  # the refused opening let go
        with pytest.raises(JournalUnreadable) as refused:
            written(url, archive)
        assert str(archive) in str(refused.value)


def test_an_archive_that_was_edited_later_is_believed(url, archive):
    written(url, archive).close()
    first = min(archive.iterdir())
    first.write_bytes(first.read_bytes().replace(b"http", b"hptt"))
    with pytest.raises(JournalCorrupt) as corrupt:
        list(read_journal(f"{url}?archive={archive}"))
    assert corrupt.value.segment == first.name


def test_without_an_archive_something_is_deleted(url):
    journal = EtcdJournal(parse(url), segment_bytes=4000)
    journal.open("writer")
    for start in range(0, 600, 3):
        journal.append(EVENTS[start : start + 3])
        journal.save_snapshot(start + 3, LINES)
    journal.close()
    assert list(read_journal(url)) == EVENTS[:600]


def test_the_cluster_keeps_what_was_shipped(url, archive):
    """What is deleted is compacted, so that the room can be used again."""
    journal = written(url, archive)
    from portfsm.journals._etcd_client import Refused

    with pytest.raises(Refused, match="compacted"):
        journal._client.ask("kv/range", {"key": journal._shelf.keys.shipped, "revision": "2"}, dict)
    journal.close()
