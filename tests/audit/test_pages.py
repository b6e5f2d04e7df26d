"""What docs/audit.md shows is so: its programs run, and the commands it names are there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from portfsm import PoolSpec, open_manager
from portfsm.cli._main import run
from portfsm.testing import ManualClock
from tests.cli import story

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = sorted(
    {line for pair in re.findall(r"`(portfsm [^`]+)`|^(portfsm .*)$", PAGE, re.MULTILINE) for line in pair if "ports-log" in line}
)
LIVE = ("portfsm top", "--follow", "HEAD")
"""What does not end by itself, or needs a head."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A log in which two replicas had port 30007 around the time of the page."""
    monkeypatch.chdir(tmp_path)
    clock = ManualClock(start_ns=1_785_592_980_000_000_000)  # 2026-08-01T14:03:00Z

    async def live() -> None:
        async with open_manager("ports-log", pools=[PoolSpec("http", ports="30000-30009", hold_s=5)], clock=clock) as manager:
            for owner in ("replica-1", "replica-2"):
                await manager.release(await manager.allocate("http", owner=owner, port=30007))
                clock.advance(6)

    anyio.run(live)
    return tmp_path


def test_a_program_of_the_page_does_not_run(here):
    assert len(PROGRAMS) == 2
    outcome = subprocess.run(
        [sys.executable, "-c", "\n".join(PROGRAMS)], cwd=here, env=story.environment(), capture_output=True, text=True, check=False
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.mark.parametrize("command", [command for command in COMMANDS if not any(word in command for word in LIVE)])
def test_a_command_of_the_page_is_refused(here, command, capsys):
    assert run(shlex.split(command)[1:]) == 0, capsys.readouterr().err


def test_the_page_names_too_few_commands_to_be_tested():
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("name", ["audit-who.svg", "audit-top.svg"])
def test_a_picture_shows_what_the_commands_no_longer_print(name):
    """`python docs/record_audit.py` draws them anew. What is compared is their text: how it is drawn is rich's affair."""
    script = "import json, runpy; print(json.dumps(runpy.run_path('docs/record_audit.py')['pictures']()))"
    outcome = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=story.environment(), capture_output=True, text=True, check=True)
    made, kept = json.loads(outcome.stdout)[name], (ROOT / "docs" / name).read_text()
    assert re.findall(r"<text[^>]*>([^<]*)</text>", made) == re.findall(r"<text[^>]*>([^<]*)</text>", kept)
