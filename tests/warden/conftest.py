"""A manager with two ports and the proxies of a test."""

from __future__ import annotations

import pytest

from portfsm import PoolSpec, open_manager


@pytest.fixture
def opened(log, clock):
    def make(*proxies, hold_s=10.0, **options):
        spec = PoolSpec("http", ports="30000-30001", hold_s=hold_s, **options)
        return open_manager(log.handle(), pools=[spec], clock=clock, witnesses=proxies)

    return make
