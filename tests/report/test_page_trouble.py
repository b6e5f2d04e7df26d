"""The page in a real browser: what it says of trouble, and what a hostile name does to it."""

from __future__ import annotations

import pytest

from portfsm import Allocate, Block, PoolSpec
from portfsm.cli._text import neutral
from tests.report.written import Log, write_page

pytestmark = pytest.mark.slow


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


def test_damage_is_not_the_first_thing_said(browser, damaged):
    from tests.report.conftest import report as run

    done = run("ports-log", "-o", "r.html", cwd=damaged.parent)
    assert done.returncode == 1
    browser.open(damaged.parent / "r.html")
    assert "This page ends where the log is damaged" in browser.text("#alerts .bad")
    assert browser.text("#verdict") == "The log is damaged"
    assert "✗ failed" in browser.text("#checks")


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
