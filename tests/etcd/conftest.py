"""Logs on a real etcd."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.etcd.server import Cluster


def name_for(place: Path) -> str:
    """A log of its own for each test."""
    return str(place).strip("/").replace("/", "-")[-64:]


@pytest.fixture
def url(etcd: Cluster, tmp_path: Path) -> str:
    """A log that is not there yet."""
    return etcd.url(name_for(tmp_path))
