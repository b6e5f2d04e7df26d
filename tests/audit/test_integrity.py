"""What docs/integrity.md says each level proves, and what it says it does not: every row of its table, tried on a log."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256

import msgspec
import pytest

from portfsm import Event, FileJournal, Head, read_journal
from portfsm._codec import Encoder, Seal, decode_mark
from portfsm._dump import dump
from portfsm.cli._main import run
from portfsm.errors import JournalCorrupt
from portfsm.journals._disk import Directory, RealDisk
from portfsm.journals._snapshots import save
from tests.audit.walks import walk
from tests.journals.logs import segment_files, segments

ROUND = [*(("a", n, 0) for n in range(3)), ("t", 0, 1), *(("r", n, 0) for n in range(3)), ("t", 0, 3), ("s", 0, 0)]
KNOWN = walk(ROUND * 6)


@pytest.fixture
def log(tmp_path):
    """Several sealed segments, closed."""
    journal = FileJournal(tmp_path / "log", segment_bytes=900)
    journal.open("writer")
    for event in KNOWN.events:
        journal.append([event])
    journal.close()
    assert len(segments(tmp_path / "log")) >= 4
    return tmp_path / "log"


@pytest.fixture
def call(capsys):
    def call(*arguments: object) -> tuple[int, str]:
        code = run([*map(str, arguments)])
        return code, capsys.readouterr().out

    return call


def failed(call, log, *options) -> set[str]:
    """Which checks of `verify` fail."""
    code, out = call("verify", log, *options, "--json")
    found = {check["name"] for check in json.loads(out)["checks"] if check["mark"] == "FAIL"}
    assert code == (1 if found else 0)
    return found


def owner_of_first(event: Event) -> Event:
    """The lie: somebody else held the first port."""
    return msgspec.structs.replace(event, owner="liar") if event.owner == "a" else event


def rewrite(path, *, prev: str | None = None, reseal: bool) -> str:
    """Write a segment anew with the lie in it and every checksum right; the SHA-256 that its seal has, or ought to have."""
    lines = path.read_bytes().split(b"\n")[:-1]
    header, seal = decode_mark(lines[0] + b"\n", ""), decode_mark(lines[-1] + b"\n", "")
    assert isinstance(seal, Seal)
    encoder = Encoder()
    data = encoder.encode_line(header if prev is None else msgspec.structs.replace(header, prev=prev))
    for line in lines[1:-1]:
        event = msgspec.json.decode(line, type=Event)
        data += encoder.encode([owner_of_first(event)])
    digest = sha256(data).hexdigest()
    data += encoder.encode_line(Seal(seal.count, seal.last, digest if reseal else seal.sha256))
    path.write_bytes(data)
    return digest


def first_with_the_owner(log):
    return next(number for number, path in enumerate(segment_files(log)) if b'"owner":"a"' in path.read_bytes())


def head_of(call, log) -> str:
    return call("head", log)[1].strip()


def test_a_flipped_bit_passes(call, log):
    path = segment_files(log)[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert "bytes" in failed(call, log)
    with pytest.raises(JournalCorrupt):
        list(read_journal(str(log)))


def test_an_edit_whose_checksums_are_right_passes_the_seal(call, log):
    """The line checksums are no secret. The seal's SHA-256 is not recomputed by opening, which is why `verify` does."""
    rewrite(segment_files(log)[first_with_the_owner(log)], reseal=False)
    assert failed(call, log) == {"bytes"}


def test_an_edit_with_a_new_seal_passes_the_next_segment(call, log):
    number = first_with_the_owner(log)
    rewrite(segment_files(log)[number], reseal=True)
    assert failed(call, log) == {"bytes"}
    with pytest.raises(JournalCorrupt, match="edited or replaced") as caught:
        list(read_journal(str(log)))
    assert caught.value.segment == segments(log)[number + 1]


def test_a_history_written_anew_is_said_to_be_seen_without_a_head(call, log):
    """Everything from the edit to the end: the log is sound in itself, and only a head kept elsewhere tells."""
    head = head_of(call, log)
    prev = None
    for path in segment_files(log)[first_with_the_owner(log) :]:
        prev = rewrite(path, prev=prev, reseal=True)
    assert "liar" in {event.owner for event in read_journal(str(log))}
    assert failed(call, log) == set(), "the page says so"
    assert failed(call, log, "--expect", head) == {"head"}


