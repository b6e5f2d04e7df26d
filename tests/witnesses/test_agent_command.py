"""`portfsm agent`: who is answered, what is refused, and what is told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import anyio
import pytest

from portfsm.evidence import Verdict
from portfsm.witnesses import RemoteWitness
from tests.witnesses.helpers import PATIENCE_S, free_port
from tests.witnesses.test_remote import PLACE, TOKEN

UNKNOWN = Verdict.UNKNOWN


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


def command(*arguments):
    return [sys.executable, "-m", "portfsm", "agent", *map(str, arguments)]


def ended_with(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@contextlib.contextmanager
def running(*arguments):
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def test_the_command_answers_nobody_or_tells_the_token(token_file, tmp_path):
    arguments = ("--listen", "127.0.0.1:0", "--token-file", token_file, "--nginx", f"edge={tmp_path}/nginx.pid", "--json")
    with running(*arguments) as child:
        said = child.stdout.readline()
        told = json.loads(said)
        assert told["proxies"] == ["edge"]
        found = anyio.run(RemoteWitness(told["url"], proxy="edge", token=TOKEN).check, *PLACE)
        assert (found.verdict, "is this its pid file" in found.reason) == (UNKNOWN, True)
        found = anyio.run(RemoteWitness(told["url"], proxy="edge", token=TOKEN + "x").check, *PLACE)
        assert "401" in found.reason
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=PATIENCE_S)
        assert (child.returncode, err) == (0, "")
        assert TOKEN not in said + out + err


def test_an_agent_whose_haproxy_may_forget_goes_unnoticed(token_file):
    """Maintenance without a look at the file is undone by the next reload; with one there is nothing to tell."""
    arguments = ("--listen", "127.0.0.1:0", "--token-file", token_file, "--haproxy", "a=p", "--haproxy", "b=q", "--ports-file", "b=f")
    with running(*arguments) as child:
        assert child.stdout.readline().startswith("http://127.0.0.1:")
        child.send_signal(signal.SIGTERM)
        (told,) = child.communicate(timeout=PATIENCE_S)[1].splitlines()
        assert "without --ports-file a=FILE" in told


def test_the_command_speaks_no_tls(token_file, certificate):
    tls = ("--tls-certificate", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    with running(
        "--listen", "127.0.0.1:0", "--token-file", token_file, "--envoy", f"http://127.0.0.1:{free_port()}", *tls, "--json"
    ) as child:
        url = json.loads(child.stdout.readline())["url"]
        assert url.startswith("https://")
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            stranger.recv(1024)
        found = anyio.run(RemoteWitness(url, proxy="envoy", token=TOKEN, verify=str(certificate / "cert.pem")).check, *PLACE)
        assert (found.verdict, "/server_info" in found.reason or "connect" in found.reason.lower()) == (UNKNOWN, True)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE_S)
        assert (child.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "127.0.0.1:0"], "name at least one proxy"),
        (["--listen", "nonsense", "--nginx", "p"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999", "--nginx", "p"], "HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--nginx", "p", "--nginx", "q"], "one name"),
        (["--listen", "127.0.0.1:0", "--nginx", "p", "--generation-url", "x=http://h/"], "no --nginx names"),
        (["--listen", "127.0.0.1:0", "--nginx", "p", "--generation-url", "ftp://h/"], "must be a URL"),
        (["--listen", "127.0.0.1:0", "--envoy", "nonsense"], "must be a URL"),
        (["--listen", "127.0.0.1:0", "--haproxy", "p", "--ports-file", "x=f"], "--ports-file for x, which no --haproxy names"),
        (["--listen", "127.0.0.1:0", "--haproxy", "p", "--ports-file", "f", "--ports-file", "g"], "twice for one proxy"),
        (["--listen", "127.0.0.1:0", "--haproxy", "p", "--retries-replies", "x"], "--retries-replies for x, which no --haproxy names"),
        (["--listen", "127.0.0.1:0", "--haproxy", "a=p", "--state-file", "f"], "--state-file for haproxy, which no --haproxy names"),
        (["--listen", "127.0.0.1:0", "--nginx", "p", "--tls-key", "{token}"], "--tls-certificate"),
        (["--listen", "127.0.0.1:0", "--nginx", "p", "--tls-certificate", "{token}"], "not a certificate"),
        (["--listen", "203.0.113.1:80", "--nginx", "p"], "assign"),
    ],
)
def test_a_wrong_command_line_is_a_traceback_or_runs(token_file, arguments, says):
    arguments = [text.format(token=token_file) for text in arguments]
    ended = ended_with("--token-file", token_file, *arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr


def test_a_token_file_that_all_may_read_goes_unnoticed(token_file):
    token_file.chmod(0o644)
    with running("--listen", "127.0.0.1:0", "--token-file", token_file, "--nginx", "p") as child:
        assert child.stdout.readline().startswith("http://127.0.0.1:")
        assert "chmod 600" in child.stderr.readline()


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40, b"x" * 10_000])
def test_a_token_file_without_a_token_is_taken(token_file, content):
    token_file.write_bytes(content)
    ended = ended_with("--token-file", token_file, "--listen", "127.0.0.1:0", "--nginx", "p")
    assert (ended.returncode, "the token must be" in ended.stderr) == (2, True)


def test_a_missing_token_file_is_a_traceback(tmp_path):
    ended = ended_with("--token-file", tmp_path / "none", "--listen", "127.0.0.1:0", "--nginx", "p")
    assert (ended.returncode, "Traceback" in ended.stderr, os.fspath(tmp_path) in ended.stderr) == (2, False, True)
