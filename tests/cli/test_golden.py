"""What the commands print, to the character. `python -m tests.cli.test_golden --write` writes it anew: then read it."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli import story

GOLDEN = Path(__file__).parent / "golden"
WHOLE = [
    ["status", "ports-log"],
    ["log", "ports-log"],
    ["history", "ports-log", "30000", "--node", "node-a"],
    ["history", "ports-log", "30000", "--node", "node-b"],
    ["explain", "ports-log", "30000", "--node", "node-a"],
    ["explain", "ports-log", "30000", "--node", "node-b"],
    ["explain", "ports-log", "31500"],
    ["explain", "ports-log", "30000"],
    ["verify", "ports-log"],
    ["head", "ports-log"],
    ["repair", "ports-log"],
]
DAMAGED = [
    ["status", "damaged-log"],
    ["log", "damaged-log", "-n", "2"],
    ["verify", "damaged-log"],
    ["head", "damaged-log"],
    ["repair", "damaged-log"],
]
VIEWS = {"pipe": 0, "80-columns": 80, "160-columns": 160}
HEAD = re.compile(r"[0-9a-f]{32}:[0-9]+:[0-9a-f]{64}$")
COLOURED = [["status", "ports-log"], ["log", "ports-log", "-n", "3"], ["verify", "ports-log"], ["verify", "damaged-log"]]


def pages(cwd: Path) -> dict[str, str]:
    """File name to content."""
    found = {f"{view}.txt": story.transcript(cwd, WHOLE + DAMAGED, columns=columns) for view, columns in VIEWS.items()}
    return found | {"colours.txt": story.transcript(cwd, COLOURED, columns=80, colour=True)}


def prepare(cwd: Path) -> None:
    for name in ("ports-log", "damaged-log"):
        story.write(cwd / name)
    story.damage(cwd / "damaged-log")


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> dict[str, str]:
    cwd = tmp_path_factory.mktemp("golden")
    prepare(cwd)
    return pages(cwd)


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_change_of_what_people_read_goes_unseen(printed, name):
    assert printed[name] == (GOLDEN / name).read_text()


@pytest.mark.parametrize(("view", "columns"), [(view, columns) for view, columns in VIEWS.items() if columns])
def test_a_line_is_wider_than_the_terminal(printed, view, columns):
    wide = [line for line in printed[f"{view}.txt"].splitlines() if len(line) > columns]
    assert [line for line in wide if not HEAD.search(line)] == []  # a head is not broken: it is there to be copied


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.cli.test_golden --write")
    with tempfile.TemporaryDirectory() as directory:
        prepare(Path(directory))
        for name, text in pages(Path(directory)).items():
            (GOLDEN / name).write_text(text)
