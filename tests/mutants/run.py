"""One mutant: a copy of package and tests in a directory of its own, one text replaced, the tests that should notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import portfsm

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(portfsm.__file__).resolve().parent
"""Beside the tests in a checkout, elsewhere when a wheel is tested."""
COPIED = ("tests", "docs", "examples")
FILES = ("pyproject.toml", "README.md")
PLACE = "PORTFSM_MUTANT"
"""Names the copy that the tests must import; `where` looks."""
LIMIT_S = 150
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_PASSED, _FAILURES = 0, 1


class Verdict(NamedTuple):
    """What became of one mutant. `killer` is the test that failed; without one, `fault` says why there is none."""

    name: str
    killer: str
    fault: str
    seconds: float


def stale(mutant):
    """How often the text to be replaced occurs, if that is not once; else None."""
    count = (PACKAGE / mutant.file).read_text().count(mutant.old)
    return None if count == 1 else count


def copied(place):
    """The tree under `place`, without what runs leave behind."""
    rubbish = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")
    shutil.copytree(PACKAGE, place / "portfsm", ignore=rubbish)
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=rubbish)
    for name in FILES:
        shutil.copy(ROOT / name, place / name)


def tests_in(place, tests):
    """pytest on the copy: its exit status and what it printed."""
    options = ("-x", "-q", "--tb=no", "-rfE", "-p", "tests.mutants.where", "-p", "no:cacheprovider", "-m", "not slow")
    environment = {**os.environ, "PYTHONPATH": str(place), PLACE: str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", *options, *tests]
    try:
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def judge(mutant):
    """Run the tests of one mutant; those that fail must pass on the untouched copy."""
    started = time.monotonic()
    killer, fault = "", ""
    count = stale(mutant)
    if count is not None:
        fault = f"STALE: the text occurs {count} times in {mutant.file}"
    else:
        with TemporaryDirectory(prefix="mutant-") as folder:
            killer, fault = _killer(mutant, Path(folder).resolve())
    return Verdict(mutant.name, killer, fault, time.monotonic() - started)


def _killer(mutant, place):
    copied(place)
    file = place / "portfsm" / mutant.file
    source = file.read_text()
    file.write_text(source.replace(mutant.old, mutant.new))
    status, said = tests_in(place, mutant.tests)
    if status == _PASSED:
        return "", "SURVIVED"
    failed = _FAILED.search(said)
    if status != _FAILURES or failed is None:
        return "", "BROKEN: " + ("no end in sight" if status is None else said.strip().rpartition("\n")[2][:120])
    file.write_text(source)
    status, said = tests_in(place, [failed[1]])
    return (failed[1], "") if status == _PASSED else ("", f"BROKEN: {failed[1]} fails without the mutant, too")
