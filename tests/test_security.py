"""What SECURITY.md says of the code itself."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import portfsm
from portfsm.errors import InvalidValue
from portfsm.journals import open_journal, read_journal

PACKAGE = Path(portfsm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NEVER_IMPORTED = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def dangers(tree):
    """What a file uses that turns bytes into code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in NEVER_IMPORTED)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in NEVER_IMPORTED:
            yield node.module
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in NEVER_CALLED:
                yield ast.unparse(node.func)
            yield from ("shell=True" for word in node.keywords if word.arg == "shell" and ast.unparse(word.value) != "False")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_log_or_a_name_is_executed(path):
    assert list(dangers(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize("code", ["import pickle", "from marshal import loads", "eval(x)", "subprocess.run(x, shell=True)", "os.system(x)"])
def test_the_search_for_dangers_finds_none_anywhere(code):
    assert len(list(dangers(ast.parse(code)))) == 1


@pytest.mark.parametrize("use", [open_journal, read_journal])
@pytest.mark.parametrize("url", ["postgresql://me:hunter2@db:port/ports", "postgres://me:hunter2@db/x?lgo=y", "redis://me:hunter2@host/0"])
def test_a_password_in_a_url_is_shown(use, url):
    with pytest.raises(InvalidValue) as refused:
        use(url)
    assert "hunter2" not in f"{refused.value} {refused.value!r} {vars(refused.value)}"


# ---------------------------------------------------------------------- the port server


STRANGER = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
    sock.sendall(sys.argv[2].encode())
    print(sock.recv(4096).decode())
except OSError as error:
    print(error.strerror)
"""
"""A client that is another user."""


def as_nobody(path, said):
    ended = subprocess.run([sys.executable, "-S", "-c", STRANGER, str(path), said], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def served():
    """A port server as a process, in a directory that all may enter; its socket, and its log."""
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    folder = Path(tempfile.mkdtemp(prefix="portfsm-"))
    folder.chmod(0o711)
    command = [sys.executable, "-m", "portfsm", "serve", "log", "--socket", "s", "--pool", "tests=5000-5009", "--json"]
    try:
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as child:
            try:
                assert child.stdout.readline()
                yield folder / "s", folder / "log"
            finally:
                child.kill()
    finally:
        shutil.rmtree(folder)


def test_another_user_gets_a_port_or_learns_who_has_one(served):
    """Not by the socket's mode, nor when that was opened by hand; not for itself, and not for root."""
    path, log = served
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert as_nobody(path, "1") == "Permission denied\n"
    path.chmod(0o666)
    for said in (f"{os.getpid()}\n", "GET /v1/status HTTP/1.1\r\nhost: ports\r\n\r\n", ""):
        answer = as_nobody(path, said)
        assert answer.startswith("HTTP/1.1 403 ")
        assert "its own user and root alone" in answer
        assert "tests" not in answer
    with subprocess.Popen(["sleep", "60"], user=65_534) as other, socket.socket(socket.AF_UNIX) as mine:
        mine.connect(str(path))
        mine.sendall(b"%d\n" % other.pid)
        told = mine.recv(4096)
        other.kill()
    assert b"0\nportfsm: process %d is another user's" % other.pid in told
    assert [event for event in read_journal(log) if event.port] == []
