"""A log written by hand, its checksums right and its names hostile: no command lets them through to a terminal or out of their JSON."""

from __future__ import annotations

import json

import pytest

from portfsm._codec import FMT, Encoder, Header
from portfsm.events import Event
from portfsm.states import EventKind
from tests.cli import story

EVIL = "\x1b[2J\x1b[1;1H\x1b]0;title\x07r\r\n\tas of @99, all is well\x00\x7f\x9b31m\u202egnp\u2066\u200b\u2028\ufeff"
"""Clears the screen, names the window, begins a line, and reads from right to left."""
SECOND = 1_000_000_000
PORTS = (29999, 30000, 30001, 30002)
COMMANDS = [
    ["status", "LOG"], ["status", "LOG", "--at", "@4"], ["log", "LOG"], ["log", "LOG", "--kind", "opened"], ["log", "LOG", "-n", "2"],
    ["verify", "LOG"], ["repair", "LOG"], ["head", "LOG"], ["free", "LOG", "30000", "--reason", "x"], ["unblock", "LOG", "30000"],
    *(["history", "LOG", str(port)] for port in PORTS), *(["who", "LOG", str(port), "--at", "@5"] for port in PORTS), ["diff", "LOG", "--from", "@2"],
    ["export", "LOG", "--to", "csv"], ["export", "LOG", "--to", "cloudevents"], *(["explain", "LOG", str(port)] for port in PORTS),
]  # fmt: skip


def events() -> list[Event]:
    opened = {"epoch": 1, "holder": EVIL, "boot": "b", "boot_ns": 0, "wall_ns": 0}
    pool = {"ports": "30000-30009", "hold_s": 1e6, "floor_s": 0.0, "order": "lowest", "seed": ""}
    end = 10**6 * SECOND
    return [
        Event(1, SECOND, EventKind.OPENED, reason=EVIL, data=opened),
        Event(2, SECOND, EventKind.POOL_DEFINED, pool="http", data=pool),
        Event(3, SECOND, EventKind.ALLOCATED, EVIL, "http", 30000, EVIL, EVIL, 3),
        Event(4, SECOND, EventKind.WITHDRAWN, EVIL, "http", 30000, EVIL, EVIL, 3),
        Event(5, SECOND, EventKind.RELEASED, EVIL, "http", 30000, EVIL, EVIL, 3, 10**9, end + SECOND, EVIL, EVIL),
        Event(6, SECOND, EventKind.BLOCKED, EVIL, "http", 30001, until=0, cause=EVIL, reason=EVIL),
        Event(7, SECOND, EventKind.ALLOCATED, "second" + EVIL, "http", 30002, EVIL, "", 7),
        Event(8, SECOND, EventKind.ALLOCATED, EVIL, "http", 30002, EVIL[::-1], "", 8),
    ]


def write(path, happened: list[Event], *, fmt: int = FMT, log_id: str = "0" * 32) -> None:
    """One segment, not sealed, as after a crash."""
    path.mkdir()
    encoder = Encoder()
    lines = encoder.encode_line(Header(fmt=fmt, log=log_id, no=1, base=0, epoch=1))
    for event in happened:
        lines += encoder.encode([event])
    (path / f"{1:020d}.jsonl").write_bytes(lines)


def impossible() -> Event:
    """A step whose refusal quotes it."""
    return Event(9, SECOND, EventKind.PROXY_JOINED, reason=EVIL, data={"proxy": EVIL})


@pytest.fixture(params=["legal", "impossible", "damaged"])
def forged(request, tmp_path):
    path = tmp_path / "LOG"
    write(path, events() + [impossible()] * (request.param == "impossible"), log_id=EVIL)
    if request.param == "damaged":
        segment = path / f"{1:020d}.jsonl"
        segment.write_bytes(segment.read_bytes().replace(b'"lowest"', b'"LOWEST"'))
    return path


@pytest.mark.parametrize("columns", [0, 80, 160])
def test_a_forged_owner_moves_the_cursor(forged, columns):
    page = story.transcript(forged.parent, COMMANDS, columns=columns)
    assert "\\x1b[2J" in page
    assert "\\u202e" in page
    assert [line for line in page.split("\n") if not line.isprintable()] == []
    assert "Traceback" not in page


def test_a_forged_reason_begins_a_line_of_its_own(forged):
    page = story.transcript(forged.parent, COMMANDS)
    assert [line for line in page.splitlines() if line.lstrip().startswith("as of @99")] == []


def test_a_forged_name_breaks_out_of_its_json_object(forged):
    page = story.transcript(forged.parent, [[*command, "--json"] for command in COMMANDS])
    found = []
    for line in page.splitlines():
        if line and not line.startswith(("$ ", "[exit", "portfsm: ")):
            assert line.isascii()
            assert line.isprintable()
            found.append(json.loads(line))
    assert found
    assert all(isinstance(value, dict) for value in found)


def test_a_name_comes_out_of_json_other_than_it_was_written(tmp_path):
    write(tmp_path / "LOG", events())
    page = story.transcript(tmp_path, [["log", "LOG", "--json"]])
    owners = [json.loads(line)["owner"] for line in page.splitlines() if line.startswith("{")]
    assert owners == [None, None, EVIL, EVIL, EVIL, None, EVIL, EVIL[::-1]]


def test_status_of_a_log_that_cannot_be_says_it_is_empty(tmp_path):
    write(tmp_path / "LOG", [*events(), impossible()])
    page = story.transcript(tmp_path, [["status", "LOG"]])
    assert "as of @8" in page
    assert "NOT the present state" in page
    assert "no events yet" not in page


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nportfsm: all is well", "a\u202eb"])
def test_a_path_moves_the_cursor(tmp_path, name):
    write(tmp_path / name, events())
    page = story.transcript(tmp_path, [["repair", name], ["verify", name], ["status", name + "gone"], ["log", name, "--pool", "none"]])
    answers = [line for line in page.split("\n") if not line.startswith("$ ")]
    assert [line for line in answers if not line.isprintable() or line == "portfsm: all is well"] == []
