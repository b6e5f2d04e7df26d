"""The page about the allocator: what it shows runs, and each row of its table has the test that it names."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import anyio
import pytest

import portfsm
from portfsm import MemoryJournal, PoolSpec, open_manager

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/allocator.md").read_text()
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE[PAGE.index("| feature |") :].splitlines()[2:]
    if line.startswith("|")
]


@pytest.mark.parametrize(("feature", "test", "source"), [(row[0], row[2].strip("`"), row[3]) for row in ROWS])
def test_a_feature_without_the_test_of_the_failure_it_prevents(feature, test, source):
    """The test exists, and says where the failure was seen."""
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name]
    assert found, f"{feature}: {test} is not there"
    assert source in f"{ast.get_docstring(tree)} {ast.get_docstring(found[0])}", f"{feature}: {test} does not say {source}"


def test_a_row_that_is_lost():
    assert len(ROWS) > 40
    assert len({row[0] for row in ROWS}) == len(ROWS)


def test_a_snippet_of_the_page_that_does_not_run(capsys):
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    program = "async def page(manager):\n" + textwrap.indent("\n".join(snippets), "    ")
    names = {name: getattr(portfsm, name) for name in portfsm.__all__}
    scope = dict(names)
    exec("from contextlib import suppress\n" + program, scope)

    async def run():
        pools = [PoolSpec("http", ports="30000-30031", hold_s=10.0), PoolSpec("grpc", ports="40000-40031", hold_s=10.0)]
        async with open_manager(MemoryJournal(), pools=pools) as manager:
            await scope["page"](manager)

    anyio.run(run)
    assert "no 24 numbers in a row to give; least is in the way here" in capsys.readouterr().out
