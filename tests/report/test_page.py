"""The page in a real browser: what a person does with it, and what a hostile name does to it."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from portfsm import Allocate, Block, DefinePool, Ledger, Open, PoolSpec, Release, Sweep, decide
from portfsm._ledger import apply_all
from portfsm.audit import report
from portfsm.cli._text import neutral

pytestmark = pytest.mark.slow

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed: pip install selenium").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

SECOND = 1_000_000_000
BEGINS = 1_785_592_800 * SECOND
WAITS_S = 10


class Browser:
    """A page, looked at and handled."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page: Path, *, width=1400, height=1000, **media) -> Browser:
        from tests.report import browser

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


@pytest.fixture
def browser(driver):
    return Browser(driver)


@pytest.fixture
def opened(browser, page):
    return browser.open(page)


def write_page(path: Path, events, title="a log", **options) -> Path:
    found = report.collect(events)
    page, _ = report.page(found, report.Facts(title=title, made_ns=BEGINS, passed=True, verdict="it holds"), clean=neutral, **options)
    path.write_bytes(page)
    return path


class Log:
    """Events by the library's own rules, with a clock by hand."""

    def __init__(self, *specs: PoolSpec):
        self.ledger, self.events, self.now = Ledger(), [], BEGINS
        self.do(Open(1, "h", "boot", 1, self.now))
        for spec in specs:
            self.do(DefinePool(spec))

    def do(self, command):
        events = decide(self.ledger, command, now_ns=self.now)
        if events:
            apply_all(self.ledger, events)
        self.events += events
        return events

    def hold(self, owner, seconds, *, service="", node="", port=None):
        self.do(Allocate("p", owner=owner, service=service, node=node, port=port))
        lease = next(iter(self.ledger.find(owner)))
        self.now += int(seconds * SECOND)
        self.do(Release(lease))

    def wait(self, seconds):
        self.now += int(seconds * SECOND)
        self.do(Sweep())


# ---------------------------------------------------------------------- time


def test_the_slider_moves_no_map(opened):
    before, states = opened.picture(), opened.legend()
    opened.slide(0.3)
    assert opened.picture() != before
    assert opened.legend() != states
    assert opened.text("#now").split()[-1] == "14:13:47"


def test_the_map_shows_other_counts_than_the_log(opened, story):
    """At a moment in the shortage, against the library's own answer."""
    from portfsm import audit, read_journal

    at_ns = BEGINS + 32 * 60 * SECOND
    ledger = audit.state_at(read_journal(str(story)), audit.Moment(ts=at_ns))
    began, ended = BEGINS, audit.state_at(read_journal(str(story)), audit.Moment(ts=at_ns * 2)).ts
    opened.slide((at_ns - began) / (ended - began))
    counts = [pool.statistics() for pool in ledger.select()]
    shown = opened.legend()
    for name in ("free", "allocated", "quarantined", "blocked"):
        assert abs(shown[name.upper()] - sum(getattr(one, name) for one in counts)) <= 2, name  # the slider has steps of 1.4 s


def test_play_stands_still_or_never_ends(opened):
    opened.slide(0)
    opened.run("document.getElementById('speed').value = 10")
    opened.one("#play").click()
    opened.wait("Number(document.getElementById('slider').value) > 100")
    assert opened.one("#play").get_attribute("aria-pressed") == "true"
    opened.one("#play").click()
    opened.settle()
    stopped = opened.run("return document.getElementById('slider').value")
    opened.settle()
    assert opened.run("return document.getElementById('slider').value") == stopped
    opened.slide(0.985)
    opened.one("#play").click()
    opened.wait("document.getElementById('play').getAttribute('aria-pressed') === 'false'")
    assert opened.run("const s = document.getElementById('slider'); return s.value === s.max")


def test_a_change_is_passed_over_step_by_step(opened):
    opened.slide(0)
    times = []
    for _ in range(6):
        opened.one("#forth").click()
        opened.settle()
        times.append(opened.text("#now").split()[-1])
    assert times == sorted(set(times))
    opened.one("#back").click()
    opened.settle()
    assert opened.text("#now").split()[-1] == times[-2]


def test_a_press_on_a_chart_goes_nowhere(opened):
    opened.run("const svg = document.querySelector('.chart svg'), box = svg.getBoundingClientRect();"
               "const at = { clientX: box.left + box.width / 2, clientY: box.top + 40, pointerId: 1, bubbles: true };"
               "svg.setPointerCapture = () => {}; svg.dispatchEvent(new PointerEvent('pointerdown', at)); svg.dispatchEvent(new PointerEvent('pointerup', at))")  # fmt: skip
    opened.settle()
    assert opened.text("#now").split()[-1].startswith("14:2")


