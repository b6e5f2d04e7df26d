"""What SECURITY.md says of the code itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import portfsm
from portfsm.errors import InvalidValue
from portfsm.journals import open_journal, read_journal

PACKAGE = Path(portfsm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NEVER_IMPORTED = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def dangers(tree):
    """What a file uses that turns bytes into code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in NEVER_IMPORTED)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in NEVER_IMPORTED:
            yield node.module
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in NEVER_CALLED:
                yield ast.unparse(node.func)
            yield from ("shell=True" for word in node.keywords if word.arg == "shell" and ast.unparse(word.value) != "False")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_log_or_a_name_is_executed(path):
    assert list(dangers(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize("code", ["import pickle", "from marshal import loads", "eval(x)", "subprocess.run(x, shell=True)", "os.system(x)"])
def test_the_search_for_dangers_finds_none_anywhere(code):
    assert len(list(dangers(ast.parse(code)))) == 1


@pytest.mark.parametrize("use", [open_journal, read_journal])
@pytest.mark.parametrize("url", ["postgresql://me:hunter2@db:port/ports", "postgres://me:hunter2@db/x?lgo=y", "redis://me:hunter2@host/0"])
def test_a_password_in_a_url_is_shown(use, url):
    with pytest.raises(InvalidValue) as refused:
        use(url)
    assert "hunter2" not in f"{refused.value} {refused.value!r} {vars(refused.value)}"
