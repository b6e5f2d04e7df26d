"""The house as `docs/architecture.md` draws it: imports point down only, the pure floors stay pure, files and functions stay small.

What is read are the syntax trees, so an import inside a function or under TYPE_CHECKING counts like any other.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import portfsm

ROOT = Path(__file__).parent.parent
PACKAGE = Path(portfsm.__file__).parent
SURFACES = {"cli", "contrib", "demo", "testing"}
DOORS = {"", "__main__"}
"""`portfsm` itself gathers every public name and `python -m portfsm` is the command line: both stand on top of all."""

MAX_FILE, MAX_FUNCTION = 400, 60
OUTSIDE = {"anyio", "asyncio", "fcntl", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "selectors", "shutil"} | {
    "signal", "socket", "ssl", "structlog", "subprocess", "tempfile", "threading", "time", "trio", "urllib", "uuid",
}  # fmt: skip
"""What knows a clock, a file, a thread, a loop or luck."""
PURE = 2
"""The highest floor that imports none of them."""
EXTRAS = {"witnesses": {"h11"}, "journals": {"httpx", "psycopg"}}
"""What may be imported that comes with an extra: `agent`, for proxies that speak HTTP; `postgres` and `etcd`, for their journals alone."""
ENVIRONMENT = {("specs", "os")}
"""`PoolSpec.from_env` reads the environment, and says so in its name."""


def drawn() -> dict[str, int]:
    """Floor by module, as the table in the page has it."""
    floors, floor = {}, -1
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| floor |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        _, label, names, *_ = line.split("|")
        floor = int(label.split()[0]) if label.strip() else floor
        floors |= dict.fromkeys(re.findall(r"`(\w+)/?`", names), floor)
    return floors


FLOORS = drawn()


def modules() -> dict[str, Path]:
    """Every file of the package by its name inside it: `_table`, `journals.file`; the package itself is the empty name."""
    found = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name.removesuffix("__init__").removesuffix("."): path for name, path in found.items()}


MODULES = modules()


def part(module: str) -> str:
    """What stands in the table for `module`: itself, or the package it lies in."""
    return module.partition(".")[0]


def imported(module: str, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that `tree` imports, in full, with the line; `from package import module` is the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = [*module.split("."), ""][: None if MODULES[module].name == "__init__.py" else -1]
                base = ".".join(["portfsm", *inside[: len(inside) - node.level], *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix("portfsm.")
                yield f"portfsm.{inner}" if base.startswith("portfsm") and inner in MODULES else base, node.lineno


def upward(module: str, tree: ast.AST) -> list[str]:
    """The imports of `module` that point up, or sideways from one surface into another."""
    found = []
    for name, line in imported(module, tree):
        if name.partition(".")[0] != "portfsm":
            continue
        target, mine = part(name.partition(".")[2]), part(module)
        if target == "":
            if mine not in SURFACES:
                found.append(f"{module}:{line} imports the whole package")
        elif FLOORS[target] > FLOORS[mine]:
            found.append(f"{module}:{line} (floor {FLOORS[mine]}) imports {target} (floor {FLOORS[target]})")
    return found


def impure(module: str, tree: ast.AST) -> list[str]:
    """The imports of `module` that reach outside the process's own memory."""
    tops = {(name.partition(".")[0], line) for name, line in imported(module, tree)}
    return [f"{module}:{line} imports {top}" for top, line in sorted(tops) if top in OUTSIDE and (module, top) not in ENVIRONMENT]


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), filename=str(MODULES[module]))


# ---------------------------------------------------------------------- the page and the house


def test_a_module_without_a_floor_or_a_floor_without_its_module():
    assert {part(module) for module in MODULES} - DOORS == set(FLOORS)
    assert {FLOORS[name] for name in SURFACES} == {5}
    assert set(FLOORS.values()) == set(range(6))


# ---------------------------------------------------------------------- what imports what


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) not in DOORS])
def test_an_import_that_points_up(module):
    assert upward(module, parsed(module)) == []


@pytest.mark.parametrize("module", [module for module in MODULES if FLOORS.get(part(module), 9) <= PURE])
def test_a_pure_floor_that_knows_a_clock_a_file_a_thread_or_a_loop(module):
    assert impure(module, parsed(module)) == []


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) == "testing"])
def test_a_test_kit_that_leans_on_the_command_line_or_the_demo(module):
    """It stands beside everything: whoever tests a program of their own needs neither."""
    assert {part(name.partition(".")[2]) for name, _ in imported(module, parsed(module)) if name.startswith("portfsm.")}.isdisjoint(
        {"cli", "demo"}
    )


@pytest.mark.parametrize("module", [module for module in MODULES if FLOORS.get(part(module), 9) < 5])
def test_the_core_needs_more_than_it_declares(module):
    tops = {name.partition(".")[0] for name, _ in imported(module, parsed(module))}
    extras = EXTRAS.get(part(module), set())
    assert tops - set(sys.stdlib_module_names) <= {"portfsm", "anyio", "attrs", "msgspec", "structlog"} | extras


# ---------------------------------------------------------------------- the guard itself


@pytest.mark.parametrize(
    "line",
    [
        "from portfsm.manager import PortManager",
        "from portfsm import manager",
        "import portfsm.journals.file",
        "from . import _engine",
        "from .journals import file",
        "if TYPE_CHECKING:\n    from portfsm._writer import Writer",
        "def f():\n    from portfsm.clocks import SystemClock",
        "from portfsm import PortManager",
        "import portfsm",
    ],
)
def test_a_guard_that_lets_an_import_up_pass(line):
    assert len(upward("_ledger", ast.parse(line))) == 1


@pytest.mark.parametrize(
    "line", ["from portfsm._pool import Pool", "from portfsm import commands", "from .states import PortState", "import json"]
)
def test_a_guard_that_refuses_an_import_down(line):
    assert upward("_ledger", ast.parse(line)) == []


@pytest.mark.parametrize(
    "line", ["import os", "import os.path", "from time import time_ns", "def f():\n    import random", "import anyio.lowlevel"]
)
def test_a_guard_that_lets_the_world_in(line):
    assert len(impure("_ledger", ast.parse(line))) == 1


# ---------------------------------------------------------------------- sizes


def too_long(path: Path) -> dict[str, int]:
    """What of a file is longer than it may be: `lines` for all of it, and each such function."""
    text = path.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    found = {name: length for name, length in lengths if length > MAX_FUNCTION}
    return found | ({"lines": lines} if (lines := len(text.splitlines())) > MAX_FILE else {})


@pytest.mark.parametrize("module", MODULES)
def test_a_file_or_a_function_that_no_reader_holds_in_mind(module):
    assert too_long(MODULES[module]) == {}


@pytest.mark.parametrize("folder", ["benchmarks", "docs", "examples", "tests"])
def test_a_test_or_a_benchmark_that_no_reader_holds_in_mind(folder):
    files = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / folder).rglob("*.py"))}
    assert {name: found for name, path in files.items() if (found := too_long(path))} == {}


@pytest.mark.parametrize(("text", "found"), [("x\n" * 400, {}), ("x\n" * 401, {"lines": 401}), ("def f():\n" + "    x\n" * 60, {"f": 61})])
def test_a_guard_that_lets_a_long_one_pass(tmp_path, text, found):
    (tmp_path / "long.py").write_text(text)
    assert too_long(tmp_path / "long.py") == found
