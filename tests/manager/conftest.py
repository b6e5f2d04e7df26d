"""What the tests of the calls share."""

import pytest

from portfsm import PoolSpec, open_manager

GRPC = PoolSpec("grpc", ports="40000-40003", hold_s=10.0)


@pytest.fixture
def opened(log, clock, pool):
    """A manager on the log, as an async context."""

    def make(*pools, **options):
        return open_manager(log.handle(), pools=pools or [pool, GRPC], clock=clock, **options)

    return make
