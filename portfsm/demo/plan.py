"""What one side of the demo does: its ports, its hold, the proxy's lag, the pace of the churn.

The two sides differ in `name`, `ports` and `hold_s`. The supervisor passes the plan to the
controller as one JSON argument.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

import attrs

POOL = "http"
SERVICES = ("cart", "checkout", "pricing", "search", "users")
POOL_SIZE = 36
MAX_LAG_S = 0.8
HOLD_S = 2.4
"""Three times the longest lag; and longer than a controller is away, or its return would prove nothing."""


class DemoError(Exception):
    """The demo could not be carried out. It says nothing about the library."""


@attrs.frozen
class Plan:
    """One side of the demo. The numbers of descriptors and TCP ports are the supervisor's."""

    name: str
    directory: str
    ports: str
    hold_s: float
    lag_s: float
    leash: int
    """Inherited descriptor that ends when the demo does."""
    node: int
    """TCP port on which the node takes orders."""
    proxy: int
    """TCP port on which the proxy takes routing tables."""
    replicas: int = 20
    movers: int = 2
    """How many replicas are on the move at once."""
    pause_s: float = 0.3
    """Between two moves of one mover."""

    @property
    def log(self) -> Path:
        """The directory of the log."""
        return Path(self.directory, self.name)

    @property
    def acks(self) -> Path:
        """Where the controller notes what it was promised, apart from the log."""
        return Path(self.directory, f"{self.name}.acks.jsonl")

    @property
    def stderr(self) -> Path:
        """Where the side's processes complain."""
        return Path(self.directory, f"{self.name}.stderr.txt")


def lag_for(seconds: float) -> float:
    """How late the proxy is in a run of so many seconds: a short one shall see several tables come and go."""
    return min(MAX_LAG_S, round(seconds / 15, 3))


def find_ports(count: int = POOL_SIZE, *, avoid: range = range(0)) -> range:
    """So many consecutive ports that nobody listens on, outside the range outgoing connections draw from.

    A guess at a moment: whoever comes later is met with `release(lease, block=...)`.
    """
    ephemeral = ephemeral_ports()
    starts = [start for start in range(10_000, 65_000 - count, count) if not overlaps(range(start, start + count), ephemeral, avoid)]
    for start in random.sample(starts, len(starts)):  # at random, so that two demos at a time seldom meet
        ports = range(start, start + count)
        if all(map(is_unused, ports)):
            return ports
    raise DemoError(f"no {count} unused ports in a row outside {ephemeral.start}-{ephemeral.stop - 1}: end some servers and try again")


def overlaps(ports: range, *others: range) -> bool:
    """Whether two ranges of step 1 share a number."""
    return any(max(ports.start, other.start) < min(ports.stop, other.stop) for other in others)


def ephemeral_ports() -> range:
    """The ports the system gives to outgoing connections, which may take one of a pool's at any moment."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split())
    except OSError:
        return range(32_768, 61_000)  # not Linux, or hidden: Linux' default, which covers that of others
    return range(first, last + 1)


def is_unused(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
