"""Free ports, a manager of them, and no socket left behind."""

from __future__ import annotations

import pytest

from portfsm import PoolSpec, open_manager
from tests.listen.endpoints import open_sockets
from tests.strangers import free_range


@pytest.fixture
def ports() -> range:
    return free_range(4)


@pytest.fixture
def opened(memory_log, clock, ports):
    """A manager of four free ports that holds no released one back."""
    return open_manager(memory_log.memory, pools=[PoolSpec("http", ports=ports, hold_s=0)], clock=clock)


@pytest.fixture(autouse=True)
def no_socket_left_open():
    before = open_sockets()
    yield
    assert open_sockets() == before
