"""The loops that the witnesses are tested on, and a proxy for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.witnesses.real import Proxy, proxy_home


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A home for an HAProxy that is not started yet."""
    with proxy_home() as home:
        yield home
