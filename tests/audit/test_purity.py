"""`portfsm.audit` is asked of events: it knows no file, no clock, no journal and no terminal."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import portfsm
from portfsm import audit

FOLDER = Path(portfsm.__file__).parent / "audit"
ALLOWED = {
    "portfsm._ledger",
    "portfsm._pool",
    "portfsm._replay",
    "portfsm.audit",
    "portfsm.errors",
    "portfsm.events",
    "portfsm.states",
    "portfsm.values",
}
WORLD = {"asyncio", "datetime", "io", "os", "pathlib", "random", "select", "socket", "subprocess", "tempfile", "threading", "time"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("_*.py")), ids=lambda path: path.stem)
def test_a_question_reaches_for_a_file_or_a_clock(path):
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {name for name in names if name.startswith("portfsm")}
    assert {name for name in ours if name not in ALLOWED and not name.startswith("portfsm.audit.")} == set()
    tops = {name.partition(".")[0] for name in names - ours}
    assert tops <= set(sys.stdlib_module_names) | {"attrs"}
    assert tops.isdisjoint(WORLD)


def test_the_list_of_names_lags_behind():
    assert list(audit.__all__) == sorted(audit.__all__)
    assert all(getattr(audit, name).__doc__ for name in audit.__all__)
