"""One sentence for each way to stand: why the port is not free, since when, by whom, until when, and which call would free it."""

from __future__ import annotations

import re

import pytest

from portfsm import Event, EventKind, open_manager
from portfsm._explain import explain
from portfsm._ledger import apply
from portfsm._rejections import utc
from portfsm.commands import Adopt, Block, Free, Hold, Join, Open, Release, Sweep, Unblock, Withdraw
from portfsm.errors import PortOutOfRange, UnknownPool

SECOND = 1_000_000_000
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def said(world, port=100, *, node="") -> str:
    """The sentence, after what holds for every one of them."""
    before = world.ledger.digest()
    text = explain(world.ledger, "p", port, node=node, now_ns=world.now)
    view = world.ledger.port("p", port, node=node)
    assert world.ledger.digest() == before, "asking changes nothing"
    assert f"port {port} of pool 'p'" in text
    assert f"is {view.state.value}" in text
    assert text.isprintable()
    assert text.endswith(".")
    assert text.count(". ") == 0, "one sentence"
    assert view.since is None or f"since {utc(view.since)}" in text
    assert "None" not in text
    return text


def holds(text: str, *parts: str) -> None:
    """The parts, in this order."""
    place = 0
    for part in parts:
        assert part in text[place:], f"{part!r} is missing, or stands too early, in {text!r}"
        place = text.index(part, place) + len(part)


# ---------------------------------------------------------------------- FREE


def test_a_free_port_that_seems_to_have_a_past(world):
    text = said(world)
    holds(text, "FREE", "never used")
    assert not TIME.search(text)


def test_a_free_port_whose_past_is_forgotten(world):
    last, _ = world.put("FREE")
    holds(said(world), "FREE", f"since {utc(world.now)}", f"last lease was {last.token}")


def test_a_lease_made_up_for_a_port_that_never_had_one(world):
    world.do(Hold("p", 100, hold_s=5))
    world.do(Free("p", 100, reason="done"))
    text = said(world)
    assert "since" in text
    assert "lease" not in text


# ---------------------------------------------------------------------- ALLOCATED


@pytest.mark.parametrize("service", ["", "checkout"])
def test_a_holder_that_is_not_named(world, service):
    lease = world.allocate("r1", service=service, node="n1")
    text = said(world, node="n1")
    holds(text, "on node 'n1'", "ALLOCATED to 'r1'", f"lease {lease.token}", "release(lease)", "ends it")
    assert ("service 'checkout'" in text) is bool(service)
    assert "on node" not in said(world)


@pytest.mark.parametrize(
    ("before", "flag"),
    [
        (None, None),
        ("quarantined", "adopted although it was quarantined for s1"),
        ("blocked", "adopted although it was blocked: nginx sits on it"),
        ("outside", "adopted although it is outside the range 100-103"),
    ],
)
def test_an_adoption_against_the_rules_that_looks_like_any_other(world, before, flag):
    port = 200 if before == "outside" else 100
    if before == "quarantined":
        world.release(world.allocate("former", service="s1"))
    elif before == "blocked":
        world.do(Block("p", 100, reason="nginx sits on it"))
    world.do(Adopt("p", port, owner="r1", service="s2"))
    text = said(world, port)
    holds(text, "ALLOCATED to 'r1'", flag or "lease", "release(lease)")
    assert ("adopted" in text) is bool(flag)


# ---------------------------------------------------------------------- QUARANTINED


def test_a_quarantine_whose_end_is_a_secret(world):
    world.release(world.allocate("r1", service="checkout"))
    end = world.now + 10 * SECOND
    world.pass_time(4)
    holds(
        said(world), "QUARANTINED", "after 'r1' (service 'checkout') held it", f", until {utc(end)} (6.0 s left)",
        "only owner 'r1' or service 'checkout' gets it", "free() ends it now",
    )  # fmt: skip


def test_an_end_of_the_quarantine_that_reads_like_the_end_of_the_lease(world):
    """`held it until ...` would say that the former owner still has it."""
    world.release(world.allocate("r1"))
    assert "held it until" not in said(world)


@pytest.mark.parametrize(
    ("seconds", "left"), [(10, "10.0 s left"), (600, "10.0 min left"), (36_000, "10.0 h left"), (864_000, "10.0 days left")]
)
def test_a_hold_of_days_counted_in_seconds(world, seconds, left):
    world.do(Hold("p", 100, hold_s=seconds))
    assert f"({left})" in said(world)


@pytest.mark.parametrize("late", [0, 30, 7200])
def test_a_quarantine_that_is_over_and_seems_to_last_for_ever(world, late):
    """Nothing needs to be done: the sentence says who notices it, and no longer whom it is kept for."""
    world.release(world.allocate("r1", service="checkout"))
    world.pass_time(10 + late)
    text = said(world)
    holds(text, "QUARANTINED", "after 'r1'", "its hold ended", "ago", "allocate() or sweep() frees it")
    assert "left" not in text
    assert "only" not in text


@pytest.mark.parametrize(("cause", "why"), [("expired", "expired"), ("reconciled", "reconciled"), ("released", None)])
def test_a_lease_that_ended_by_itself_and_seems_released(world, cause, why):
    world.do(Release(world.allocate("r1"), cause=cause))
    assert (f"({why})" in said(world)) is bool(why)


@pytest.mark.parametrize(("reason", "why"), [("checking the cable", "checking the cable"), ("", "operator")])
def test_a_hold_by_hand_that_does_not_say_so(world, reason, why):
    world.do(Hold("p", 100, hold_s=60, reason=reason))
    text = said(world)
    holds(text, "QUARANTINED", f"({why})", f", until {utc(world.now + 60 * SECOND)}", "free() ends it now")
    assert "held it" not in text, "nobody did"
    assert "only" not in text


