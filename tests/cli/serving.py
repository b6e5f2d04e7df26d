"""`portfsm serve` as a process, and what its socket says."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys

from tests.witnesses.helpers import PATIENCE_S


@contextlib.contextmanager
def server(*arguments, ready=True):
    """The command, until the block is left; with what it says first, if it is to be waited for."""
    command = [sys.executable, "-m", "portfsm", "serve", *map(str, arguments), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child, json.loads(child.stdout.readline()) if ready else None
        finally:
            child.kill()


def said(path, data):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        sock.sendall(data)
        return b"".join(iter(lambda: sock.recv(65536), b""))
