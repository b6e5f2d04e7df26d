"""Repair, by a person's order: what is before the first damage is saved, everything else is kept aside, and it shows."""

import errno
from pathlib import Path

import pytest

from portfsm.errors import JournalCorrupt, JournalError, JournalLocked
from portfsm.journals import FileJournal, read_journal
from portfsm.journals._inspect import inspect
from portfsm.journals._repair import repair
from portfsm.testing.contract import sample_events
from portfsm.testing.disk import SimulatedDisk

from .logs import segment_files, tree, write


def reopened(path):
    journal = FileJournal(path)
    journal.open("me")
    try:
        events = list(journal.read())
        journal.append(sample_events(2, after=len(events)))
    finally:
        journal.close()
    return events, journal.recovered


@pytest.fixture
def log(tmp_path):
    """Twelve batches of three events in four segments."""
    write(tmp_path, *[3] * 12, segment_bytes=1400)
    assert len(segment_files(tmp_path)) == 4
    return tmp_path


def damage(segment, where=b'{"seq":', shift=40):
    data = bytearray(segment.read_bytes())
    data[data.index(where) + shift] ^= 1
    segment.write_bytes(data)


def test_a_healthy_log_is_repaired(log):
    """Nothing to repair: nothing planned, nothing changed, also with `apply`; a torn tail is left to the next opening."""
    before = tree(log)
    for apply in (False, True):
        plan = repair(str(log), apply=apply)
        assert plan.damage is None
        assert (plan.last_seq, plan.dropped_bytes, plan.kept_in) == (36, 0, ())
    assert tree(log) == before


def test_a_dry_run_changes_something(log):
    """The plan names what would go; only `apply` does it."""
    damage(segment_files(log)[1])
    before = tree(log)
    plan = repair(str(log))
    assert tree(log) == before
    assert isinstance(plan.damage, JournalCorrupt)
    assert plan.cut_segment == segment_files(log)[1].name
    assert plan.dropped_segments == tuple(file.name for file in segment_files(log)[2:])
    assert plan.last_seq == int(segment_files(log)[1].name[:20]) - 1
    assert plan.dropped_events == 36 - plan.last_seq - 1, "all but the damaged line can still be read"
    assert plan.dropped_bytes == sum(len(before[file.name]) for file in segment_files(log)[1:]) - plan.cut_offset


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("place", ["event", "header", "middle", "missing"])
def test_a_repaired_log_does_not_open(log, number, place):
    """Damage anywhere: afterwards the log opens with all events before it, goes on, and every original byte is kept."""
    segment = segment_files(log)[number]
    if place == "missing":
        segment.unlink()
        if number == 3:
            return  # whole segments off the end: only a head kept elsewhere can tell
    else:
        damage(
            segment, b'{"kind":"segment"' if place == "header" else b'{"seq":', 3 if place == "header" else 400 if place == "middle" else 40
        )
    damaged = tree(log)
    with pytest.raises(JournalCorrupt):
        reopened(log)
    plan = repair(str(log), apply=True)
    kept = {file.rsplit("/", 1)[1].split(".repair")[0]: Path(file).read_bytes() for file in plan.kept_in}
    assert set(kept) == {name for name in damaged if name >= segment.name and name != "reserve" and not name.startswith("torn")}
    for name, data in kept.items():
        assert data == damaged[name]
    assert inspect(str(log)).damage == ()
    events, recovered = reopened(log)
    assert events == sample_events(plan.last_seq)
    assert plan.cut_segment is None or recovered
    assert list(read_journal(log)) == sample_events(plan.last_seq + 2)


def test_the_epoch_of_dropped_segments_comes_back(log):
    """The next writer's epoch is larger than any that was ever used, though the headers that say so are gone."""
    for _ in range(5):
        journal = FileJournal(log)
        last = journal.open("me")
        journal.append(sample_events(1, after=journal.head().seq))
        journal.close()
    (log / "LOCK").unlink()
    damage(segment_files(log)[0])
    repair(str(log), apply=True)
    assert FileJournal(log).open("me") > last


def test_a_log_is_repaired_under_its_writer(log):
    """A live writer keeps the repair out; a dry run may look."""
    journal = FileJournal(log)
    journal.open("the writer")
    repair(str(log))
    with pytest.raises(JournalLocked, match="the writer"):
        repair(str(log), apply=True)
    journal.close()


def test_a_repair_that_fails_halfway_loses_events():
    """Every call fails, or the power goes there: what is left can be repaired again, and nothing before the damage is lost."""
    for at in range(150):
        disk = SimulatedDisk()
        write("/log", *[3] * 6, disk=disk, segment_bytes=1100)
        name = "/log/00000000000000000001.jsonl"
        data = bytearray(disk.contents(name))
        place = data.index(b'{"seq":5')
        data[place + 40] ^= 1
        disk.overwrite(name, bytes(data))
        disk.fail(at=disk.calls + at, kind=errno.EIO, persistent=True)
        try:
            repair("/log", apply=True, disk=disk)
            failed = False
        except JournalError:
            failed = True
        disk.heal()
        for after in (disk.killed(), *(disk.crashed(seed) for seed in range(4))):
            repair("/log", apply=True, disk=after)
            journal = FileJournal("/log", disk=after)
            journal.open("me")
            assert list(journal.read()) == sample_events(3)
            journal.close()
    assert not failed, "the range covers the whole repair"
