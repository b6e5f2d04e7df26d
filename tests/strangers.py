"""Others on the machine: processes that listen, connections that sit on a port, ports nobody is on."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portfsm.sockets import occupants

FIRST, LAST = 20_000, 32_000
"""Below the range that outgoing connections take their ports from."""


def _speaks_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


IPV6 = _speaks_ipv6()


def skip_without_ipv6(*hosts: object) -> None:
    """Skip the test if one of these is an IPv6 address and the machine has none."""
    if not IPV6 and ":" in str(hosts):
        pytest.skip("this machine does not speak IPv6")


_LISTENER = """
import socket, sys
kind, host, port, *options = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
for option in options:
    sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
sock.bind((host, int(port)))
if kind == "tcp":
    sock.listen()
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def stranger(port: int, host: str = "127.0.0.1", *options: str, kind: str = "tcp") -> Iterator[subprocess.Popen[bytes]]:
    """A process that sits on the port until the block is left."""
    skip_without_ipv6(host)
    program = [sys.executable, "-S", "-c", _LISTENER, kind, host, str(port), *options]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the stranger could not bind"
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def heir(program: list[str], *fds: int) -> Iterator[subprocess.Popen[bytes]]:
    """A child that inherits these file descriptors, until the block is left."""
    with subprocess.Popen(program, pass_fds=fds) as process:
        try:
            yield process
        finally:
            process.kill()


def named(process: subprocess.Popen[bytes]) -> str:
    """As the system calls it."""
    return f"{Path(f'/proc/{process.pid}/comm').read_text().strip()} (pid {process.pid})"


def free_range(count: int, *, first: int = FIRST, last: int = LAST) -> range:
    """So many ports in a row that nobody is on."""
    while True:
        start = random.randrange(first, last - count)
        ports = range(start, start + count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in ports:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    probe = stack.enter_context(socket.socket(socket.AF_INET6 if IPV6 else socket.AF_INET, kind))
                    probe.bind(("", port))  # both families where there are two
            return ports


def outgoing(port: int, to: tuple[str, int]) -> socket.socket:
    """A connection whose source port is this one, as the system would have chosen it: without SO_REUSEADDR."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", port))
    sock.connect(to)
    return sock


def closed_by_server(listener: socket.socket) -> None:
    """Leave TIME_WAIT on the listener's port: the server closes first."""
    with socket.create_connection(listener.getsockname()) as client:
        listener.accept()[0].close()
        assert client.recv(1) == b""
    in_time_wait(listener.getsockname()[1])


def in_time_wait(port: int) -> None:
    """Return when the system has seen both ends of a connection on the port close: a busy machine takes a moment."""
    deadline = time.monotonic() + 10
    while not any(each.doing == "closing" for each in occupants((port,))):
        assert time.monotonic() < deadline, "no TIME_WAIT: the test would prove nothing"


EPHEMERAL = 51
"""IP_LOCAL_PORT_RANGE, since Linux 6.3: the ports that one socket may take for an outgoing connection."""


LATE = 24
"""IP_BIND_ADDRESS_NO_PORT: an address is chosen now, the port when it connects."""


def connect_from(ports: range, to: tuple[str, int], *, source: str = "") -> socket.socket:
    """An outgoing connection for which the system must choose among `ports`. Raises `OSError` when it finds none."""
    sock = choosing(ports)
    try:
        if source:
            sock.setsockopt(socket.IPPROTO_IP, LATE, 1)
            sock.bind((source, 0))
        sock.connect(to)
    except BaseException:
        sock.close()
        raise
    return sock


def choosing(ports: range) -> socket.socket:
    """A socket for which the system chooses among `ports`."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.IPPROTO_IP, EPHEMERAL, struct.pack("I", ports[-1] << 16 | ports[0]))
    except OSError:
        sock.close()
        pytest.skip("this kernel chooses ports for no socket apart (IP_LOCAL_PORT_RANGE, Linux 6.3)")
    return sock
