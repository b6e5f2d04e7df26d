"""Logs on a real etcd."""

from __future__ import annotations

from pathlib import Path

import pytest


def name_for(place: Path) -> str:
    """A log of its own for each test."""
    return str(place).strip("/").replace("/", "-")[-64:]


@pytest.fixture
def url(etcd_url: str) -> str:
    """A log that is not there yet."""
    return etcd_url


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The loops; with another loop under asyncio nothing here is different."""
    return request.param
