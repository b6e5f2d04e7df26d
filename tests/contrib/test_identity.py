"""Replicas that refuse what is meant for another: by themselves, and behind the real HAProxy with a port reused at once."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from portfsm.contrib.identity import Identity
from tests.witnesses.helpers import free_port, on_every_loop
from tests.witnesses.real import binary

PAGE = (Path(__file__).parents[2] / "docs" / "identity.md").read_text()


async def ask(app, *headers, kind="http", extensions=None):
    """What the app sends; each header as `(name, value)`."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        raise AssertionError("a refusal reads nothing")

    await app({"type": kind, "headers": [(n.encode(), v.encode()) for n, v in headers], "extensions": extensions}, receive, send)
    return sent


async def inner(scope, receive, send):
    await send({"type": "inner"})


PASSED = [{"type": "inner"}]
APP = Identity(inner, service="checkout", token=417)


@on_every_loop
async def test_what_is_meant_for_another_passes():
    for header in [
        ("x-portfsm-service", "cart"),
        ("x-portfsm-service", ""),
        ("x-portfsm-service", "checkout "),
        ("X-Portfsm-Service", "CHECKOUT"),
        ("x-portfsm-token", "416"),
    ]:
        start, body = await ask(APP, ("host", "x"), header)
        headers = dict(start["headers"])
        assert (start["type"], start["status"], headers[b"x-portfsm-refused"]) == ("http.response.start", 503, header[0].lower().encode())
        assert int(headers[b"content-length"]) == len(body["body"])


@on_every_loop
async def test_what_is_meant_for_this_replica_is_refused():
    """Health checks prove an address and not who answers there (aws/containers-roadmap#347)."""
    assert await ask(APP) == PASSED
    assert await ask(APP, ("x-portfsm-service", "checkout")) == PASSED
    assert await ask(APP, ("x-portfsm-service", "checkout"), ("x-portfsm-token", "417")) == PASSED
    assert await ask(APP, kind="lifespan") == PASSED
    assert await ask(Identity(inner, service="café"), ("x-portfsm-service", "café")) == PASSED
    assert await ask(Identity(inner, service="a", header="X-App"), ("x-app", "a"), ("x-portfsm-service", "b")) == PASSED


@on_every_loop
async def test_a_clients_own_header_beside_the_proxys_lets_a_request_in():
    for values in (["checkout", "cart"], ["cart", "checkout"]):
        assert (await ask(APP, *(("x-portfsm-service", value) for value in values)))[0]["status"] == 503


@on_every_loop
async def test_a_required_header_may_be_missing():
    app = Identity(inner, service="checkout", token=417, required=True)
    assert (await ask(app))[0]["status"] == 503
    assert (await ask(app, ("x-portfsm-service", "checkout")))[0]["status"] == 503
    assert await ask(app, ("x-portfsm-service", "checkout"), ("x-portfsm-token", "417")) == PASSED


