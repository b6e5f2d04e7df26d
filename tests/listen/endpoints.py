"""What can be seen of sockets from outside."""

from __future__ import annotations

import os
import socket


def open_sockets() -> int:
    return sum(os.path.realpath(f"/proc/self/fd/{fd}").rpartition("/")[2].startswith("socket:") for fd in os.listdir("/proc/self/fd"))


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return False
    return True
