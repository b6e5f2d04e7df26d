"""Fixtures that several kinds of witnesses share."""

from __future__ import annotations

import pytest

from tests.witnesses.helpers import Server


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
