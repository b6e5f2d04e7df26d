"""`portfsm doctor`: the real HAProxy, well and badly configured, and nobody at all."""

from __future__ import annotations

import asyncio
import json
import re
import socket

import pytest

from portfsm.cli._main import run
from tests.witnesses.helpers import free_port
from tests.witnesses.real import proxy_home


@pytest.fixture
def call(capsys):
    """Exit code, stdout and stderr of one command line."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(("doctor", *arguments))
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def proxy():
    with proxy_home() as home:
        home.write(10, a=[free_port()])
        yield home


def test_a_proxy_that_is_ready_and_is_found_fault_with(call, proxy):
    asyncio.run(proxy.start())
    code, out, err = call("--haproxy", proxy.master_socket, "--config", str(proxy.config))
    assert (code, err) == (0, "")
    assert "ready for evidence, nothing is missing." in out


def test_a_finding_without_its_line_to_add(call, proxy):
    text = re.sub(r"(?m)^ *(hard-stop-after|use_backend relay).*\n", "", proxy.config.read_text())
    proxy.config.write_text(text + "    option persist\n")
    asyncio.run(proxy.start())
    code, out, _ = call("--haproxy", proxy.master_socket, "--config", str(proxy.config))
    assert code == 1
    for part in ("no hard-stop-after", "    hard-stop-after 120s", "frontend fe does not relay", "no option persist", ": 3 findings."):
        assert part in out


def test_json_that_a_program_cannot_read_line_by_line(call, proxy):
    proxy.config.write_text(re.sub(r"(?m)^ *hard-stop-after.*\n", "", proxy.config.read_text()))
    asyncio.run(proxy.start())
    code, out, _ = call("--haproxy", proxy.master_socket, "--config", str(proxy.config), "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [line["kind"] for line in lines] == ["finding", "result"]
    assert lines[0]["what"] == "no hard-stop-after"
    assert lines[0]["add"].startswith("hard-stop-after")
    assert lines[1] == {
        "kind": "result", "about": "haproxy", "where": proxy.master_socket, "reached": True, "ready": False, "findings": 1,
    }  # fmt: skip


def test_what_was_not_looked_at_passes_for_fine(call, proxy):
    asyncio.run(proxy.start())
    code, out, _ = call("--haproxy", proxy.master_socket)
    assert code == 0
    assert "not looked at: hard-stop-after" in out
    assert "nothing is missing of what could be looked at" in out
    missing = str(proxy.directory / "missing.cfg")
    assert "missing.cfg cannot be read" in call("--haproxy", proxy.master_socket, "--config", missing)[1]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_nobody_at_the_socket_that_passes_for_findings(call, tmp_path, arguments):
    code, out, err = call("--haproxy", str(tmp_path / "none.sock"), *arguments)
    assert (code, err) == (2, "")
    assert "no master socket" in out


def test_somebody_else_at_the_socket_that_brings_it_down(call, proxy):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(proxy.master_socket)
        stranger.listen()
        stranger.close()
        assert call("--haproxy", proxy.master_socket)[0] == 2


def test_nothing_asked_for_that_counts_as_fine(call):
    code, out, err = call()
    assert (code, out) == (2, "")
    assert all(part in err for part in ("LOG", "--ports RANGES", "--haproxy SOCKET"))