def test_whole_lines_cut_off_the_end_are_said_to_be_seen_without_a_head(call, log):
    head = head_of(call, log)
    last = segment_files(log)[-1]
    lines = last.read_bytes().split(b"\n")
    last.write_bytes(b"\n".join(lines[:-3]) + b"\n")  # the seal and the event before it
    assert failed(call, log) == set(), "the page says so"
    assert failed(call, log, "--expect", head) == {"head"}


def test_a_missing_segment_passes(call, log):
    segment_files(log)[1].unlink()
    assert "bytes" in failed(call, log)


def test_an_older_copy_passes_a_newer_head(call, log, tmp_path):
    head = head_of(call, log)
    old = tmp_path / "old"
    shutil.copytree(log, old)
    segment_files(old)[-1].unlink()
    (old / "LOCK").unlink()
    assert failed(call, old) == set(), "the page says so"
    assert failed(call, old, "--expect", head) == {"head"}


def test_another_log_passes(call, log, tmp_path):
    other = FileJournal(tmp_path / "other")
    other.open("writer")
    other.append(KNOWN.events)
    other.close()
    assert failed(call, tmp_path / "other", "--expect", head_of(call, log)) == {"head"}


def test_a_head_is_of_no_use_once_the_log_has_grown(call, log):
    for seq in (1, len(KNOWN.events) // 2, len(KNOWN.events)):
        _, out = call("verify", log, "--expect", head_at(log, seq))
        assert f"as expected at @{seq}" in out
        wrong = Head.parse(head_at(log, seq))
        assert failed(call, log, "--expect", Head(wrong.log_id, wrong.seq, "0" * 64)) == {"head"}


def head_at(log, seq: int) -> str:
    from portfsm.journals._inspect import head_at

    return str(head_at(str(log), seq))


@pytest.mark.parametrize("head", ["", "abc", "a:b:c", "a:-1:c", ":1:c", "a:1:", "a:1" + "0" * 30 + ":c"])
def test_a_head_that_is_none_is_compared(log, head):
    assert run(["verify", str(log), "--expect", head]) == 2


# ---------------------------------------------------------------------- snapshots


def keep_states(log, *seqs) -> Directory:
    """Snapshots as a writer leaves them, as of these events."""
    directory = Directory(RealDisk(), str(log))
    log_id = Head.parse(head_at(log, 1)).log_id
    for seq in seqs:
        save(directory, log_id, seq, dump(KNOWN.states[seq]))
    directory.let_go()
    return directory


def snapshot_check(call, log) -> dict:
    code, out = call("verify", log, "--json")
    (check,) = [check for check in json.loads(out)["checks"] if check["name"] == "snapshot"]
    assert code == (1 if check["mark"] == "FAIL" else 0)
    return check


def test_a_snapshot_that_says_other_than_the_events_passes(call, log):
    """The older one as well as the newest: questions about the past are answered from either."""
    keep_states(log, 10, 20)
    check = snapshot_check(call, log)
    assert (check["mark"], check["found"]) == ("ok", "of @20, and 1 before it, say what the events say")
    directory = Directory(RealDisk(), str(log))
    for seq in (10, 20):
        lie = [line.replace(b'"hold_s":10.0', b'"hold_s":99.0') for line in dump(KNOWN.states[seq])]
        assert lie != list(dump(KNOWN.states[seq]))
        save(directory, Head.parse(head_at(log, 1)).log_id, seq, lie)
        check = snapshot_check(call, log)
        assert (check["mark"], f"of @{seq} differs" in check["found"]) == ("FAIL", True)
        keep_states(log, seq)
    directory.let_go()


def test_a_snapshot_that_nobody_will_believe_is_a_finding(call, log):
    keep_states(log, 10, 20)
    path = log / f"{10:020d}.snap.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    check = snapshot_check(call, log)
    assert (check["mark"], "of @10 cannot be read" in check["found"]) == ("note", True)


def test_a_snapshot_behind_the_end_is_compared(call, log):
    keep_states(log, 10)
    (log / f"{10:020d}.snap.jsonl").rename(log / f"{10_000:020d}.snap.jsonl")
    check = snapshot_check(call, log)
    assert (check["mark"], "@10000" in check["found"]) == ("-", True)
