"""`who` and `diff`: what they say of a long log, begun at a snapshot, is what a replay from the beginning says."""

from __future__ import annotations

import json
import random

import pytest

from portfsm import FileJournal, PortState, audit
from portfsm._dump import dump
from portfsm.audit import Moment
from portfsm.cli._main import run
from portfsm.cli._past import life_around
from portfsm.errors import CommandRejected
from tests.audit.walks import SECOND, walk

DICE = random.Random(11)
KNOWN = walk([(DICE.choice("aaaarrrrttAbuhfsdw"), DICE.randrange(10), DICE.randrange(10)) for _ in range(300)])
LAST = len(KNOWN.events)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Short segments, and a state kept every few events."""
    path = tmp_path_factory.mktemp("who") / "log"
    journal = FileJournal(path, segment_bytes=1_500)
    journal.open("writer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("portfsm.journals._snapshots._SHARE", 0.001)
        for event in KNOWN.events:
            journal.append([event])
            if event.seq % 17 == 0:
                journal.save_snapshot(event.seq, dump(KNOWN.states[event.seq]))
    journal.close()
    return str(path)


def told(span) -> tuple:
    return (*span.place, span.state, span.owner, span.service, span.token, span.from_ns, span.to_ns)


@pytest.mark.parametrize("within_s", [0, 5.0])
def test_a_holder_is_another_when_the_question_begins_at_a_snapshot(log, within_s):
    asked = 0
    for node, pool, port in KNOWN.places:
        life = audit.life(KNOWN.events, pool, port, node=node)
        for seq in range(1, LAST + 1, 7):
            for at in (Moment(seq=seq), Moment(ts=KNOWN.ts(seq)), Moment(ts=KNOWN.ts(seq) - 1)):
                expected = audit.who(KNOWN.events, pool, port, node=node, at=at, within_s=within_s)
                try:
                    found = life_around(log, port, at, within_s=within_s, pool=pool, node=node)
                except CommandRejected:
                    assert not expected
                    continue
                assert [*map(told, found.spans)] == [*map(told, expected)]
                before = [span for span in life if expected and span.from_seq < expected[0].from_seq and span.state is PortState.ALLOCATED]
                assert (told(found.before) if found.before else None) == (told(before[-1]) if before else None)
                asked += 1
    assert asked > 200


@pytest.fixture
def call(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        return run([*map(str, arguments)]), *capsys.readouterr()

    return call


def test_a_key_of_the_contract_is_missing(call, log):
    _, out, _ = call("who", log, 100, "--node", "", "--at", f"@{LAST}", "--within", 600, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows
    assert {tuple(row) for row in rows} == {("node", "pool", "port", "state", "owner", "service", "token", "from", "to")}
    _, out, _ = call("diff", log, "--from", "@20", "--to", "@60", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert {tuple(row) for row in rows} == {("node", "pool", "port", "before", "after")}
    sides = {tuple(row[side]) for row in rows for side in ("before", "after")}
    assert sides == {("state", "owner", "service", "token")}
    free = [row["before"] for row in rows if row["before"]["state"] == "FREE"]
    assert all(side == {"state": "FREE", "owner": None, "service": None, "token": None} for side in free)


def test_a_difference_is_other_than_between_the_two_states(call, log):
    for start, end in ((1, LAST), (LAST, 1), (40, 44), (33, 33)):
        _, out, _ = call("diff", log, "--from", f"@{start}", "--to", f"@{end}", "--json")
        found = [
            (row["node"] or "", row["pool"], row["port"], row["before"]["state"], row["after"]["state"])
            for row in map(json.loads, out.splitlines())
        ]
        pairs = audit.diff(KNOWN.states[start], KNOWN.states[end])
        assert found == [(p.after.node, p.after.pool, p.after.port, p.before.state.value, p.after.state.value) for p in pairs]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("who", "LOG", 100, "--at", "yesterday"), "is not a time"),
        (("who", "LOG", 100), "--at"),
        (("who", "LOG", 70000, "--at", "@3"), "70000"),
        (("who", "LOG", 9999, "--at", "@3"), "port 9999 is in no pool"),
        (("who", "LOG", 100, "--at", "@99999"), f"the log ends at @{LAST}"),
        (("who", "LOG", 100, "--at", "@99999", "--within", "5"), f"the log ends at @{LAST}"),
        (("who", "LOG", 100, "--at", "@3", "--within", "nan"), "is not a length of time"),
        (("who", "LOG", 100, "--at", "@3", "--within", "-1"), "is not a length of time"),
        (("who", "LOG", 100, "--at", "@3", "--pool", "nope"), "nope"),
        (("who", "LOG", 100, "--at", f"@{LAST}"), "choose with --node"),
        (("diff", "LOG", "--to", "@3"), "--from"),
        (("diff", "LOG", "--from", "@3", "--to", "@99999"), f"the log ends at @{LAST}"),
        (("diff", "LOG", "--from", "12:00"), "is not a time"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_answered_is(call, log, arguments, complaint):
    code, out, err = call(*(log if argument == "LOG" else argument for argument in arguments))
    assert (code, out) == (2, "")
    assert complaint in err


def test_a_moment_outside_the_log_is_taken_for_one_inside(call, log):
    code, out, err = call("who", log, 100, "--node", "", "--at", "2100-01-01T00:00:00Z")
    assert code == 0
    assert f"the log ends at @{LAST}" in err
    code, out, err = call("who", log, 100, "--node", "", "--at", "2000-01-01T00:00:00Z")
    assert (code, err) == (0, "")
    assert "in no pool yet" in out
    assert call("who", log, 100, "--node", "", "--at", "2000-01-01T00:00:00Z", "--json") == (0, "", "")
    code, out, _ = call("diff", log, "--from", "2000-01-01T00:00:00Z", "--to", "1999-01-01T00:00:00Z")
    assert (code, "0 ports differ" in out) == (0, True)
    assert KNOWN.ts(LAST) < 4_000_000_000 * SECOND


def test_what_came_later_is_told_of_a_moment_before(call, log):
    """The window reaches to the first lease, the moment does not."""
    first = next(event for event in KNOWN.events if event.port and event.node == "node-b")
    at = f"@{first.seq - 1}"
    _, out, _ = call("who", log, first.port, "--node", "node-b", "--at", at, "--within", 60)
    assert "was FREE, and nothing had happened to it before" in out
    assert first.owner in out


def test_the_last_events_or_those_since_are_others_when_they_begin_at_a_snapshot(call, log):
    _, whole, _ = call("log", log, "--json")
    lines = whole.splitlines()
    assert len(lines) == LAST
    for count in (0, 1, 2, 16, 17, 18, LAST - 1, LAST, LAST + 5):
        assert call("log", log, "--json", "-n", count)[1].splitlines() == lines[LAST - count if count < LAST else 0 :]
    for seq in (1, 2, 17, 18, 19, 60, LAST):
        assert call("log", log, "--json", "--since", f"@{seq}")[1].splitlines() == lines[seq - 1 :]
        ts = json.loads(lines[seq - 1])["ts"]
        later = [line for line in lines if json.loads(line)["ts"] >= ts]
        assert call("log", log, "--json", "--since", ts)[1].splitlines() == later
    blocked = [line for line in lines if json.loads(line)["kind"] == "blocked"]
    assert call("log", log, "--json", "--kind", "blocked", "-n", 1)[1].splitlines() == blocked[-1:], "however long ago"
