"""0 fine, 1 findings, 2 usage or unreadable; and whatever is refused stays as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import pytest

from portfsm import FileJournal, open_manager
from portfsm._codec import FMT, Encoder, Header
from portfsm.cli._main import run
from portfsm.events import Event
from portfsm.journals import read_journal
from portfsm.states import EventKind
from portfsm.testing import ManualClock
from tests.cli import story

READING = [
    ("status", "LOG"),
    ("log", "LOG"),
    ("history", "LOG", "30005"),
    ("explain", "LOG", "30005"),
    ("verify", "LOG"),
    ("head", "LOG"),
    ("repair", "LOG"),
    ("who", "LOG", "30005", "--at", "@9"),
    ("who", "LOG", "30005", "--at", "2026-08-01T00:00:12Z", "--within", "90"),
    ("diff", "LOG", "--from", "@3"),
    ("diff", "LOG", "--from", "1h ago", "--to", "1s ago"),
]
EXPORTING = [("export", "LOG", "--to", "csv"), ("export", "LOG", "--to", "cloudevents"), ("export", "LOG", "--to", "csv", "-o", "OUT")]  # fmt: skip
WRITING = [
    ("block", "LOG", "30002", "--node", "node-a", "--reason", "x"), ("unblock", "LOG", "31500"), ("hold", "LOG", "30003", "--node", "node-a", "--for", "10m"),
    ("free", "LOG", "30000", "--node", "node-a", "--reason", "x"),
]  # fmt: skip
APPLYING = ("repair", "LOG", "--apply")
ALL = [*READING, *WRITING, APPLYING]
ALL_JSON = [*ALL, *((*command, "--json") for command in READING), *EXPORTING]


def named(command) -> str:
    return " ".join(command).replace(" LOG", "")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def log(here):
    story.write(here / "LOG")
    return here / "LOG"


@pytest.fixture
def call(here, capsys):
    """Exit code, stdout and stderr of one command line."""

    def call(*arguments: str) -> tuple[int, str, str]:
        clock = ManualClock(start_ns=story.START_NS)
        clock.advance(story.LENGTH_S)
        code = run(arguments, clock=clock)
        return code, *capsys.readouterr()

    return call


def content(path) -> dict[str, bytes]:
    """Every file below, LOCK left out: whoever takes it writes its name there."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "LOCK"}


def nothing(path) -> None:
    """Not even a parent."""


def empty_directory(path) -> None:
    path.mkdir()


def other_files(path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def a_file(path) -> None:
    path.write_text("mine")


def a_dangling_link(path) -> None:
    path.symlink_to(path.parent / "nowhere")


def newer_format(path) -> None:
    _write(path, Encoder().encode_line(Header(fmt=FMT + 1, log="0" * 32, no=1, base=0, epoch=1)))


def newer_feature(path) -> None:
    _write(path, Encoder().encode_line(Header(fmt=FMT, log="0" * 32, no=1, base=0, epoch=1, features=("zstd",))))


def newer_event(path) -> None:
    encoder = Encoder()
    line = encoder.encode_line(Header(fmt=FMT, log="0" * 32, no=1, base=0, epoch=1))
    _write(path, line + encoder.encode([Event(1, 1, "drained", pool="http", port=1)]))  # type: ignore[arg-type]


def _write(path, data: bytes) -> None:
    path.mkdir()
    (path / f"{1:020d}.jsonl").write_bytes(data)


@pytest.mark.parametrize("command", ALL_JSON, ids=named)
@pytest.mark.parametrize("make", [nothing, empty_directory, other_files, a_file, a_dangling_link])
def test_a_place_without_a_log_is_taken_for_one(here, call, make, command):
    make(here / "LOG")
    before = sorted(path.name for path in here.rglob("*"))
    code, out, err = call(*command)
    assert (code, out) == (2, "")
    assert err.startswith("portfsm: ")
    assert "LOG" in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in here.rglob("*")) == before


