"""`portfsm serve` as a process: real clients of portpicker, kill -9 of either side, and what is refused before anything is made."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from portfsm.cli._main import run
from portfsm.journals import read_journal
from tests.cli.serving import said, server
from tests.contrib.port_clients import parsed, request
from tests.strangers import free_range
from tests.witnesses.helpers import PATIENCE_S, wait_for

ROOT = Path(__file__).parents[2]
CLIENT = """
import sys, portpicker
print(*[portpicker.pick_unused_port() for _ in range(int(sys.argv[1]))], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    structlog.reset_defaults()


@contextlib.contextmanager
def client(path, count=2):
    """A process with so many ports from portpicker."""
    environment = {**os.environ, "PORTSERVER_ADDRESS": str(path)}
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        try:
            yield child, [int(port) for port in child.stdout.readline().split()]
        finally:
            child.kill()


def states(path):
    """State and owner by port, as the server has them."""
    (pool,) = parsed(said(path, request("/v1/status")))[1]["pools"]
    return {view["port"]: view["state"] for view in pool["ports"]}


def test_a_kill_loses_or_doubles_the_ports_of_real_clients(here):
    """Two clients have ports, the server is killed, one client dies meanwhile; the next server waits for the first's end, and knows."""
    ports = free_range(8)
    arguments = ("log", "--socket", here / "s", "--pool", f"tests={ports[0]}-{ports[-1]}", "--hold", "1h")
    with contextlib.ExitStack() as stack:
        first, told = stack.enter_context(server(*arguments))
        assert told == {
            "socket": str(here / "s"), "node": None, "pools": [{"pool": "tests", "ports": f"{ports[0]}-{ports[-1]}", "hold_s": 3600.0}],
        }  # fmt: skip
        (lives, its), (dies, others) = stack.enter_context(client(here / "s")), stack.enter_context(client(here / "s"))
        assert sorted(its + others) == [*ports[:4]]
        second, _ = stack.enter_context(server("log", "--socket", here / "s", "--role", "lead-or-wait", ready=False))
        first.kill()
        first.wait()
        dies.kill()
        dies.wait()
        assert json.loads(second.stdout.readline())["pools"][0]["hold_s"] == 3600.0
        wait_for(lambda: states(here / "s") == {**dict.fromkeys(its, "ALLOCATED"), **dict.fromkeys(others, "QUARANTINED")})
        with client(here / "s", 1) as (_, more):
            assert more == [ports[4]]
        lives.kill()
        wait_for(lambda: set(states(here / "s").values()) == {"QUARANTINED"})
        second.send_signal(signal.SIGTERM)
        out, err = second.communicate(timeout=PATIENCE_S)
        assert (second.returncode, out, "Traceback" in err) == (0, "", False)
        assert not (here / "s").exists()
    kinds = [event.kind.value for event in read_journal(here / "log") if event.port]
    assert (kinds.count("allocated"), kinds.count("released"), kinds.count("adopted")) == (5, 5, 0)


def test_two_servers_have_one_log_or_one_socket_and_people_are_told_nothing(here):
    ports = free_range(2)
    pool = f"tests={ports[0]},{ports[1]}"
    command = [sys.executable, "-m", "portfsm", "serve", "log", "--socket", "s", "--pool", pool]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert (
                child.stdout.readline()
                == f"{here}/s serves tests ({ports[0]}-{ports[1]}); PORTSERVER_ADDRESS={here}/s gets ports of tests\n"
            )
            for log, path, word in (("log", "other", "is open for writing already"), ("other", "s", "served already")):
                ended = subprocess.run(
                    [sys.executable, "-m", "portfsm", "serve", log, "--socket", path, "--pool", pool],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE_S,
                    check=False,
                )
                assert (ended.returncode, ended.stdout, word in ended.stderr) == (2, "", True)
                assert ended.stderr.count("\n") == 1
            child.send_signal(signal.SIGINT)
            assert (child.wait(PATIENCE_S), child.stderr.read()) == (0, "")
        finally:
            child.kill()
    assert sorted(os.listdir(here)) == ["log", "s.lock"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("--pool tests=5000-5009", "--socket"),
        ("--socket s", "--pool NAME=RANGES makes one"),
        ("--socket s --pool tests", "--pool NAME=RANGES makes one"),
        ("--socket s --pool tests=", "neither a number"),
        ("--socket s --pool tests=90000", "65535"),
        ("--socket s --pool TESTS=5000", "pool's name"),
        ("--socket s --pool a=5000-5009 --pool b=5005", "both have port 5005"),
        ("--socket s --pool a=5000 --pool a=5001", "given twice"),
        ("--socket s --pool a=5000 --hold -1", "-1"),
        ("--socket s --pool a=5000 --role follow", "follow"),
        ("--socket @s --pool a=5000", "abstract"),
        ("--socket none/s --pool a=5000", "mkdir"),
    ],
)
def test_a_wrong_command_line_makes_something(here, capsys, arguments, word):
    assert run(["serve", "log", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, word in err, err.count("\n")) == ("", True, 1), err
    assert os.listdir(here) == []


def test_a_pool_that_the_log_does_not_know_is_made_up(here, capsys):
    import anyio

    from portfsm import PoolSpec, open_manager

    async def write():
        async with open_manager("log", pools=[PoolSpec("a", ports="5000"), PoolSpec("b", ports="6000")]):
            pass

    anyio.run(write)
    before = (here / "log" / "00000000000000000001.jsonl").read_bytes()
    unknown = "knows no pool 'c': name one of a, b"
    for arguments, word in (([], "name one of a, b"), (["--pool", "c"], unknown), (["--pool", "d=7000", "--pool", "c"], unknown)):
        assert run(["serve", "log", "--socket", "s", *arguments]) == 2
        assert word in capsys.readouterr().err
    assert (here / "log" / "00000000000000000001.jsonl").read_bytes() == before


def test_the_page_shows_commands_that_do_not_work(here):
    """Its shell lines, in their order."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    first, *others = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "serve.md").read_text(), re.DOTALL)
    ports = free_range(8)
    for name, start in (("portfsm", f"{sys.executable} -m portfsm"), ("python", sys.executable)):
        (here / name).write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        (here / name).chmod(0o755)
    wait = "trap 'kill %1' EXIT; until [ -S ports.sock ]; do sleep 0.02; done\n"
    end = "trap - EXIT; kill %1; wait %1; echo ended $?\n"
    script = "".join([first, wait, *others, end]).replace("20000-20999", f"{ports[0]}-{ports[-1]}").replace("20001", str(ports[1]))
    ended = subprocess.run(
        ["bash", "-ec", script],
        env={**os.environ, "PATH": f"{here}:{os.environ['PATH']}"}, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    told, picked, *answers, last = ended.stdout.splitlines()
    assert "serves tests" in told
    assert (int(picked), last) == (ports[0], "ended 0")
    one, two, group, explained, status = map(json.loads, answers)
    assert [one["port"], two["port"], *(lease["port"] for lease in group["leases"])] == [*ports[1:7]]
    assert (explained["owner"], status["pools"][0]["allocated"]) == ("replica-1", 7)
