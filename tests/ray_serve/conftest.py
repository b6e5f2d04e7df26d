"""Ray Serve's two pools."""

from __future__ import annotations

import pytest


@pytest.fixture
def ray(empty):
    """The pools of Ray's tests, with the hold of 150 s that Ray came to."""
    empty.define("http", ports="8000-8003", hold_s=150.0)
    empty.define("grpc", ports="9000-9003", hold_s=150.0)
    return empty


@pytest.fixture
def immediate(empty):
    """The same without a hold, as most of Ray's tests have it."""
    empty.define("http", ports="8000-8003", hold_s=0.0)
    empty.define("grpc", ports="9000-9003", hold_s=0.0)
    return empty
