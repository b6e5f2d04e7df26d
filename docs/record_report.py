"""Take the pictures of docs/report.md: `python -m docs.record_report` makes the page of docs/report_story.py and looks at it with Chromium.

Needs Debian's chromium and chromium-driver, and selenium.
"""

from __future__ import annotations

import base64
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.report.browser import chromium, media, resize

ROOT = Path(__file__).resolve().parent.parent
WIDE, NARROW = (1400, 1000), (390, 844)
PICTURES = {
    "report-light.png": (WIDE, "light"),
    "report-dark.png": (WIDE, "dark"),
    "report-phone-light.png": (NARROW, "light"),
    "report-phone-dark.png": (NARROW, "dark"),
}
SCENE = """
const slide = (part) => { const s = document.getElementById("slider"); s.value = s.max * part; s.dispatchEvent(new Event("input")); };
const square = [...document.querySelectorAll("#map canvas")][1], box = square.getBoundingClientRect();
square.dispatchEvent(new MouseEvent("click", { clientX: box.left + 60, clientY: box.top + 12 }));
slide(0.6877);
window.scrollTo(0, 0);
"""
"""In the middle of the shortage, with the life of one of the ports that were not to be had."""


READY = """
const done = arguments[0], wait = () => document.documentElement.dataset.ready ? setTimeout(done, 300) : setTimeout(wait, 20);
wait();
"""


def main() -> None:
    """Make the page, take the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        runpy.run_path(str(ROOT / "docs/report_story.py"))["write"](Path(folder, "ports-log"))
        command = [sys.executable, "-m", "portfsm", "report", "ports-log", "-o", "report.html"]
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)  # noqa: S603
        for name, (size, scheme) in PICTURES.items():
            (ROOT / "docs" / name).write_bytes(picture(Path(folder), size, scheme))
            sys.stdout.write(f"docs/{name} taken\n")


def picture(folder: Path, size: tuple[int, int], scheme: str) -> bytes:
    """The page as it stands in a window of that size; on a phone two screens of it."""
    width, height = size
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as driver:
        media(driver, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        resize(driver, width, height)
        driver.get((folder / "report.html").as_uri())
        _settle(driver)
        driver.execute_script(SCENE)
        _settle(driver)
        clip = {"x": 0, "y": 0, "width": width, "height": 1480 if width > NARROW[0] else 2 * height, "scale": 1}
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
    return base64.b64decode(taken["data"])


def _settle(driver: Any) -> None:
    """Ready, and drawn."""
    driver.execute_async_script(READY)


if __name__ == "__main__":
    main()
