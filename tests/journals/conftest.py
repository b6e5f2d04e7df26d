"""Journals that are opened thousands of times."""

from __future__ import annotations

import logging

import pytest
import structlog


@pytest.fixture
def quiet() -> None:
    """Each of these openings would have something to say."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
