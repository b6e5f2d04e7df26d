"""What the tests of cancellation share: a manager, and what a cancelled call may leave behind."""

import pytest

from portfsm import open_manager
from portfsm.testing import GatedJournal


@pytest.fixture
def fresh(clock, pool):
    """A manager on a new log each time."""

    def make(journal=None, *pools):
        journal = journal or GatedJournal()
        return journal, open_manager(journal, pools=pools or [pool], clock=clock, close_s=5)  # should a test fail with its gate closed

    return make
