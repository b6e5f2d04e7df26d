"""The witness against a real nginx."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from portfsm.evidence import Verdict
from tests.witnesses.helpers import on_every_loop, until
from tests.witnesses.real_nginx import nginx_home

HELD, CLEAR = Verdict.HELD, Verdict.CLEAR


class Scene:
    def __init__(self, nginx):
        self.nginx, self.witness = nginx, nginx.witness()
        nginx.write(1)
        nginx.start()

    async def ask(self, since):
        return await self.witness.check("127.0.0.1", 30000, since)

    async def comes_clear(self, since):
        async def clear():
            return (await self.ask(since)).verdict is CLEAR

        await until(clear)

    def publish(self, generation, **parts):
        self.nginx.write(generation, **parts)
        self.nginx.reload()

    async def one_is_left_of(self, before):
        await until(lambda: len(before & self.nginx.workers()) == 1)


@pytest.fixture
def scene(tmp_path):
    with nginx_home(tmp_path) as nginx:
        yield Scene(nginx)


@on_every_loop
async def test_nginx_never_comes_clear(scene):
    await scene.comes_clear(1)
    assert (await scene.ask(2)).verdict is HELD
    for generation in (2, 3, 4):
        scene.publish(generation)
        await scene.comes_clear(generation)
    assert (await scene.ask(5)).verdict is HELD


@on_every_loop
async def test_nginx_with_a_half_sent_request_counts_as_clear(scene):
    await scene.comes_clear(1)
    with socket.create_connection(("127.0.0.1", scene.nginx.front)) as client:
        # Its second request: of the first one the reload could come before a worker has read a byte, and close the connection.
        client.sendall(b"GET /generation HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /generation HTTP/1.1\r\nHost: x\r\n")
        await until(lambda: not unread(client))
        before = scene.nginx.workers()
        scene.publish(2)
        await scene.one_is_left_of(before)
        for _ in range(5):
            assert (await scene.ask(2)).verdict is HELD
        client.sendall(b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    await scene.comes_clear(2)


def unread(client):
    """Bytes that the other end has not read yet, as the kernel shows them to it."""
    ours = f":{client.getsockname()[1]:04X}"
    with open("/proc/net/tcp") as table:
        theirs = [line.split() for line in table if line.split()[2].endswith(ours)]
    return any(int(words[4].partition(":")[2], 16) for words in theirs)


@on_every_loop
async def test_nginx_with_a_frozen_worker_counts_as_clear(scene):
    await scene.comes_clear(1)
    before = scene.nginx.workers()
    frozen = min(before)
    os.kill(frozen, signal.SIGSTOP)
    scene.publish(2)
    await scene.one_is_left_of(before)

    async def of_the_new_generation():
        found = await scene.ask(2)
        return found if found.generation == 2 else None

    found = await until(of_the_new_generation)
    assert (found.verdict, str(frozen) in found.reason) == (HELD, True)
    os.kill(frozen, signal.SIGCONT)
    await scene.comes_clear(2)


@on_every_loop
async def test_a_configuration_that_nginx_refused_counts_as_loaded(scene):
    await scene.comes_clear(1)
    scene.publish(2, location="no_such_directive;")
    await until(lambda: "no_such_directive" in (scene.nginx.directory / "error.log").read_text())
    assert (await scene.ask(2)).verdict is HELD
    scene.publish(2)
    await scene.comes_clear(2)
