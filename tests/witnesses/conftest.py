"""Fixtures that several kinds of witnesses share."""

from __future__ import annotations

import os
import shutil
import subprocess
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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    try:
        subprocess.run([*command, "-keyout", directory / "key.pem", "-out", directory / "cert.pem"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no openssl that makes certificates: {error}")
    return directory
