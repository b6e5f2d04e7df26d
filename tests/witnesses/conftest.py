"""Fixtures that several kinds of witnesses share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.witnesses.helpers import Server
from tests.witnesses.real import Proxy, proxy_home


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A home for an HAProxy that is not started yet."""
    with proxy_home() as home:
        yield home


@pytest.fixture
def serve():
    """`serve(respond)` starts a server."""
    servers = []

    def start(respond):
        servers.append(Server(respond))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the socket should be; short, as paths of sockets must be."""
    directory = Path(tempfile.mkdtemp(prefix="pf", dir="/tmp" if os.path.isdir("/tmp") else None))
    yield directory / "m"
    directory.chmod(0o700)
    shutil.rmtree(directory)
