"""The page in a real browser: light, dark, on paper, on a phone, with too much and with too little on it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from portfsm import PoolSpec
from tests.report.written import Log, write_page

pytestmark = pytest.mark.slow


# ---------------------------------------------------------------------- light, dark, paper, phone


def luminance(browser, script: str) -> float:
    red, green, blue = browser.run(f"return ({script}).match(/[0-9.]+/g).slice(0, 3).map(Number)")
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


GROUND, INK = "getComputedStyle(document.body).backgroundColor", "getComputedStyle(document.body).color"


def test_a_dark_room_gets_a_white_page(browser, page):
    browser.open(page, prefers_color_scheme="dark")
    assert luminance(browser, GROUND) < 0.15
    assert luminance(browser, INK) > 0.8
    dark = browser.picture()
    browser.one("#theme").click()
    browser.settle()
    assert luminance(browser, GROUND) > 0.85
    assert browser.picture() != dark


def test_paper_gets_the_dark_page_or_its_buttons(browser, page):
    browser.open(page, kind="print", prefers_color_scheme="dark")
    assert luminance(browser, GROUND) > 0.95
    assert (
        browser.run("return ['#play', '#slider', '#search', '#theme'].filter((id) => document.querySelector(id).getClientRects().length)")
        == []
    )
    assert (
        len(browser.run("return [...document.querySelectorAll('.chart svg, #map canvas')].filter((e) => e.getClientRects().length)")) == 12
    )
    import base64

    printed = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") <= 8


@pytest.mark.parametrize("width", [320, 390, 768, 1400, 2200])
def test_a_page_is_wider_than_its_screen(browser, page, width):
    browser.open(page, width=width, height=844)
    browser.search("4150")
    browser.one("#hits button").click()
    browser.settle()
    assert browser.run("return document.documentElement.scrollWidth") <= width


def contrast(one: float, other: float) -> float:
    """By the rule of WCAG, of relative luminances."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


LINEAR = """
const probe = document.createElement('i'); document.body.append(probe);
return arguments[0].map((name) => { probe.style.color = `var(${name})`; const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3)
  .map((part) => part / 255).map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]; });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_or_states_cannot_be_told_apart(browser, page, scheme):
    """Words by WCAG AA; neighbouring states by lightness alone, as somebody sees them who sees no colours."""
    browser.open(page, prefers_color_scheme=scheme)
    names = ["--ground", "--card", "--ink", "--soft", "--bad", "--good", "--accent", "--free", "--allocated", "--quarantined", "--blocked"]
    light = dict(zip(names, browser.run(LINEAR, names), strict=True))
    for words in ("--ink", "--soft", "--bad", "--good", "--accent"):
        assert contrast(light[words], light["--card"]) >= 4.5, words
        assert contrast(light[words], light["--ground"]) >= 4.5, words
    states = sorted(light[f"--{state}"] for state in ("free", "allocated", "quarantined", "blocked"))
    assert min(contrast(one, other) for one, other in pairwise(states)) >= 1.35


# ---------------------------------------------------------------------- too much, too little


def test_a_log_without_ports_breaks_the_page(browser, tmp_path):
    for number, events in enumerate(([], Log().events, Log(PoolSpec("p", ports="1-9")).events)):
        browser.open(write_page(tmp_path / f"{number}.html", events))
        assert browser.text("#alerts")
        assert browser.complaints() == []
        assert not browser.one("#ports").is_displayed()


def test_lives_drawn_together_look_like_single_ones(browser, tmp_path):
    log = Log(PoolSpec("p", ports="100-103", hold_s=0.1))
    for number in range(3000):
        log.hold(f"replica-{number}", 0.3, service=f"s{number % 3}")
        log.wait(0.2)
    browser.open(write_page(tmp_path / "small.html", log.events, limit_bytes=150_000))
    assert (tmp_path / "small.html").stat().st_size < 150_000
    assert "draws together what lasted less than" in browser.text("#alerts")
    browser.search("100")
    browser.one("#hits button").click()
    browser.settle()
    assert "drawn together" in browser.text("#port")
    assert "leases" in browser.text(".steps .who")
    assert browser.complaints() == []


def test_a_large_log_is_read_as_nothing(browser, tmp_path):
    """Deflated data: above the size up to which the page carries them as they are."""
    log = Log(PoolSpec("p", ports="100-999", hold_s=0.1))
    for number in range(9000):
        log.hold(f"replica-{number:020d}", 0.3, service=f"s{number % 3}")
        log.wait(0.2)
    path = write_page(tmp_path / "large.html", log.events)
    assert b"application/zlib;base64" in path.read_bytes()
    browser.open(path)
    browser.search("replica-00000000000000000042")
    browser.one("#hits button").click()
    browser.settle()
    assert "replica-00000000000000000042" in browser.text(".steps .here")
    assert browser.complaints() == []


def test_so_many_ports_that_the_map_is_all_there_is(browser, tmp_path):
    log = Log(PoolSpec("p", ports="10000-39999", hold_s=1.0))
    for number in range(120):
        log.hold(f"r-{number}", 1, node=f"node-{number % 20:02d}", service="s")
    browser.open(write_page(tmp_path / "wide.html", log.events))
    assert len(browser.all(".strips button")) == 20
    assert len(browser.all("#map canvas")) == 1
    browser.all(".strips button")[7].click()
    browser.settle()
    assert "node-07" in browser.text("#map .place")
    assert browser.complaints() == []