def test_a_lengthened_hold_that_forgets_who_was_there(world):
    world.release(world.allocate("r1"))
    world.do(Hold("p", 100, hold_s=600, reason="slow proxy"))
    holds(said(world), "after 'r1' held it", "(slow proxy)", f", until {utc(world.now + 600 * SECOND)}", "only owner 'r1'")


@pytest.mark.parametrize("held", [False, True])
def test_a_quarantine_after_a_block_without_its_cause(world, held):
    if held:
        world.allocate("r1")
    world.do(Block("p", 100, reason="broken"))
    world.pass_time(5)
    world.do(Unblock("p", 100, reason="mended"))
    text = said(world)
    holds(text, "QUARANTINED", "(mended)", f", until {utc(world.now + 10 * SECOND)}", "free()")
    assert ("after 'r1' held it" in text) is held


def test_a_block_that_ran_out_and_seems_to_be_somebodys_release(world):
    world.do(Block("p", 100, reason="broken", for_s=5))
    world.pass_time(5)
    world.do(Sweep())
    holds(said(world), "QUARANTINED", "(unblocked)", f", until {utc(world.now + 10 * SECOND)}")


def test_a_hold_that_started_over_without_telling_why(world):
    world.release(world.allocate("r1"))
    world.do(Open(1, "me", "boot 1", 1, 1))
    world.pass_time(9)
    world.do(Open(2, "me", "boot 2", 1, 1))
    holds(said(world), "after 'r1' held it", "(the machine restarted", f", until {utc(world.now + 10 * SECOND)} (10.0 s left)")


# ---------------------------------------------------------------------- BLOCKED


def test_a_block_for_ever_that_waits_for_its_end(world):
    world.do(Block("p", 100, reason="nginx sits on it"))
    world.pass_time(10_000)
    text = said(world)
    holds(text, "BLOCKED", "until somebody unblocks it", "because: nginx sits on it", "unblock() ends it", "full hold")
    assert len(TIME.findall(text)) == 1, "no end is made up"


def test_a_block_with_an_end_that_seems_to_need_a_hand(world):
    world.do(Block("p", 100, reason="broken", for_s=60))
    end = world.now + 60 * SECOND
    holds(said(world), "BLOCKED", f"until {utc(end)} (60.0 s left)", "because: broken", "unblock() ends it")
    world.pass_time(100)
    text = said(world)
    holds(text, "BLOCKED", f"until {utc(end)} (40.0 s ago, not yet noticed)", "broken", "allocate() or sweep() ends it")
    assert "unblock()" not in text


def test_a_block_that_hides_whose_lease_it_ended(world):
    lease = world.allocate("r1", service="checkout")
    world.release(lease, block="[Errno 98] address already in use", for_s=5)
    holds(said(world), "BLOCKED", "after 'r1' (service 'checkout') held it", "address already in use")


def test_a_hold_announced_in_a_pool_that_has_none(empty):
    empty.define(hold_s=0.0)
    empty.do(Block("p", 100, reason="broken"))
    assert "hold" not in said(empty)


# ---------------------------------------------------------------------- outside the ranges


@pytest.mark.parametrize("state", ["ALLOCATED", "QUARANTINED", "BLOCKED"])
def test_a_port_on_its_way_out_that_seems_to_come_back(world, state):
    world.put(state)
    world.define(ports="101-103")
    holds(said(world), state, "ends it", "outside the present ranges 101-103", "leaves the pool once freed")


def test_a_port_that_is_gone_explained_as_free(world):
    world.put("FREE")
    world.define(ports="101-103")
    for port in (100, 104, 65_535):
        with pytest.raises(PortOutOfRange, match="101-103"):
            said(world, port)
    with pytest.raises(UnknownPool):
        explain(world.ledger, "q", 100, now_ns=world.now)


# ---------------------------------------------------------------------- what others wrote


def test_a_forged_reason_that_takes_over_the_terminal(world):
    """No call records such a text, and whoever writes a log by hand does not ask the calls."""
    reason = "x\x1b[2J\n\u202e\u2028\x9by"
    apply(world.ledger, Event(world.ledger.seq + 1, world.now, EventKind.BLOCKED, pool="p", port=100, reason=reason))
    holds(said(world), r"because: x\x1b[2J\n\u202e\u2028\x9by")


@pytest.mark.anyio
async def test_a_manager_that_explains_what_is_not_durable_or_reads_another_clock(log, clock, pool):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        await manager.release(await manager.allocate("http", owner="r1", node="n1"))
        clock.advance(4)
        holds(manager.explain("http", 30_000, node="n1"), "port 30000 of pool 'http' on node 'n1'", "after 'r1' held it", "(6.0 s left)")
        clock.advance(60)
        holds(manager.explain("http", 30_000, node="n1"), "its hold ended 54.0 s ago")
        assert "never used" in manager.explain("http", 30_000)


def test_a_port_that_waits_for_proxies_is_promised_to_the_next_call(world):
    world.do(Join("edge-1"))
    lease = world.allocate("a", service="s")
    world.release(lease)
    assert "evidence of every proxy (edge-1) ends it earlier" in explain(world.ledger, "p", lease.port, now_ns=world.now)
    world.pass_time(20)
    told = explain(world.ledger, "p", lease.port, now_ns=world.now)
    assert "waits until every proxy has let go: edge-1" in told
    assert "next allocate()" not in told


def test_a_port_that_drains_looks_like_any_other(world):
    lease = world.allocate("a")
    assert "withdrawn" not in explain(world.ledger, "p", lease.port, now_ns=world.now)
    world.do(Withdraw(lease))
    assert "withdrawn from the proxies" in explain(world.ledger, "p", lease.port, now_ns=world.now)
