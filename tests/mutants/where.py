"""A plugin for the tests of a mutant: they must import the copy, not the package that is installed."""

import os
from pathlib import Path

import pytest


def pytest_collection_finish():
    import portfsm

    place = Path(os.environ["PORTFSM_MUTANT"]) / "portfsm"
    if Path(portfsm.__file__).resolve().parent != place:
        pytest.exit(f"the tests import {portfsm.__file__}, not {place}", returncode=4)
