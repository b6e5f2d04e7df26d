"""psycopg is an extra: whoever does not use it needs none of it, and whoever does is told what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli import story

WITHOUT = """
import sys
sys.modules["psycopg"] = None
import portfsm, portfsm.journals
try:
    {call}
except portfsm.MissingExtra as error:
    print(error.extra, error.name, error)
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], env=story.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("call", ["portfsm.read_journal(URL)", "portfsm.journals.open_journal(URL)"])
def test_a_missing_extra_is_not_named(call):
    told = run(WITHOUT.format(call=call.replace("URL", "'postgresql://u:hunter2@h/d'")))
    assert told.startswith("postgres psycopg ")
    assert 'pip install "portfsm[postgres]"' in told
    assert "hunter2" not in told


def test_psycopg_is_imported_by_who_does_not_use_it():
    assert run("import sys, portfsm, portfsm.cli._main, portfsm.testing; print('psycopg' in sys.modules)") == "False\n"


def test_the_command_line_ends_in_a_traceback_without_the_extra():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['psycopg'] = None; from portfsm.cli import main; main()", "status", "postgresql://h/d"],
        env=story.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("portfsm: a journal on postgres")
    assert "Traceback" not in done.stderr
