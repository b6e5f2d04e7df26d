"""A pager on a terminal: the user's, only there, colours and width as without it, and whatever is to be said comes after it."""

from __future__ import annotations

import sys

import pytest

from tests.cli import story

PAGER = """#!{python}
import sys, termios
text = sys.stdin.read()
print("PAGED", len(text.splitlines()), max(map(len, text.splitlines())), "\\x1b[" in text)
open({seen!r}, "w").write(text)
"""
QUITTER = "#!/bin/sh\nhead -n 2 >/dev/null\necho SEEN ENOUGH\n"


@pytest.fixture
def log(tmp_path):
    story.write(tmp_path / "ports-log")
    return tmp_path / "ports-log"


def pager(log, text: str) -> str:
    path = log.parent / "pager"
    path.write_text(text.format(python=sys.executable, seen=str(log.parent / "seen")) if "{" in text else text)
    path.chmod(0o755)
    return str(path)


def shown(log, *arguments: str, **environment: str) -> tuple[int, str]:
    program = [sys.executable, "-m", "portfsm", *arguments]
    with story.Terminal(program, cwd=log.parent, columns=100, env=story.environment(**environment)) as terminal:
        seen = terminal.rest()
        return terminal.process.returncode, seen


@pytest.mark.parametrize(
    "command",
    [("log", "ports-log"), ("status", "ports-log"), ("history", "ports-log", "31500"), ("diff", "ports-log", "--from", "@3")],
    ids=" ".join,
)
def test_a_long_answer_runs_off_the_screen(log, command):
    code, seen = shown(log, *command, PAGER=pager(log, PAGER))
    assert code == 0
    assert seen.startswith("PAGED"), "nothing else is on the screen"
    assert seen.split()[3] == "True", "in colour"
    plain = shown(log, *command)[1]
    assert (log.parent / "seen").read_text().split("+")[0] == plain.split("+")[0], (
        "the same to the character, until the present is mentioned"
    )


def test_no_colour_is_coloured_in_a_pager(log):
    code, seen = shown(log, "log", "ports-log", PAGER=pager(log, PAGER), NO_COLOR="1")
    assert (code, seen.split()[3]) == (0, "False")


@pytest.mark.parametrize(
    "command",
    [("log", "ports-log", "--json"), ("head", "ports-log"), ("explain", "ports-log", "31500"), ("log", "ports-log", "--json", "-n", "1")],
    ids=" ".join,
)
def test_one_line_or_json_waits_in_a_pager(log, command):
    assert "PAGED" not in shown(log, *command, PAGER=pager(log, PAGER))[1]


def test_who_has_seen_enough_is_told_of_a_broken_pipe(log):
    code, seen = shown(log, "log", "ports-log", PAGER=pager(log, QUITTER))
    assert code == 0
    assert seen.strip() == "SEEN ENOUGH"


def test_damage_is_told_behind_the_pagers_back(log):
    story.damage(log)
    code, seen = shown(log, "log", "ports-log", PAGER=pager(log, PAGER))
    assert code == 1
    assert seen.index("PAGED") < seen.index("is damaged at byte")


@pytest.mark.parametrize("value", ["", "cat", "no-such-pager-anywhere"])
def test_a_missing_pager_keeps_the_answer_back(log, value):
    code, seen = shown(log, "log", "ports-log", PAGER=value)
    assert code == 0
    assert "legacy-batch" in seen