@pytest.mark.parametrize("command", ALL_JSON, ids=named)
@pytest.mark.parametrize("make", [newer_format, newer_feature, newer_event])
def test_a_newer_log_is_called_damaged_or_is_changed(here, call, make, command):
    make(here / "LOG")
    if make is newer_event and command[0] == "head":
        return  # names bytes, whatever they mean
    before = content(here)
    code, out, err = call(*command)
    assert (code, out) == (2, "")
    assert "upgrade portfsm" in err
    assert content(here) == before


@pytest.mark.parametrize("command", [command for command in ALL_JSON if command[0] != "head" and command is not APPLYING], ids=named)
def test_damage_in_the_middle_passes_as_fine_or_is_written_over(log, call, command):
    story.damage(log)
    before = content(log)
    code, out, err = call(*command)
    assert code == 1
    assert f"{1:020d}.jsonl" in out + err
    assert "Traceback" not in err
    assert content(log) == before


def test_programs_take_a_damaged_log_for_the_present(log, call):
    story.damage(log)
    assert call("status", "LOG", "--json")[1] == ""


def test_the_damage_is_not_told_below_what_can_be_read(log, call):
    story.damage(log)
    code, out, err = call("log", "LOG")
    assert code == 1
    assert len(out.splitlines()) == 8
    assert err.count("portfsm repair") == 1


@pytest.mark.parametrize("command", [command for command in ALL if command is not APPLYING], ids=named)
def test_a_sound_log_is_reported_as_a_finding(log, call, command):
    code, out, err = call(*command, "--node", "node-b") if command[0] in ("history", "explain") else call(*command)
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("command", [*WRITING, APPLYING], ids=named)
def test_an_operator_breaks_into_an_open_log_or_is_not_told_who_has_it(log, call, command):
    async def go() -> tuple[int, str, str]:
        async with open_manager(FileJournal(log), clock=ManualClock(), holder="controller-7"):
            before = content(log)
            answer = await anyio.to_thread.run_sync(call, *command)
            assert content(log) == before
            return answer

    code, out, err = anyio.run(go)
    assert (code, out) == (2, "")
    assert f"process {os.getpid()} on " in err
    assert "controller-7" in err
    assert "stop it first" in err


@pytest.mark.parametrize("command", READING, ids=named)
def test_readers_wait_for_the_controller(log, call, command):
    async def go() -> int:
        async with open_manager(FileJournal(log), clock=ManualClock()):
            return call(*command)[0]

    assert anyio.run(go) == 0


@pytest.mark.parametrize("command", [*READING, *EXPORTING], ids=named)
def test_half_a_line_at_the_end_passes_as_damage_or_as_an_event(log, call, command):
    """As a crash leaves it, or as a writer is just now writing it."""
    last = max(log.glob("0*.jsonl"))
    data = last.read_bytes()
    torn = data[: data.rindex(b'{"kind":"seal"')] + b'{"seq":20,"ts":17855426'
    last.write_bytes(torn)
    code, out, err = call(*command)
    assert code == 0
    assert "@20" not in out + err
    assert last.read_bytes() == torn


