"""Questions about the past begin at a snapshot: they get the same answer as from the beginning, and read no more than they need."""

from __future__ import annotations

import random
from itertools import pairwise

import anyio
import pytest

from portfsm import FileJournal, Ledger, MemoryJournal, PoolSpec, open_manager, replay
from portfsm._dump import dump
from portfsm.audit import Moment, state_at
from portfsm.errors import InvalidValue, JournalCorrupt, JournalUnreadable
from portfsm.journals import near, past_of
from portfsm.journals._near import NoPast
from portfsm.journals._snapshots import seqs_in
from portfsm.testing import ManualClock
from tests.audit.walks import walk
from tests.journals.logs import segments


def history():
    dice = random.Random(7)
    return walk([(dice.choice("aaaarrrrttAbuhfsdw"), dice.randrange(10), dice.randrange(10)) for _ in range(400)])


KNOWN = history()
LAST = len(KNOWN.events)
KEPT = (20, 40, 60, 80)


@pytest.fixture
def log(tmp_path):
    """Short segments, and a state kept every twenty events; the newest of these are for opening."""
    path = tmp_path / "log"
    journal = FileJournal(path, segment_bytes=1_500)
    journal.open("writer")
    for event in KNOWN.events:
        journal.append([event])
        if event.seq in KEPT:
            journal.save_snapshot(event.seq, dump(KNOWN.states[event.seq]))
    journal.close()
    return path


@pytest.fixture
def roomy(monkeypatch):
    """However short the log, there is room for all the states."""
    monkeypatch.setattr("portfsm.journals._snapshots._SHARE", 0.001)


def asked(log, moment: Moment) -> Ledger:
    ledger, events = near(log, seq=moment.seq, ts=moment.ts)
    return state_at(events, moment, since=ledger)


def test_an_answer_from_a_snapshot_is_another_than_from_the_beginning(roomy, log):
    assert past_of(log).seqs == KEPT
    for seq in range(LAST + 1):
        assert asked(log, Moment(seq=seq)).digest() == KNOWN.states[seq].digest()
    for ts in sorted({event.ts + step for event in KNOWN.events for step in (-1, 0, 1)}):
        last = max((event.seq for event in KNOWN.events if event.ts <= ts), default=0)
        assert asked(log, Moment(ts=ts)).digest() == KNOWN.states[last].digest()


def test_a_question_replays_more_than_from_the_snapshot_before_it(roomy, log):
    assert near(log, seq=KEPT[2])[0].seq == KEPT[2]
    assert near(log, seq=KEPT[2] - 1)[0].seq == KEPT[1]
    assert near(log, ts=KNOWN.ts(KEPT[1]))[0].seq >= KEPT[1]
    assert near(log, ts=KNOWN.ts(KEPT[0]) - 1)[0].seq == 0
    assert near(log)[0].seq == KEPT[-1]


def test_every_state_after_the_moment_is_loaded_first(roomy, log):
    past, loaded = past_of(log), []
    state = past.state
    past.state = lambda seq: loaded.append(seq) or state(seq)
    for wanted in (KEPT[0], KEPT[2]):
        past.nearest(ts=KNOWN.ts(wanted))
        past.nearest(seq=wanted)
    assert len(loaded) == 4
    assert loaded[1::2] == [KEPT[0], KEPT[2]]


def test_an_odd_snapshot_leads_the_search_behind_the_moment(roomy, log):
    """It says nothing of its time, and whatever the search makes of that, no later state is the answer."""
    (log / f"{KEPT[1]:020d}.snap.jsonl").write_bytes(b"")
    assert near(log, ts=KNOWN.ts(KEPT[0]) - 1)[0].seq == 0


def test_damage_elsewhere_keeps_the_answer_back_or_damage_here_does_not(roomy, log):
    """What is read is verified; what is not needed is not read."""
    names = segments(log)
    first, last = log / names[0], log / names[-1]
    for path in (first, last):
        data = bytearray(path.read_bytes())
        place = data.index(b'"ts":', len(data) // 2) + 8
        data[place] ^= 1
        whole = path.read_bytes()
        path.write_bytes(data)
        if path == first:
            assert asked(log, Moment(seq=KEPT[2] + 1)).digest() == KNOWN.states[KEPT[2] + 1].digest()
            with pytest.raises(JournalCorrupt) as caught:
                asked(log, Moment(seq=KEPT[0] - 1))
        else:
            assert asked(log, Moment(seq=KEPT[1] + 1)).digest() == KNOWN.states[KEPT[1] + 1].digest()
            with pytest.raises(JournalCorrupt) as caught:
                asked(log, Moment(seq=LAST))
        assert caught.value.segment == path.name
        path.write_bytes(whole)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "gone"])
