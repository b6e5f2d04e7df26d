"""Proxies for these tests: the binary is there, or the test is skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.evidence.scene import Edge, edge_home
from tests.witnesses.real import binary


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def edge() -> Iterator[Edge]:
    """An HAProxy with the relay line, not started yet."""
    binary()
    with edge_home() as home:
        yield home


@pytest.fixture
def plain_edge() -> Iterator[Edge]:
    """The same without the relay line."""
    binary()
    with edge_home(relay=False) as home:
        yield home
