"""`portfsm plan` as a person or a script runs it; a process of its own it is where its lines are measured."""

from __future__ import annotations

import json
import re
import subprocess

import anyio
import pytest

from portfsm import FileJournal, PoolExhausted, PoolSpec, open_manager
from portfsm.testing import ManualClock
from tests.cli import story


def plan(*arguments: object) -> subprocess.CompletedProcess[str]:
    return story.called("plan", *arguments)


def lines(*arguments: object) -> list[dict[str, object]]:
    outcome = plan(*arguments, "--json")
    assert outcome.stderr == ""
    return [json.loads(line) for line in outcome.stdout.splitlines()]


@pytest.fixture
def log(tmp_path):
    """Two pools, a hold of two seconds, a start and a stop each second."""
    path = tmp_path / "log"
    pools = [PoolSpec("http", ports="30000-30003", hold_s=2), PoolSpec("grpc", ports="31000", hold_s=0)]

    async def fill() -> None:
        clock = ManualClock(start_ns=story.START_NS)
        async with open_manager(FileJournal(path, clock=clock), pools=pools, clock=clock) as manager:
            for number in range(6):
                lease = await manager.allocate("http", owner=f"r{number}", node="n")
                clock.advance(0.5)
                await manager.release(lease)
                clock.advance(0.5)

    anyio.run(fill)
    return path


# ---------------------------------------------------------------------- figures


def test_the_arithmetic_is_wrong_or_not_shown():
    outcome = plan("--live", 200, "--churn", "5/s", "--hold", "150s")
    assert outcome.returncode == 0
    assert re.search(r"held back +750  5/s x 150 s", outcome.stdout)
    assert re.search(r"ports +951 ", outcome.stdout)
    assert re.search(r"at random +1034 ", outcome.stdout)
    assert re.search(r"^ +75 s +375 +576 +635$", outcome.stdout, re.MULTILINE), "half the hold beside it"


def test_the_way_back_is_not_the_way_there():
    (need,) = lines("--live", 200, "--churn", "5/s", "--hold", 150)
    assert (need["kind"], need["ports"], need["ports_at_random"], need["fits"]) == ("needed", 951, 1034, None)
    (hold,) = lines("--live", 200, "--churn", "300/m", "--ports", "30000-30949,31000")
    assert (hold["kind"], hold["hold_s"], hold["given"]) == ("fits", 150.0, 951)
    (churn,) = lines("--live", 200, "--hold", "2.5m", "--ports", 951)
    assert (churn["churn_per_s"], churn["fits"]) == (5.0, True)


@pytest.mark.parametrize(
    ("ports", "code", "said"),
    [(500, 1, "500 ports are too few by 451"), (951, 0, "for stops at random they are too few by 83"), (1034, 0, "are enough: 0 more")],
)
def test_a_pool_too_small_passes(ports, code, said):
    arguments = ["--live", 200, "--churn", 5, "--hold", 150, "--ports", ports]
    outcome = plan(*arguments)
    assert (outcome.returncode, said in outcome.stdout) == (code, True)
    assert plan(*arguments, "--json").returncode == code
    (need,) = lines(*arguments)
    assert (need["fits"], need["fits_at_random"]) == (ports >= 951, ports >= 1034)


@pytest.mark.parametrize("known", [("--hold", "10"), ("--churn", "1")])
def test_no_room_even_for_those_that_live(known):
    outcome = plan("--live", 10, "--ports", 10, *known)
    assert outcome.returncode == 1
    assert "10 ports are too few by 1 for 10 that live at once and one to give" in outcome.stdout
    assert plan("--live", 10, "--ports", 10, *known, "--json").returncode == 1


def test_no_end_that_json_cannot_say():
    for known, key in ((("--hold", "0"), "churn_per_s"), (("--churn", "0"), "hold_s")):
        (found,) = lines("--live", 1, "--ports", 5, *known)
        assert (found[key], found["fits"], found["unlimited"]) == (None, True, True)
        assert "any" in plan("--live", 1, "--ports", 5, *known).stdout


# ---------------------------------------------------------------------- a log


def test_a_wait_in_a_real_log_goes_unsaid(log):
    outcome = plan("--replay", log, "--hold", 60)
    assert outcome.returncode == 0
    assert re.search(r"that wait +0 +2$", outcome.stdout, re.MULTILINE)
    assert "would have waited: 2" in outcome.stdout
    assert "until it ended, unserved" in outcome.stdout
    assert "\x1b" not in outcome.stdout
    *waits, result = lines("--replay", log, "--hold", 60)
    assert [(wait["kind"], wait["owner"], wait["waited_s"], wait["node"]) for wait in waits] == [
        ("waits", "r4", None, "n"),
        ("waits", "r5", None, "n"),
    ]
    assert (result["kind"], result["allocations"], result["waits"], result["closer"]) == ("result", 6, 2, 0)


def test_a_reuse_that_comes_sooner_goes_unsaid(log):
    *reuses, result = lines("--replay", log, "--hold", 0.1)
    assert [(reuse["kind"], reuse["owner"], reuse["port"], reuse["after_s"]) for reuse in reuses][:1] == [("closer", "r1", 30000, 0.5)]
    assert (reuses[0]["recorded_port"], reuses[0]["recorded_after_s"]) == (30001, None)
    assert result["planned"]["soonest_s"] == 0.5
    assert "would have gone to a stranger sooner: 5" in plan("--replay", log, "--hold", 0.1).stdout