@on_every_loop
async def test_a_stale_websocket_is_accepted():
    wrong = ("x-portfsm-service", "cart")
    assert [message["type"] for message in await ask(APP, wrong, kind="websocket")] == ["websocket.close"]
    start, _ = await ask(APP, wrong, kind="websocket", extensions={"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)


@pytest.mark.parametrize(
    "options", [{"service": ""}, {"service": "a", "header": ""}, {"service": "a", "header": "a b"}, {"service": "a", "token_header": "ü"}]
)
def test_junk_options_are_taken(options):
    with pytest.raises(ValueError, match=r"must not be empty|not a header"):
        Identity(inner, **options)


# ---------------------------------------------------------------------- behind the real HAProxy


REPLICA = """
import asyncio, sys
from portfsm.contrib.identity import Identity
name, port, guarded, token = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "guarded", sys.argv[4] or None
async def app(scope, receive, send):
    body = (name + (token or '')).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
served = Identity(app, service=name, token=token) if guarded else app
async def connected(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).split(b"\\r\\n")
            headers = [(n.strip().lower(), v.strip()) for n, _, v in (line.partition(b":") for line in head[1:] if line)]
            out = []
            async def send(message):
                out.append(message)
            await served({"type": "http", "headers": headers}, None, send)
            lines = [b"HTTP/1.1 %d x" % out[0]["status"], *(n + b": " + v for n, v in out[0]["headers"])]
            writer.write(b"\\r\\n".join(lines) + b"\\r\\n\\r\\n" + out[1]["body"])
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
async def main():
    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

CONFIGURATION = """
global
    maxconn 200
defaults
    mode http
    maxconn 100
    timeout connect 1s
    timeout client 5s
    timeout server 5s
{defaults}
frontend front
    bind 127.0.0.1:{front}
    default_backend checkout
backend checkout
    balance roundrobin
{checkout}
    server {first} 127.0.0.1:{reused}
    server {second} 127.0.0.1:{other}
"""


def from_page():
    """The lines that the page shows: those of `defaults`, the header of the backend, and the one that carries tokens."""
    block, tokens = re.findall(r"```\n((?:defaults|backend).*?)```", PAGE, re.DOTALL)
    defaults, _, backend = block.partition("backend checkout\n")
    lines = [*backend.splitlines(), *tokens.splitlines()]
    service, token = (next(line for line in lines if word in line) for word in ("set-header", "send-name-header"))
    return defaults.removeprefix("defaults\n"), service, token


class Stage:
    """HAProxy that believes for ever that both ports serve `checkout`, while the first one is given to another replica at once."""

    def __init__(self, directory, *, guarded, successor="cart", tokens=("", "", "")):
        self.guarded = "guarded" if guarded else "bare"
        self.processes = []
        self.front, self.reused, self.other = free_port(), free_port(), free_port()
        defaults, service, token = from_page()
        names = {"first": tokens[0] or "s1", "second": tokens[1] or "s2", "checkout": f"{service}\n{token if any(tokens) else ''}"}
        text = CONFIGURATION.format(defaults=defaults, front=self.front, reused=self.reused, other=self.other, **names)
        (directory / "haproxy.cfg").write_text(text)
        former = self.replica("checkout", self.reused, tokens[0])
        self.replica("checkout", self.other, tokens[1])
        self.processes.append(subprocess.Popen([binary(), "-f", str(directory / "haproxy.cfg"), "-db"], stderr=subprocess.DEVNULL))
        self.answers(1)
        former.kill()
        former.wait()
        self.replica(successor, self.reused, tokens[2])

    def replica(self, name, port, token):
        child = subprocess.Popen([sys.executable, "-c", REPLICA, name, str(port), self.guarded, token], stdout=subprocess.PIPE, text=True)
        self.processes.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    def answers(self, count, method="GET"):
        """Status and body of `count` requests, each on a connection of its own."""
        found = []
        deadline = time.monotonic() + 10
        while len(found) < count:
            connection = http.client.HTTPConnection("127.0.0.1", self.front, timeout=10)
            try:
                connection.request(method, "/")
                response = connection.getresponse()
                found.append((response.status, response.read().decode()))
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
            finally:
                connection.close()
        return found

    def close(self):
        for child in self.processes:
            child.kill()
            child.wait()
            if child.stdout:
                child.stdout.close()


@pytest.fixture
def stage(tmp_path):
    stages = []

    def build(**options):
        stages.append(Stage(tmp_path, **options))
        return stages[-1]

    yield build
    for each in stages:
        each.close()


def test_the_experiment_shows_nothing(stage):
    """Negative control: without the middleware a port that is reused at once gives wrong answers."""
    assert (200, "cart") in stage(guarded=False).answers(40)


def test_a_port_reused_at_once_gives_a_wrong_answer(stage):
    assert set(stage(guarded=True).answers(400)) == {(200, "checkout")}


def test_a_client_names_another_service_and_gets_it(stage):
    built = stage(guarded=True)
    connection = http.client.HTTPConnection("127.0.0.1", built.front, timeout=10)
    for _ in range(20):
        connection.request("GET", "/", headers={"x-portfsm-service": "cart"})
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"checkout")
    connection.close()


def test_a_former_replica_of_the_same_service_is_taken_for_this_one(stage):
    """Each server is named after its token, and the name is sent anew at each retry."""
    tokens = ("417", "431", "450")
    assert (200, "checkout450") in stage(guarded=False, successor="checkout", tokens=tokens).answers(40)
    assert set(stage(guarded=True, successor="checkout", tokens=tokens).answers(200)) == {(200, "checkout431")}