# ---------------------------------------------------------------------- a port's life


def test_a_click_opens_another_port_than_the_one_under_it(opened):
    canvas = opened.one("#map canvas")
    opened.run("arguments[0].scrollIntoView({ block: 'center' })", canvas)
    from selenium.webdriver import ActionChains

    # The second square of the second row: rows begin at round numbers.
    box = canvas.size
    cell = opened.run("return [...document.querySelectorAll('#map canvas')].map((c) => c.clientWidth)[0]")
    side = (cell - 46 - 2) / 10
    ActionChains(opened.driver).move_to_element_with_offset(
        canvas, int(-box["width"] / 2 + 47 + side * 1.5), int(-box["height"] / 2 + 1 + side * 1.5)
    ).click().perform()
    opened.settle()
    assert opened.text("#port .headline b") == "52011"
    assert "batch · node-a" in opened.text("#port .headline")
    assert opened.text("#tip").startswith("52011")


def test_a_life_differs_from_the_history_of_the_port(opened, story):
    from portfsm import audit, read_journal

    spans = list(audit.life(read_journal(str(story)), "grpc", 41501, node="node-a"))
    opened.search("41501")
    opened.one("#hits button").click()
    opened.settle()
    states = [item.text.split("\n")[0] for item in opened.all(".steps li .who")]
    assert states == [span.owner if span.state.value == "ALLOCATED" else span.state.value for span in spans]
    assert "reserved for the load test, ask dana" in opened.text(".steps")
    assert opened.text(".steps .for") == "26 min 00 s"


def test_the_keyboard_reaches_no_port(opened):
    opened.run("document.querySelector('#map canvas').scrollIntoView({ block: 'center' })")
    opened.run("document.querySelector('#map canvas').focus()")
    canvas = opened.one("#map canvas")
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    opened.settle()
    assert opened.text("#said").startswith("52011 batch · node-a")
    canvas.send_keys(Keys.ENTER)
    opened.settle()
    assert opened.text("#port .headline b") == "52011"
    canvas.send_keys(Keys.END)
    opened.settle()
    assert opened.text("#said").startswith("52023")


def test_tab_skips_a_control_or_is_caught(opened):
    reached = []
    for _ in range(60):
        opened.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(
            opened.run("const e = document.activeElement; return e.id || e.className || e.getAttribute('aria-label') || e.tagName")
        )
        ring = opened.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none" or reached[-1] in ("life", "BODY"), reached[-1]
    controls = [one for one in reached if one in ("theme", "play", "slider", "speed", "pool", "node")]
    assert controls[:6] == ["theme", "play", "slider", "speed", "pool", "node"]
    assert len({one for one in reached if "ports. Arrow keys" in one}) == 9
    assert "search" in reached
    assert "least" in reached


# ---------------------------------------------------------------------- search


def test_an_owner_cannot_be_found(opened, story):
    from portfsm import audit, read_journal

    span = next(span for span in audit.spans(read_journal(str(story))) if span.service == "ledger" and span.to_ns)
    opened.search(span.owner)
    opened.one("#hits button").click()
    opened.settle()
    assert opened.text("#port .headline b") == str(span.port)
    assert span.node in opened.text("#port .headline")
    assert span.owner in opened.text(".steps .here")


def test_a_service_is_found_without_its_leases(opened, story):
    from portfsm import audit, read_journal

    leases = {span.token for span in audit.held_by(list(audit.spans(read_journal(str(story)))), service="ledger")}
    before = opened.picture()
    opened.search("ledg")
    assert f"{len(leases)} leases" in opened.text("#hits")
    next(button for button in opened.all("#hits button") if button.text.startswith("ledger\n")).click()
    opened.settle()
    assert opened.picture() != before  # ringed on the map, the others faded
    assert len(opened.all("#hits li li")) == min(100, len(leases))


def test_nothing_found_says_nothing(opened):
    opened.search("no such owner")
    assert "Nothing here is called" in opened.text("#hits")


# ---------------------------------------------------------------------- findings


