"""What the commands print, to the character. `python -m tests.cli.test_golden --write` writes it anew: then read it."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import pytest
from rich.cells import cell_len

from portfsm.cli._text import fold
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
    ["who", "ports-log", "30000", "--node", "node-a", "--at", "2026-08-01T00:00:14Z"],
    ["who", "ports-log", "30000", "--node", "node-b", "--at", "@9", "--within", "100"],
    ["who", "ports-log", "30007", "--node", "node-a", "--at", "2026-08-02T00:00:00Z"],
    ["diff", "ports-log", "--from", "2026-07-31T23:59:00Z", "--to", "@17"],
    ["verify", "ports-log"],
    ["head", "ports-log"],
    ["repair", "ports-log"],
]
DAMAGED = [
    ["status", "damaged-log"],
    ["log", "damaged-log", "-n", "2"],
    ["who", "damaged-log", "30000", "--node", "node-a", "--at", "@6"],
    ["verify", "damaged-log"],
    ["head", "damaged-log"],
    ["repair", "damaged-log"],
]
RAW = [
    ["who", "ports-log", "30000", "--node", "node-a", "--at", "@16", "--within", "90", "--json"],
    ["diff", "ports-log", "--from", "@6", "--to", "@9", "--json"],
    ["export", "ports-log", "--to", "csv"],
    ["export", "ports-log", "--to", "cloudevents"],
    ["who", "damaged-log", "30000", "--node", "node-a", "--at", "@6", "--json"],
    ["export", "damaged-log", "--to", "csv"],
]
"""For programs: lines of any length."""
VIEWS = {"pipe": 0, "80-columns": 80, "160-columns": 160}
HEAD = re.compile(r"[0-9a-f]{32}:[0-9]+:[0-9a-f]{64}$")
COLOURED = [
    ["who", "ports-log", "30000", "--node", "node-b", "--at", "@9", "--within", "100"], ["diff", "ports-log", "--from", "@6", "--to", "@17"],
    ["status", "ports-log"], ["log", "ports-log", "-n", "3"], ["verify", "ports-log"], ["verify", "damaged-log"],
]  # fmt: skip


def pages(cwd: Path) -> dict[str, str]:
    """File name to content."""
    found = {f"{view}.txt": story.transcript(cwd, WHOLE + DAMAGED, columns=columns) for view, columns in VIEWS.items()}
    found["for-programs.txt"] = story.transcript(cwd, RAW)
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


@pytest.mark.parametrize("name", [*(f"{view}.txt" for view in VIEWS), "for-programs.txt", "colours.txt"])
def test_a_change_of_what_people_read_goes_unseen(printed, name):
    assert printed[name] == (GOLDEN / name).read_text()


@pytest.mark.parametrize(("view", "columns"), [(view, columns) for view, columns in VIEWS.items() if columns])
def test_a_line_is_wider_than_the_terminal(printed, view, columns):
    wide = [line for line in printed[f"{view}.txt"].splitlines() if len(line) > columns]
    assert [line for line in wide if not HEAD.search(line)] == []  # a head is not broken: it is there to be copied


@pytest.mark.parametrize("width", [20, 37, 80])
@pytest.mark.parametrize("text", ["30000-30001," * 20 + "31000", "a  b " * 40, "checkout#Cart#8kq2xv " * 9, "顧客管理 " * 30, ""])
def test_a_number_is_broken_in_two_or_lost(text, width):
    lines = fold(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert max(map(cell_len, lines)) <= width
    assert all(line.endswith(",") or "," not in text for line in lines[:-1])


@pytest.mark.parametrize("text", ["path/" * 30, "メンテナンス" * 20, "x " + "y" * 99 + " z"])
def test_a_long_word_leaves_its_column_or_cannot_be_copied(text):
    longest = max(text.split(), key=len)
    assert longest in fold(text, 24)
    assert max(cell_len(line) for line in fold(text, 24, whole=False)) <= 24
    assert "".join(fold(text, 24, whole=False)).replace(" ", "") == text.replace(" ", "")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.cli.test_golden --write")
    with tempfile.TemporaryDirectory() as directory:
        prepare(Path(directory))
        for name, text in pages(Path(directory)).items():
            (GOLDEN / name).write_text(text)
