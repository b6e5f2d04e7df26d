"""Everything that can happen to a small proxy while it is asked: after CLEAR there is no connection to the port, ever.

What the configuration must carry holds: every reload reads a file without the slot.
"""

from __future__ import annotations

import pytest

from tests.witnesses.fake import explore


@pytest.mark.parametrize("relays", [False, True])
def test_a_schedule_that_connects_after_it_was_clear(relays):
    ends, clear, wrong = explore(relays=relays)
    assert wrong is None
    assert ends > 10_000
    assert clear > 500


@pytest.mark.parametrize("relays", [False, True])
def test_streams_asked_for_before_the_table_that_make_no_difference(relays):
    """The guard of the guard: a witness that asks in another order is found out."""
    assert explore(relays=relays, order=("info", "streams", "table"))[2]


def test_a_stop_asked_for_after_the_streams_that_makes_no_difference():
    assert explore(relays=True, order=("table", "streams", "info"))[2]


@pytest.mark.parametrize("relays", [False, True])
def test_streams_not_asked_for_that_make_no_difference(relays):
    assert explore(relays=relays, order=("info", "table"))[2]


def test_old_workers_not_asked_that_make_no_difference():
    assert explore(relays=False, old_too=False)[2]