def test_a_snapshot_that_is_odd_is_believed(roomy, log, tmp_path, damage):
    path = log / f"{KEPT[1]:020d}.snap.jsonl"
    data = path.read_bytes()
    forged = {
        "flip": data.replace(b'"",""]', b'"x",""]', 1), "cut": data[:-9], "empty": b"",
        "foreign": data.replace(b'"log":"', b'"log":"f', 1), "gone": b"",
    }[damage]  # fmt: skip
    assert forged != data
    path.write_bytes(forged)
    if damage == "gone":
        path.unlink()
    assert near(log, seq=KEPT[1] + 3)[0].seq == KEPT[0]
    assert asked(log, Moment(seq=KEPT[1] + 3)).digest() == KNOWN.states[KEPT[1] + 3].digest()
    assert (
        asked(log, Moment(ts=KNOWN.ts(KEPT[2]))).digest() == asked(log, Moment(seq=asked(log, Moment(ts=KNOWN.ts(KEPT[2]))).seq)).digest()
    )


def test_a_snapshot_of_what_was_cut_off_is_believed(roomy, log):
    names = segments(log)
    for name in names[len(names) // 4 :]:
        (log / name).unlink()
    left = sum(1 for _ in near(log, seq=0)[1])
    assert left < KEPT[-1]
    assert max(past_of(log).seqs, default=0) <= left
    assert near(log)[0].seq <= left


def test_a_memory_journal_an_empty_log_or_no_log_is_misread(tmp_path):
    journal = MemoryJournal()
    journal.open("writer")
    journal.append(KNOWN.events)
    journal.close()
    assert asked(journal, Moment(seq=50)).digest() == KNOWN.states[50].digest()
    assert past_of(journal).opening(1) is None
    empty = FileJournal(tmp_path / "empty")
    empty.open("writer")
    empty.close()
    assert near(tmp_path / "empty")[0].seq == 0
    with pytest.raises(JournalUnreadable, match="check the path"):
        near(tmp_path / "none")
    with pytest.raises(InvalidValue, match="no kind of journal"):
        list(near("ftp://host/log")[1])


def test_events_before_the_damage_of_another_journal_are_withheld():
    def read(after: int):
        yield from KNOWN.events[after : after + 50]
        raise JournalCorrupt("here", path=None, segment=None, offset=None, seq=51)

    found = []
    with pytest.raises(JournalCorrupt):
        found.extend(NoPast(read).events(0))
    assert found == KNOWN.events[:50]


def test_a_managers_snapshot_of_a_file_log_is_thrown_away(tmp_path, clock):
    """The lines that a manager dumps end as lines do; once each was written with a second end, and no snapshot was ever read back."""

    async def live() -> str:
        async with open_manager(str(tmp_path / "log"), pools=[PoolSpec("p", ports="1000-1099", hold_s=0)], clock=clock) as manager:
            async with anyio.create_task_group() as tasks:

                async def churn(turn: int) -> None:
                    for number in range(70):
                        await manager.release(await manager.allocate("p", owner=f"o{turn}-{number}"))

                for turn in range(50):
                    tasks.start_soon(churn, turn)
            assert manager.seq > 10_000
            return manager.digest()

    digest = anyio.run(live)
    (kept,) = past_of(tmp_path / "log").seqs
    ledger = past_of(tmp_path / "log").state(kept)
    assert ledger is not None
    assert ledger.digest() != "" != digest
    assert ledger.digest() == replay(near(tmp_path / "log", seq=0)[1], until=kept).digest()


# ---------------------------------------------------------------------- how many are kept


def keep(path, *, every: int, events: int, lines: list[bytes]) -> FileJournal:
    clock = ManualClock()
    journal = FileJournal(path, clock=clock, segment_bytes=4_000)
    journal.open("writer")
    for event in KNOWN.events[:events]:
        journal.append([event])
        if event.seq % every == 0:
            journal.save_snapshot(event.seq, lines)
    return journal


def test_states_of_the_past_fill_the_disk(tmp_path):
    """The newest two are for opening; all older ones together take at most a tenth of the log."""
    keep(tmp_path / "log", every=4, events=LAST, lines=[b"x" * 200]).close()
    files = sorted((tmp_path / "log").glob("*.snap.jsonl"))
    log_bytes = sum((tmp_path / "log" / name).stat().st_size for name in segments(tmp_path / "log"))
    older = sum(file.stat().st_size for file in files[:-2])
    assert [int(file.name[:20]) for file in files[-2:]] == [LAST // 4 * 4 - 4, LAST // 4 * 4]
    assert 0 < older <= log_bytes / 10
    assert older > log_bytes / 10 - 2 * files[0].stat().st_size, "and there is room for one more"


def test_states_of_the_past_lie_close_together_and_far_from_what_is_asked(roomy, tmp_path, monkeypatch):
    monkeypatch.setattr("portfsm.journals._snapshots._MOST", 8)
    journal = keep(tmp_path / "log", every=2, events=LAST, lines=[b"x"])
    seqs = seqs_in(journal._directory)
    journal.close()
    gaps = [after - before for before, after in pairwise([0, *seqs[:-1]])]
    assert len(seqs) == 10
    assert max(gaps) <= 4 * LAST / 10, "no stretch is left much longer than an even share"
