"""Pages for a real browser: of the story, and of whatever a test writes."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def story(tmp_path_factory) -> Path:
    """The log of docs/report_story.py."""
    path = tmp_path_factory.mktemp("story") / "ports-log"
    runpy.run_path(str(ROOT / "docs/report_story.py"))["write"](path)
    return path


def report(*arguments, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """`portfsm report` as somebody calls it."""
    command = [sys.executable, "-m", "portfsm", "report", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)


@pytest.fixture(scope="session")
def page(story) -> Path:
    """The page of the whole story."""
    done = report("ports-log", "-o", "report.html", cwd=story.parent)
    assert done.returncode == 0, done.stderr
    return story.parent / "report.html"


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """One browser for all; each test opens its page anew."""
    pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
    from tests.report.browser import chromium, missing

    if lacks := missing():
        pytest.skip(f"no {lacks} here: a page can only be tested in a browser (Debian: apt-get install chromium chromium-driver)")
    os.environ.setdefault("SE_OFFLINE", "true")
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def browser(driver):
    """The browser, as a test handles it."""
    from tests.report.looking import Browser

    return Browser(driver)


@pytest.fixture
def opened(browser, page):
    """The page of the whole story in it."""
    return browser.open(page)


@pytest.fixture
def damaged(story, tmp_path) -> Path:
    """The story with a byte flipped in its first segment."""
    path = tmp_path / "ports-log"
    shutil.copytree(story, path)
    segment = min(path.glob("0*.jsonl"))
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    return path
