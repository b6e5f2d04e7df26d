"""The commands as a person or a script runs them: their output, their exit codes. `run` is a process; `called` spares one."""

from __future__ import annotations

import json
import subprocess
import sys

import anyio
import pytest

from portfsm import FileJournal, Head, PoolSpec, open_manager
from portfsm.testing import ManualClock
from tests.cli.story import called

EVENT_KEYS = [
    "seq",
    "ts",
    "kind",
    "node",
    "pool",
    "port",
    "from",
    "to",
    "owner",
    "service",
    "token",
    "until",
    "hold_s",
    "cause",
    "reason",
    "epoch",
]
STATUS_PORT_KEYS = ["port", "state", "owner", "service", "token", "since", "until", "reason"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "portfsm", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"

    async def fill() -> None:
        async with open_manager(str(path), pools=[PoolSpec("http", ports="30000-30009", hold_s=30)], clock=ManualClock()) as manager:
            first = await manager.allocate("http", owner="r1", service="checkout")
            await manager.allocate("http", owner="r2")
            await manager.release(first)
            await manager.block("http", 30005, reason="nginx sits on it", for_s=3600)

    anyio.run(fill)
    return path


def test_json_of_an_event_lacks_a_key_or_mixes_in_text(log):
    lines = run("log", log, "--json").stdout.splitlines()
    assert [list(json.loads(line)) for line in lines] == [EVENT_KEYS] * 7
    released = json.loads(lines[4])
    assert (released["from"], released["to"], released["hold_s"], released["node"]) == ("ALLOCATED", "QUARANTINED", 30.0, None)
    assert released["ts"].endswith("Z")


def test_status_forgets_a_port_or_a_count(log):
    status = json.loads(run("status", log, "--json").stdout)
    (pool,) = status["pools"]
    assert [pool[key] for key in ("size", "free", "allocated", "quarantined", "blocked", "retired")] == [10, 7, 1, 1, 1, 0]
    assert [list(port) for port in pool["ports"]] == [STATUS_PORT_KEYS] * 3
    assert [port["state"] for port in pool["ports"]] == ["QUARANTINED", "ALLOCATED", "BLOCKED"]


def test_text_in_a_pipe_is_coloured_or_cut(log):
    outcome = run("log", log)
    assert outcome.returncode == 0
    assert "\x1b" not in outcome.stdout
    assert "nginx sits on it" in outcome.stdout


def test_head_is_not_alone_on_its_line_or_verify_does_not_know_it(log):
    head = run("head", log).stdout
    assert head.count("\n") == 1
    assert str(Head.parse(head.strip())) == head.strip()
    assert run("verify", log, "--expect", head.strip()).returncode == 0


def test_verify_accepts_a_head_of_another_history(log):
    log_id, seq, digest = called("head", log).stdout.strip().split(":")
    for forged in (f"{log_id}:{int(seq) + 1}:{digest}", f"{log_id}:{int(seq) - 1}:{digest}", f"{'0' * 32}:{seq}:{digest}"):
        outcome = called("verify", log, "--expect", forged)
        assert outcome.returncode == 1, forged


def segment_of(log):
    return next(path for path in log.iterdir() if path.name.startswith("0") and path.name.endswith("1.jsonl"))


def test_a_torn_tail_is_called_damage(log):
    segment = segment_of(log)
    data = segment.read_bytes()
    segment.write_bytes(data[: data.rindex(b'{"kind":"seal"')][:-20])
    outcome = called("verify", log)
    assert outcome.returncode == 0
    assert "torn" in outcome.stdout
    assert called("status", log).returncode == 0
    assert called("log", log).returncode == 0


def test_damage_passes_as_fine(log):
    segment = segment_of(log)
    data = bytearray(segment.read_bytes())
    data[data.index(b'"r1"') + 1] ^= 1
    segment.write_bytes(data)
    for command in ("verify", "status", "log", "repair"):
        outcome = called(command, log)
        assert outcome.returncode == 1, command
        assert segment.name in outcome.stdout + outcome.stderr, command
    assert bytes(data) == segment.read_bytes()


def test_repair_leaves_a_log_that_does_not_open_or_drops_the_originals(log):
    segment = segment_of(log)
    data = bytearray(segment.read_bytes())
    data[data.index(b'"r2"') + 1] ^= 1
    segment.write_bytes(data)
    plan = json.loads(called("repair", log, "--json").stdout)
    assert plan["last_seq"] == 3
    assert segment.read_bytes() == data
    assert called("repair", log, "--apply").returncode == 0
    assert called("verify", log).returncode == 0
    assert any(kept.read_bytes() in bytes(data) or bytes(data) == kept.read_bytes() for kept in (log / "torn").iterdir())


@pytest.mark.parametrize("arguments", [("status",), ("log",), ("head",), ("verify",), ("repair",), ("history", 30000), ("explain", 30000)])
def test_a_missing_log_is_made_or_reported_as_empty(tmp_path, arguments):
    command, *rest = arguments
    outcome = called(command, tmp_path / "nowhere", *rest)
    assert outcome.returncode == 2
    assert "nowhere" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "arguments", [("block", 30001, "--reason", "x"), ("unblock", 30005), ("hold", 30007, "--for", "10m"), ("free", 30000, "--reason", "x")]
)
def test_the_operators_hand_makes_a_log_or_breaks_into_an_open_one(log, tmp_path, arguments):
    command, *rest = arguments
    assert called(command, tmp_path / "nowhere", *rest).returncode == 2
    assert not (tmp_path / "nowhere").exists()
    journal = FileJournal(str(log))
    journal.open("the controller")
    refused = called(command, log, *rest)
    journal.close()
    assert refused.returncode == 2
    assert "the controller" in refused.stderr
    assert called(command, log, *rest).returncode == 0


def test_history_and_explain_do_not_say_who_and_why(log):
    """When traffic went to the wrong service somebody has to say who had the port, and when (aws/amazon-ecs-agent#500)."""
    assert "r1" in run("history", log, 30000).stdout
    assert "nginx sits on it" in run("explain", log, 30005).stdout


def test_a_usage_error_ends_in_a_traceback_or_another_code(log):
    for arguments in ((), ("nonsense",), ("log", log, "--since", "yesterday-ish"), ("explain", log, "99999")):
        outcome = run(*arguments)
        assert outcome.returncode == 2, arguments
        assert "Traceback" not in outcome.stderr


def test_the_tools_without_the_extra_end_in_a_traceback():
    program = "import sys; sys.modules['click'] = None; from portfsm.cli import main; main()"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert 'pip install "portfsm[cli]"' in outcome.stderr