@pytest.mark.parametrize(
    ("command", "code", "hint"),
    [
        (("free", "LOG", "30001", "--node", "node-a", "--reason", "x"), 1, "release"),
        (("unblock", "LOG", "30001", "--node", "node-a"), 1, "release"),
        (("hold", "LOG", "30000", "--node", "node-b", "--for", "10m"), 1, "unblock"),
        (("free", "LOG", "30000", "--reason", "x"), 2, "--node node-b"),
        (("free", "LOG", "40000", "--reason", "x"), 2, "30000-30007"),
        (("free", "LOG", "30000", "--pool", "htp", "--reason", "x"), 2, "http"),
        (("free", "LOG", "30000", "--node", "node-a"), 2, "--reason"),
        (("block", "LOG", "30002", "--node", "node-a"), 2, "--reason"),
        (("block", "LOG", "30002", "--node", "node-a", "--reason", "a\x1b[2Jb"), 2, "control character"),
        (("block", "LOG", "30002", "--node", "node-a", "--reason", "x" * 2000), 2, "bytes"),
        (("block", "LOG", "30002", "--node", "node-a", "--reason", "x", "--for", "-5"), 2, "length of time"),
        (("hold", "LOG", "30002", "--node", "node-a", "--for", "nan"), 2, "length of time"),
        (("hold", "LOG", "30002", "--node", "node-a", "--for", "999999999999d"), 2, "hold_s"),
        (("block", "LOG", "0", "--reason", "x"), 2, "65535"),
        (("block", "LOG", "65536", "--reason", "x"), 2, "65535"),
        (("status", "LOG", "--at", "@999"), 2, "@19"),
        (("status", "LOG", "--at", "2026-13-01T00:00:00Z"), 2, "month"),
        (("log", "LOG", "-n", "-1"), 2, "-n"),
        (("log", "LOG", "--kind", "alocated"), 2, "allocated"),
        (("verify", "LOG", "--expect", "junk"), 2, "LOGID:SEQ:HEX"),
        (("explain", "LOG", "port"), 2, "65535"),
        (("status", "LOG", "LOG"), 2, "--help"),
        (("status", ""), 2, "directory"),
        (("status", "redis://host/0"), 2, "directory"),
        (("status", "postgresql://host:port/db"), 2, "postgresql://user:password@host:port/database?log=NAME"),
        (("status", "memory:"), 2, "memory:"),
    ],
)
def test_a_wrong_word_records_something_or_gives_no_hint(log, call, command, code, hint):
    before = content(log)
    found, out, err = call(*command)
    assert found == code, err
    assert hint in (err if code else out)
    assert "Traceback" not in err
    assert err.count("\n") == bool(code)
    assert content(log) == before


def test_an_operators_word_is_not_in_the_log(log, call):
    for command in WRITING:
        assert call(*command)[0] == 0
    done = [event for event in read_journal(log, after=19) if event.kind not in (EventKind.OPENED, EventKind.CLOSED)]
    assert [(event.kind.value, event.port, event.cause) for event in done if event.cause == "operator"] == [
        ("blocked", 30002, "operator"),
        ("unblocked", 31500, "operator"),
        ("held", 30003, "operator"),
        ("freed", 30000, "operator"),
    ]
    assert call("verify", "LOG")[0] == 0


def test_a_second_word_is_recorded_once_more(log, call):
    assert call(*WRITING[0])[0] == 0
    before = content(log)
    code, out, err = call(*WRITING[0])
    assert (code, err) == (0, "")
    assert out.startswith("nothing to do: ")
    assert content(log) == before


@pytest.mark.parametrize(("command", "wanted"), [("history", "never used"), ("explain", "never used"), ("free", "nothing to do")])
def test_a_misspelt_node_passes_as_a_free_port(log, call, command, wanted):
    more = ("--reason", "x") if command == "free" else ()
    code, out, err = call(command, "LOG", "30000", "--node", "nod-a", *more)
    assert code == 0
    assert wanted in out
    assert "--node node-a or --node node-b" in err
    assert call(command, "LOG", "30000", "--node", "node-a", *more)[2] == ""
    assert call(command, "LOG", "30000", "--node", "nod-a", "--json", *more)[2] == ""


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("place", "code"), [("LOG", 0), ("nowhere", 2)])
def test_a_closed_stream_ends_in_a_traceback(log, redirection, place, code):
    command = f"'{sys.executable}' -m portfsm status {place} {redirection}"
    outcome = subprocess.run(["sh", "-c", command], cwd=log.parent, env=story.environment(), capture_output=True, text=True, check=False)
    assert outcome.returncode == code
    assert "Traceback" not in outcome.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_has_no_room_passes_as_fine(log):
    command = f"'{sys.executable}' -m portfsm log LOG > /dev/full"
    outcome = subprocess.run(["sh", "-c", command], cwd=log.parent, env=story.environment(), capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr) == (2, "portfsm: No space left on device\n")
