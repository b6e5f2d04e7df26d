"""`export`: what other tools get is what the log says, whole or said not to be, and never over a file that is there."""

from __future__ import annotations

import csv
import io
import json
import sqlite3

import pytest

from portfsm import read_journal
from portfsm.audit import spans
from portfsm.cli._main import run
from portfsm.testing import ManualClock
from tests.cli import story


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    story.write(tmp_path / "LOG")
    return tmp_path / "LOG"


@pytest.fixture
def call(log, capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        return run(arguments, clock=ManualClock(start_ns=story.START_NS)), *capsys.readouterr()

    return call


def recorded(call) -> list[dict]:
    return [json.loads(line) for line in call("log", "LOG", "--json")[1].splitlines()]


def test_a_spreadsheet_shows_other_events(call):
    code, out, err = call("export", "LOG", "--to", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, "")
    assert [{key: "" if value is None else str(value) for key, value in event.items()} for event in recorded(call)] == rows


def test_a_cloud_event_lacks_what_its_specification_requires(call):
    _, out, _ = call("export", "LOG", "--to", "cloudevents")
    found = [json.loads(line) for line in out.splitlines()]
    assert [event["data"] for event in found] == recorded(call)
    for event in found:
        assert event["specversion"] == "1.0"
        assert event["type"] == f"portfsm.{event['data']['kind']}"
        assert event["time"] == event["data"]["ts"]
        assert event["datacontenttype"] == "application/json"
        assert ("subject" in event) == (event["data"]["port"] is not None)
    assert len({(event["source"], event["id"]) for event in found}) == len(found), "source and id name an event"


def test_a_database_holds_other_events_or_other_lives(call, log):
    assert call("export", "LOG", "--to", "sqlite", "-o", "ports.db") == (0, "", "")
    base = sqlite3.connect("ports.db")
    base.row_factory = sqlite3.Row
    rows = [dict(row) for row in base.execute("SELECT * FROM events ORDER BY seq")]
    assert [{key: row[key] for key in event} for row, event in zip(rows, recorded(call), strict=True)] == recorded(call)
    found = {tuple(row) for row in base.execute("SELECT node, pool, port, state, owner, from_ns, to_ns FROM spans")}
    expected = {
        (span.node or None, span.pool, span.port, span.state.value, span.owner or None, span.from_ns, span.to_ns)
        for span in spans(read_journal(str(log)))
    }
    assert found == expected
    assert dict(base.execute("SELECT key, value FROM about").fetchall()) == {
        "log": "0" * 32,
        "first_seq": 1,
        "last_seq": 19,
        "damage": None,
    }
    base.close()


@pytest.mark.parametrize("target", ["csv", "cloudevents", "sqlite"])
def test_a_file_that_is_there_is_written_over_or_half_a_file_is_left(call, log, tmp_path, target):
    (tmp_path / "OUT").write_text("mine")
    code, out, err = call("export", "LOG", "--to", target, "-o", "OUT")
    assert (code, out) == (2, "")
    assert "OUT exists" in err
    assert (tmp_path / "OUT").read_text() == "mine"
    code, _, err = call("export", "LOG", "--to", target, "-o", "no/where")
    assert code == 2
    assert "no/where" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LOG", "OUT"]


@pytest.mark.parametrize("target", ["csv", "cloudevents", "sqlite"])
def test_what_stands_before_damage_is_lost_or_passed_as_all(call, log, tmp_path, target):
    story.damage(log)
    code, out, err = call("export", "LOG", "--to", target, "-o", "OUT")
    assert (code, out) == (1, "")
    assert "OUT holds what stands before the damage" in err
    assert "is damaged at byte" in err
    if target == "sqlite":
        base = sqlite3.connect("OUT")
        about = dict(base.execute("SELECT key, value FROM about").fetchall())
        assert about["last_seq"] == base.execute("SELECT max(seq) FROM events").fetchone()[0] > 3
        assert "is damaged at byte" in about["damage"]
        base.close()
    else:
        assert len((tmp_path / "OUT").read_text().splitlines()) > 3


def test_a_database_goes_to_a_terminal(call):
    code, out, err = call("export", "LOG", "--to", "sqlite")
    assert (code, out) == (2, "")
    assert "-o FILE" in err


def test_a_file_of_events_is_readable_to_others(call, tmp_path):
    call("export", "LOG", "--to", "csv", "-o", "OUT")
    assert (tmp_path / "OUT").stat().st_mode & 0o777 == 0o600
