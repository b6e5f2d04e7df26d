"""What no sequence of calls can do, however long: shown by walking every state of a small world."""

from __future__ import annotations

import pytest

from portfsm._table import TRANSITIONS
from tests.small_world import SMALL, Walk


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_sequence_of_calls_that_breaks_a_guarantee(name):
    """The checks are in the walk."""
    walk = Walk(SMALL[name]).run()
    assert len(walk.seen) > 500
    if SMALL[name].adopt:
        assert set(walk.cells) == set(TRANSITIONS), "a legal cell that nothing reaches"
