"""What the demo's tests share: both event loops, a leash to hold, ports nobody uses, and a way to see every descendant."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest

from portfsm.demo.plan import find_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30.0
"""Bound on anything a test waits for: only a hang reaches it."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both event loops."""
    backend: str = request.param
    return backend


@pytest.fixture
def leash() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a leash: ours, and the processes'."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def ports() -> range:
    """Some ports nobody listens on, outside the ephemeral range."""
    return find_ports(8)


@attrs.frozen
class Family:
    """A mark in the environment that a process hands down to all its descendants, whoever adopts them later."""

    mark: str = attrs.field(factory=lambda: uuid.uuid4().hex)

    @property
    def environment(self) -> dict[str, str]:
        """What to start the ancestor with."""
        return {**os.environ, "PORTFSM_TEST_FAMILY": self.mark}

    def members(self) -> list[int]:
        """The pids of all that live."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue  # it ended while we looked
        return found

    async def extinct(self) -> None:
        """Wait until none lives, by their pidfds."""
        with anyio.fail_after(PATIENCE_S):
            while members := self.members():
                for pid in members:
                    try:
                        pidfd = os.pidfd_open(pid)
                    except ProcessLookupError:
                        continue
                    await anyio.wait_readable(pidfd)
                    os.close(pidfd)


@pytest.fixture
def family() -> Family:
    """A fresh mark."""
    return Family()
