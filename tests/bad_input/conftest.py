"""One loop is enough to see what a call takes."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend():
    """One loop: what is bad is refused before any loop is asked."""
    return "asyncio"
