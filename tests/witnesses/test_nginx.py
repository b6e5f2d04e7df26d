"""The workers of nginx as evidence, on processes that look like nginx's; the real one is asked in `test_nginx_real`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import anyio
import pytest

from portfsm.errors import InvalidValue
from portfsm.evidence import Verdict, Witness
from portfsm.witnesses import NginxWitness
from portfsm.witnesses._exits import read_stat
from portfsm.witnesses._family import family_of
from tests.witnesses.helpers import NONSENSE, PATIENCE_S, free_port, on_every_loop, process, until, wait_for

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
    elif verb == "kill":
        os.kill(int(rest), signal.SIGKILL)
        os.waitpid(int(rest), 0)
        print("reaped", flush=True)
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK if verb == "busy" else signal.SIG_UNBLOCK, [signal.SIGHUP])
        print(verb, flush=True)
"""
"""A master that forks children, busy or at rest, and a worker that changes its title at SIGQUIT: nginx to those who look at /proc."""


def is_stopping(pid):
    return "shutting down" in Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]


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
        self.latest = 0

    def tell(self, line):
        print(line, file=self.master.stdin, flush=True)
        return self.master.stdout.readline().strip()

    def fork(self, title="nginx: worker process"):
        """The pid of a new worker, started in a later clock tick than all others."""
        while (pid := int(self.tell(f"fork {title}"))) and read_stat(pid).started <= self.latest:
            self.end(pid)
        self.latest = read_stat(pid).started
        return pid

    def workers(self):
        return {worker.pid: worker for worker in family_of(self.master.pid).workers}

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
async def test_a_frozen_worker_that_passes_for_a_sibling_of_the_new_one(scene):
    """Its title tells nothing, and its master rests: but it waits for no events."""
    stuck = scene.family.fork()
    os.kill(stuck, signal.SIGSTOP)
    await until(lambda: read_stat(stuck).state == "T")
    scene.says(10, scene.family.fork())
    for _ in range(3):
        found = await scene.ask()
        assert (found.verdict, str(stuck) in found.reason) == (HELD, True)


def test_a_worker_that_counts_as_quiet_before_its_master_was_at_rest(family):
    worker = family.fork()
    wait_for(lambda: family.workers()[worker].quiet)
    family.tell("busy")
    assert not family.workers()[worker].quiet
    family.tell("rest")
    assert family.workers()[worker].quiet
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: read_stat(worker).state == "T")
    assert not family.workers()[worker].quiet


def test_a_cache_manager_holds_ports_for_ever(family):
    for helper in ("manager", "loader"):
        family.fork(f"nginx: cache {helper} process")
    worker = family.fork()
    assert list(family.workers()) == [worker]


def test_workers_of_another_nginx_hold_our_ports(family):
    other = Family()
    try:
        other.fork()
        worker = family.fork()
        assert list(family.workers()) == [worker]
    finally:
        other.close()


@on_every_loop
async def test_workers_whose_master_was_killed_are_forgotten(scene):
    former = Family()
    try:
        scene.says(10, scene.family.fork())
        orphan = former.fork()
        former.master.kill()
        former.master.wait()
        await until(lambda: orphan in scene.family.workers())
        found = await scene.ask()
        assert (found.verdict, f"{orphan} (its master is gone)" in found.reason) == (HELD, True)
    finally:
        former.close()
    await until(lambda: orphan not in scene.family.workers())
    assert await scene.verdict() is CLEAR


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
async def test_nonsense_at_the_generation_url_is_an_answer_or_a_crash(scene, serve):
    scene.family.fork()
    tracemalloc.start()
    for name, answer in NONSENSE.items():
        scene.witness = NginxWitness(scene.family.master.pid, proxy="nginx", generation_url=serve(answer).url, deadline_s=0.3)
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
