"""Pages and examples are code too: what they show must be so."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.witnesses.real import binary

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_the_readme_shows_another_machine_than_the_code() -> None:
    """The table and the diagram are made from TRANSITIONS; a hand on either would lie."""
    outcome = subprocess.run([sys.executable, ROOT / "docs/regenerate.py", "--check"], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout


def test_a_page_that_lags_behind_the_code_goes_unnoticed() -> None:
    regenerate = runpy.run_path(str(ROOT / "docs/regenerate.py"))
    page = (ROOT / "README.md").read_text()
    forged = page.replace("| **BLOCKED** | – |", "| **BLOCKED** | FREE |")
    assert forged != page
    assert regenerate["regenerated"](forged) == page


def test_the_readmes_program_does_not_run(tmp_path: Path) -> None:
    program = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    outcome = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("30000\n")
    assert (tmp_path / "ports-log" / "LOCK").exists()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_does_not_run(example: Path, tmp_path: Path) -> None:
    if "haproxy" in example.stem:
        binary()
    outcome = subprocess.run([sys.executable, example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout


def test_the_picture_of_the_demo_shows_what_the_demo_no_longer_prints() -> None:
    record = runpy.run_path(str(ROOT / "docs/record_demo.py"))
    counts = {"right": 900, "wrong": 12, "failed": 0, "example": "", "failure": ""}
    sides = [{"name": name, "seq": 9, "counts": counts, "wrong_by_second": [12]} for name in ("no-evidence", "evidence")]
    lines = [
        {"kind": "note", "text": "8 ports"},
        {"kind": "progress", "at_s": 1.0, "of_s": 1.0, "sides": sides},
        {"kind": "check", "name": "shown", "passed": True, "found": "12 wrong", "figures": {}},
        {"kind": "result", "passed": True, "log": "demo/evidence", "took_s": 1.0, "next": ["portfsm status demo/evidence"]},
    ]
    drawn = (ROOT / "docs/demo-haproxy.svg").read_text()
    for part in (
        "without&#160;evidence",
        "answers&#160;from&#160;WRONG&#160;service",
        "starts&#160;per&#160;second",
        "portfsm&#160;status",
    ):
        assert part in record["picture"]([json.dumps(line).encode() for line in lines])
        assert part in drawn
    assert str(ROOT) not in drawn


def test_the_readme_begins_without_guarantees_or_commands() -> None:
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "Guaranteed:" in head
    assert "Not guaranteed:" in head
    assert "portfsm demo" in head
    assert "-m pytest" in head
