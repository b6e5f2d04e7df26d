"""A page in a browser, looked at and handled."""

from __future__ import annotations

import json
import time
from pathlib import Path

from selenium.webdriver.common.by import By

from tests.report import browser

WAITS_S = 10


class Browser:
    """A page, looked at and handled."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page: Path, *, width=1400, height=1000, **media) -> Browser:
        browser.media(self.driver, prefers_reduced_motion="reduce", **media)
        browser.resize(self.driver, width, height)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(page.as_uri())
        return self.wait("document.documentElement.dataset.ready === 'yes'")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> Browser:
        ends = time.monotonic() + WAITS_S
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < ends, f"never so: {condition}; console: {self.driver.get_log('browser')}"
        return self

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def settle(self) -> None:
        """Two frames: what was asked for is drawn."""
        self.driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))")

    def slide(self, part: float) -> None:
        """Move the slider to this part of its way."""
        self.run("const s = document.getElementById('slider'); s.value = s.max * arguments[0]; s.dispatchEvent(new Event('input'))", part)
        self.settle()

    def legend(self) -> dict[str, int]:
        """State to count, as the page says."""
        return self.run(
            "return Object.fromEntries([...document.querySelectorAll('#legend li')].map((li) => [li.lastChild.textContent, Number(li.querySelector('b').textContent.replaceAll(',', ''))]))"
        )

    def picture(self) -> str:
        """Every map's pixels."""
        return self.run("return [...document.querySelectorAll('#map canvas')].map((canvas) => canvas.toDataURL()).join()")

    def search(self, text: str) -> None:
        field = self.one("#search")
        field.clear()
        field.send_keys(text)
        self.wait(f"document.getElementById('hits').dataset.found === {json.dumps(text)}").settle()

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """What the page asked for, but itself."""
        sent = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in sent if each["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:"))]
