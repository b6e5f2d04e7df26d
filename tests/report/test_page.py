"""The page in a real browser: what a person does with it."""

from __future__ import annotations

import pytest

from tests.report.written import BEGINS, SECOND

pytestmark = pytest.mark.slow

Keys = pytest.importorskip("selenium.webdriver.common.keys", reason="selenium is not installed: pip install selenium").Keys


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