def test_an_order_that_the_replay_ignores(log):
    *_, result = lines("--replay", log, "--order", "longest-idle")
    assert (result["recorded"]["ports"], result["planned"]["ports"]) == (3, 4)
    assert result["planned"]["soonest_s"] > result["recorded"]["soonest_s"]


def test_a_change_that_strikes_another_pool(log):
    assert lines("--replay", log, "--hold", 60, "--pool", "grpc")[-1]["waits"] == 0
    assert lines("--replay", log, "--ports", "30000-30001", "--pool", "http")[-1]["waits"] > 0


def test_a_plan_that_writes(log):
    before = {path.name: path.read_bytes() for path in log.iterdir() if path.is_file()}
    plan("--replay", log, "--hold", 60)
    assert {path.name: path.read_bytes() for path in log.iterdir() if path.is_file()} == before


def test_damage_is_planned_with(log):
    segment = next(path for path in log.iterdir() if path.name.endswith("1.jsonl"))
    data = bytearray(segment.read_bytes())
    data[data.index(b'"r1"') + 1] ^= 1
    segment.write_bytes(data)
    outcome = plan("--replay", log, "--hold", 60)
    assert (outcome.returncode, outcome.stdout, segment.name in outcome.stderr) == (1, "", True)


def test_a_line_is_wider_than_the_terminal(log):
    commands = [
        ["plan", "--live", "200", "--churn", "5/s", "--hold", "150s", "--ports", "1000"],
        ["plan", "--live", "200", "--hold", "150s", "--ports", "1000"],
        ["plan", "--replay", "log", "--hold", "60"],
        ["plan", "--replay", "log", "--hold", "0.1"],
    ]
    shown = story.transcript(log.parent, commands, columns=80)
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert "Traceback" not in shown
    assert "\x1b[" in story.transcript(log.parent, commands, columns=80, colour=True)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--live COUNT"),
        (["--live", "5"], "two of --churn RATE, --hold LENGTH and --ports PORTS"),
        (["--live", "5", "--churn", "1"], "two of"),
        (["--live", "5", "--ports", "10"], "two of"),
        (["--churn", "1", "--hold", "1"], "--live COUNT"),
        (["--live", "-1", "--churn", "1", "--hold", "1"], "'-1' is not a whole number"),
        (["--live", "many", "--churn", "1", "--hold", "1"], "'many' is not a whole number"),
        (["--live", "5", "--churn", "fast", "--hold", "1"], "'fast' is not a rate: write 5/s"),
        (["--live", "5", "--churn", "-1/s", "--hold", "1"], "'-1/s' is not a rate"),
        (["--live", "5", "--churn", "nan", "--hold", "1"], "'nan' is not a rate"),
        (["--live", "5", "--churn", "5/w", "--hold", "1"], "'5/w' is not a rate"),
        (["--live", "5", "--churn", "99999999", "--hold", "1"], "churn must be a number of stops per second from 0 to 1000000"),
        (["--live", "5", "--churn", "1", "--hold", "long"], "'long' is not a length of time"),
        (["--live", "5", "--churn", "1", "--hold", "9999d"], "hold_s must be a number of seconds"),
        (["--live", "5", "--churn", "1", "--ports", "70000-70001"], "65535"),
        (["--live", "5", "--churn", "1", "--ports", "x"], "'x' is neither a number nor"),
        (["--live", "5", "--churn", "1", "--hold", "1", "--order", "lowest"], "--order and --pool go with --replay"),
        (["--live", "5", "--churn", "1", "--hold", "1", "--pool", "p"], "--order and --pool go with --replay"),
        (["--replay", "log"], "say what to try"),
        (["--replay", "log", "--hold", "1", "--live", "5"], "leave them out with --replay"),
        (["--replay", "log", "--hold", "9999d"], "hold_s must be a number of seconds"),
        (["--replay", "log", "--order", "highest"], "highest"),
        (["--replay", "log", "--ports", "5-1"], "ends before it starts"),
        (["--replay", "log", "--hold", "1", "--pool", "nope"], "no pool is named 'nope'; defined: grpc, http"),
        (["--replay", "nowhere", "--hold", "1"], "nowhere"),
    ],
)  # fmt: skip
def test_bad_input_that_is_planned_with(log, arguments, said):
    arguments = [str(log) if argument == "log" else argument for argument in arguments]
    outcome = plan(*arguments, "--json")
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert said in " ".join(outcome.stderr.split())
    assert "Traceback" not in outcome.stderr


def test_a_plan_that_the_manager_does_not_keep():
    """What `plan` calls enough is, and one less is not: a manager of that size under that churn."""
    (need,) = lines("--live", 3, "--churn", "2/s", "--hold", 5)

    async def live(ports: int) -> bool:
        clock = ManualClock()
        async with open_manager("memory:", pools=[PoolSpec("p", ports=range(1000, 1000 + ports), hold_s=5)], clock=clock) as manager:
            living = [await manager.allocate("p", owner=f"first {number}") for number in range(3)]
            for number in range(40):
                try:
                    living.append(await manager.allocate("p", owner=f"later {number}"))
                except PoolExhausted:
                    return False
                clock.advance(0.1)
                await manager.release(living.pop(0))
                clock.advance(0.4)
        return True

    assert anyio.run(live, need["ports"])
    assert not anyio.run(live, need["ports"] - 1)
