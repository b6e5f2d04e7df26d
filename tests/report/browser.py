"""A real browser without a window: Debian's Chromium, driven through its driver. Asks nothing of any network."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def missing() -> str:
    """What there is not, of what a browser needs; empty when it is all there."""
    return ", ".join(program for program in ("chromium", "chromedriver") if shutil.which(program) is None)


@contextlib.contextmanager
def chromium(profile: Path, *, width: int = 1400, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own, that logs what its console says and what its network is asked for."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (*QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        resize(driver, width, height)
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    """The size of the page itself, whatever the window has around it."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def media(driver: webdriver.Chrome, *, kind: str = "", **features: str) -> None:
    """Print, dark, less motion: `media(driver, kind="print")`, `media(driver, prefers_color_scheme="dark")`."""
    listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": listed})
