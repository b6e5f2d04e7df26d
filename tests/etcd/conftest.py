"""Logs on a real etcd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portfsm.journals._etcd_url import parse
from portfsm.journals.etcd import EtcdJournal


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


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., EtcdJournal]]:
    """Opens journals, small segments, and lets go of them."""
    journals = []

    def opener(where: str = url, *, lease_s: float = 10.0, segment_bytes: int = 4000) -> EtcdJournal:
        journal = EtcdJournal(parse(where), lease_s=lease_s, segment_bytes=segment_bytes)
        journals.append(journal)
        journal.open(f"writer {len(journals)}")
        return journal

    yield opener
    for journal in journals:
        journal.close()
