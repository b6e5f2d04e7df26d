"""A log in the place of a lost one."""

from __future__ import annotations

import pytest

from tests.lost.worlds import reopen


@pytest.fixture
def lost(empty):
    """A new log in the place of a lost one: pool p of 100-103 with a hold of ten seconds."""
    reopen(empty, lost=True)
    empty.define()
    return empty
