"""What the tests of groups share: a pool for the pure core, a manager for the rest."""

import pytest

from portfsm import open_manager
from tests.groups.callers import GRPC, HTTP


@pytest.fixture
def wide(empty):
    """A pool `p` of twenty ports."""
    empty.define(ports="100-119")
    return empty


@pytest.fixture
def opened(log, clock):
    """A manager of two pools on the log, as an async context."""

    def make(journal=None, pools=(HTTP, GRPC)):
        return open_manager(journal or log.handle(), pools=pools, clock=clock, close_s=5)

    return make