def test_a_port_that_changed_service_too_soon_goes_unseen(browser, tmp_path):
    log = Log(PoolSpec("p", ports="100-101", hold_s=2.0))
    log.hold("a-1", 5, service="a", port=100)
    log.wait(3)
    log.hold("b-1", 5, service="b", port=100)
    log.wait(30)
    log.hold("b-2", 5, service="b", port=100)  # the same service: nobody is misled
    log.wait(9)
    log.hold("c-1", 5, service="c", port=100)
    browser.open(write_page(tmp_path / "reuse.html", log.events))
    assert "None. The closest of 2 changes of hands came after 3.0 s" in browser.text("#reuse-said")
    field = browser.one("#least")
    field.clear()
    field.send_keys("5")
    assert browser.text("#reuse-said") == "1 of 2 changes of hands."
    assert [cell.text for cell in browser.all("#reuse-list td")][:2] == ["3.0 s", "100\np"]
    field.clear()
    field.send_keys("1")
    browser.run("const u = document.getElementById('unit'); u.value = '60'; u.dispatchEvent(new Event('input', { bubbles: true }))")
    assert browser.text("#reuse-said") == "2 of 2 changes of hands."
    browser.one("#reuse-list button").click()
    browser.settle()
    assert browser.text("#port .headline b") == "100"
    assert "b-1" in browser.text(".steps .here")


def test_a_shortage_is_not_marked(opened):
    assert "no port free on node-b" in opened.run("return document.querySelector('.chart svg').textContent")
    assert "episodes" in opened.text("#exhaustion-said")
    opened.one("#exhaustion-list button.link").click()
    opened.settle()
    assert "no port free" in opened.run("return document.getElementById('map').innerText")


def test_a_crash_or_the_head_is_kept_from_the_reader(opened, story):
    from portfsm.journals._inspect import head_at

    assert "opened again after a crash" in opened.text("#happenings-list")
    assert "crash" in opened.run("return document.querySelector('.chart svg').textContent")
    assert str(head_at(str(story))) in opened.text("#facts")
    assert opened.text("#verdict") == "The log holds"
    assert [cell.text for cell in opened.all("#checks td:nth-child(2)")] == ["bytes", "tail", "steps", "snapshot"]


# ---------------------------------------------------------------------- what the page must not do


def test_the_page_asks_the_network_or_complains(opened):
    opened.slide(0.4)
    opened.search("checkout")
    opened.one("#theme").click()
    opened.settle()
    assert opened.requests() == []
    assert opened.complaints() == []


HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<!--<script>",
    '"><svg onload=window.hacked=1>',
    "%%script%% &lt; \\u003c `${window.hacked = 1}`",
    "\u202egnp.exe",
    "=1+1",
    "日本語 العربية",
    "__proto__",
]


def test_a_name_becomes_a_script(browser, tmp_path):
    log = Log(PoolSpec("p", ports="100-120", hold_s=1.0))
    for number, text in enumerate(HOSTILE):
        # Past the API, which refuses some of these: a log can be forged.
        opened, *_ = log.do(Allocate("p", owner=f"owner-{number}", service="s", node="n"))
        event = type(opened)(
            **{field: getattr(opened, field) for field in opened.__struct_fields__} | {"owner": text, "service": text + " "}
        )
        log.events[-1] = event
    log.do(Block("p", 119, node="n", reason=HOSTILE[0]))
    browser.open(write_page(tmp_path / "hostile.html", log.events, title=HOSTILE[0]))
    assert HOSTILE[0] in browser.driver.title
    for text in HOSTILE:
        browser.search(neutral(text)[:12])
        assert neutral(text) in browser.text("#hits"), text
        browser.one("#hits button").click()
        browser.settle()
    browser.search("119")
    browser.one("#hits button").click()
    browser.settle()
    assert HOSTILE[0] in browser.text(".steps")
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.querySelectorAll('script').length") == 2
    assert browser.complaints() == []
    assert browser.requests() == []


def test_the_policy_lets_a_script_or_a_request_through(opened):
    """What it forbids, tried from inside."""
    opened.run("const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s)")
    opened.run(
        "const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i); fetch('http://127.0.0.1:9/').catch(() => { window.refused = 1 })"
    )
    opened.wait("window.refused === 1")
    assert opened.run("return window.hacked") is None
    assert any("Content Security Policy" in message for message in opened.complaints())


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


def test_damage_is_not_the_first_thing_said(browser, damaged):
    from tests.report.conftest import report as run

    done = run("ports-log", "-o", "r.html", cwd=damaged.parent)
    assert done.returncode == 1
    browser.open(damaged.parent / "r.html")
    assert "This page ends where the log is damaged" in browser.text("#alerts .bad")
    assert browser.text("#verdict") == "The log is damaged"
    assert "✗ failed" in browser.text("#checks")
