"""Whoever watches gets what they can use: a table, lines, or JSON and nothing else; and may leave at any time."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from portfsm.demo.checks import Check
from portfsm.demo.clients import Counts
from portfsm.demo.show import JsonShow, Moment, PlainShow, Result, open_show
from portfsm.demo.side import Gauges

SIDES = [
    Gauges("hold", 2.4, "up in 0.20 s", 301, 20, 46, 5, 9, 1, Counts(1800)),
    Gauges("no-hold", 0.0, counts=Counts(1500, 212, 3)),
]
MOMENT = Moment(4.0, 15.0, SIDES)
GOOD = Check("no hold shortened", passed=True, found="101 holds", figures={"holds": 101})
BAD = Check("no port with two holders", passed=False, found="5 given twice")
COMMANDS = [("portfsm status /tmp/d", "how the pool stands"), ("portfsm verify /tmp/d", "check every line")]


def result(*checks: Check) -> Result:
    return Result(checks, Path("/tmp/d"), 16.4, COMMANDS)


def shown(*, json: bool = False, terminal: bool = False, checks: tuple[Check, ...] = (GOOD,)) -> str:
    """All that a short demo prints."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with open_show(console, json=json) as show:
        show.note("kill -9: both")
        show.moment(MOMENT)
        show.result(result(*checks))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_json_is_one_object_a_line_and_nothing_else() -> None:
    lines: list[dict[str, Any]] = [msgspec.json.decode(line) for line in shown(json=True).splitlines()]

    assert [line["kind"] for line in lines] == ["note", "progress", "check", "result"]
    assert lines[1]["sides"][1]["counts"]["wrong"] == 212
    assert lines[2] == {"kind": "check", "name": "no hold shortened", "passed": True, "found": "101 holds", "figures": {"holds": 101}}
    assert lines[3] == {"kind": "result", "passed": True, "log": "/tmp/d", "took_s": 16.4, "next": [command for command, _ in COMMANDS]}


def test_a_pipe_gets_plain_lines() -> None:
    text = shown()

    assert "\x1b" not in text
    assert "  4.0 s  hold: 46 moved, 9 quarantined, 1800 right, 0 WRONG, 0 failed | no-hold" in text
    assert "ok    no hold shortened: 101 holds" in text
    assert "All 1 checks passed in 16 s" in text
    assert "portfsm verify /tmp/d" in text


def test_a_failed_check_is_named_in_the_verdict() -> None:
    text = shown(checks=(GOOD, BAD))

    assert "FAIL  no port with two holders: 5 given twice" in text
    assert "1 of 2 checks failed: no port with two holders." in text


@pytest.mark.parametrize(
    "part", ["hold 2.4 s", "no hold", "answers from the WRONG service", "212", "✓", "✗", "kill -9: both", "portfsm status /tmp/d"]
)
def test_a_terminal_gets_a_table(part: str) -> None:
    assert part in shown(terminal=True, checks=(GOOD, BAD))


def test_lines_come_at_most_once_a_second() -> None:
    console = Console(file=io.StringIO(), width=100)
    show = PlainShow(console)
    for at_s in (0.0, 0.5, 0.9, 1.0, 1.9):
        show.moment(Moment(at_s, 15.0, SIDES))

    assert console.file.getvalue().count("\n") == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [JsonShow, PlainShow])
def test_a_reader_that_leaves_is_noticed_and_breaks_nothing(kind: type[JsonShow | PlainShow], monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)  # which rich silences
        show = kind(Console(file=pipe))
        show.note("is anybody there?")

        assert show.closed
        show.note("no")
