"""Fixtures that several kinds of witnesses share."""

from __future__ import annotations

from collections.abc import Iterator

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
