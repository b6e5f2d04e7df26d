"""Each check of the demo can fail: a log that is right passes, and one with a planted fault is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import portfsm
from portfsm import EventKind
from portfsm.commands import Allocate, DefinePool, Open, Release
from portfsm.demo import checks
from portfsm.demo.checks import Ack
from portfsm.demo.clients import Counts
from portfsm.events import Event
from portfsm.specs import PoolSpec

if TYPE_CHECKING:
    from pathlib import Path

S = 1_000_000_000
HOLD_S = 2.0
STRANGERS_PORT = 7


def event(
    seq: int, at_s: float, kind: EventKind, port: int = 0, service: str = "", *, token: int = 0, until_s: float = 0, cause: str = ""
) -> Event:
    owner = f"{service}-{token or seq}" if port else ""
    return Event(seq, int(at_s * S), kind, "", "http", port, owner, service, token, until=int(until_s * S), cause=cause)


def log(*events: Event) -> list[Event]:
    """A life of port 5 across a restart, then `events`."""
    return [
        event(1, 100, EventKind.OPENED),
        event(2, 100, EventKind.ALLOCATED, 5, "cart", token=2),
        event(3, 101, EventKind.RELEASED, 5, "cart", token=2, until_s=103, cause="released"),
        event(4, 102, EventKind.OPENED),
        *events,
    ]


FREED = event(5, 103, EventKind.FREED, 5, cause="elapsed")
TAKEN = event(6, 103, EventKind.ALLOCATED, 5, "users", token=6)


def ack(what: str, port: int, service: str, token: int, at_s: float = 0) -> Ack:
    return Ack(what, port, f"{service}-{token}", service, token, int(at_s * S))


ACKS = [
    ack("allocated", 5, "cart", 2, 100),
    ack("releasing", 5, "cart", 2, 101),
    ack("released", 5, "cart", 2, 101.1),
    ack("allocated", 5, "users", 6, 103.1),
]


def test_a_right_log_passes() -> None:
    events = log(FREED, TAKEN)

    assert checks.acknowledged_kept(events, ACKS).passed
    assert checks.one_holder(events).passed
    assert checks.holds_kept(events, hold_s=HOLD_S).passed
    assert checks.stopwatch_agrees(ACKS, hold_s=HOLD_S).passed


def test_holds_running_at_the_kill_are_counted() -> None:
    assert checks.holds_kept(log(FREED, TAKEN), hold_s=HOLD_S).figures == {"holds": 1, "at_kill": 1, "at_return": 1, "shortened": 0}


def test_a_hold_that_ended_while_nobody_was_in_control_ran_at_the_kill_but_not_at_the_return() -> None:
    events = [*log()[:3], event(4, 103.5, EventKind.OPENED), msgspec.structs.replace(FREED, ts=104 * S)]

    assert checks.holds_kept(events, hold_s=HOLD_S).figures == {"holds": 1, "at_kill": 1, "at_return": 0, "shortened": 0}


def test_holds_without_a_kill_are_no_proof() -> None:
    assert not checks.holds_kept([*log()[:3], FREED], hold_s=HOLD_S).passed


def test_a_lease_that_the_log_lost_is_found() -> None:
    check = checks.acknowledged_kept(log(FREED), ACKS)

    assert not check.passed
    assert "allocated 5 of users-6" in check.found


def test_a_lease_that_the_log_gives_to_another_owner_is_found() -> None:
    assert not checks.acknowledged_kept(log(FREED, TAKEN), [msgspec.structs.replace(ACKS[0], owner="somebody")]).passed


def test_a_release_that_the_log_lost_is_found() -> None:
    check = checks.acknowledged_kept(log()[:2], ACKS[:3])

    assert not check.passed
    assert "released 5" in check.found


def test_no_acknowledgement_at_all_is_no_proof() -> None:
    assert not checks.acknowledged_kept(log(FREED, TAKEN), []).passed


def test_a_port_with_two_holders_is_found() -> None:
    check = checks.one_holder(log(FREED, TAKEN, event(7, 104, EventKind.ALLOCATED, 5, "search", token=7)))

    assert not check.passed
    assert "5 given to search-7 at seq 7 while users-6 held it" in check.found


def test_the_same_number_on_another_node_is_another_port() -> None:
    other = msgspec.structs.replace(TAKEN, seq=7, token=7, node="far")

    assert checks.one_holder(log(FREED, TAKEN, other)).passed


def test_a_port_freed_early_is_found() -> None:
    check = checks.holds_kept(log(msgspec.structs.replace(FREED, ts=FREED.ts - 1_000_000)), hold_s=HOLD_S)

    assert not check.passed
    assert "5 was freed at seq 5, 0.001 s early" in check.found


def test_a_port_given_to_another_service_early_is_found() -> None:
    check = checks.holds_kept(log(event(5, 102.5, EventKind.ALLOCATED, 5, "users", token=5)), hold_s=HOLD_S)

    assert not check.passed
    assert "5 went from cart to users at seq 5, 0.500 s early" in check.found


def test_a_port_given_back_to_its_own_service_early_is_no_fault() -> None:
    back = event(5, 102.5, EventKind.ALLOCATED, 5, "cart", token=5)

    assert checks.holds_kept(log(back), hold_s=HOLD_S).passed


def test_a_release_with_a_short_hold_is_found_although_its_own_until_is_kept() -> None:
    events = [
        *log()[:2],
        event(3, 101, EventKind.RELEASED, 5, "cart", token=2, until_s=102, cause="released"),
        event(4, 102, EventKind.FREED, 5),
    ]

    assert checks.holds_kept(events, hold_s=HOLD_S).figures["shortened"] == 2


def test_a_cancelled_grant_does_not_end_the_hold_before_it() -> None:
    granted = event(5, 102.0, EventKind.ALLOCATED, 5, "cart", token=5)
    cancelled = event(6, 102.1, EventKind.RELEASED, 5, "cart", token=5, until_s=103, cause="cancelled")
    stolen = event(7, 102.5, EventKind.ALLOCATED, 5, "users", token=7)

    assert checks.holds_kept(log(granted, cancelled), hold_s=HOLD_S).passed
    assert not checks.holds_kept(log(granted, cancelled, stolen), hold_s=HOLD_S).passed


def test_a_cancelled_grant_of_a_free_port_needs_no_hold() -> None:
    granted = event(7, 104, EventKind.ALLOCATED, 6, "cart", token=7)
    cancelled = event(8, 104, EventKind.RELEASED, 6, "cart", token=7, until_s=104, cause="cancelled")

    assert checks.holds_kept(log(FREED, granted, cancelled, event(9, 104, EventKind.FREED, 6)), hold_s=HOLD_S).passed


def test_no_hold_at_all_is_no_proof() -> None:
    assert not checks.holds_kept(log()[:2], hold_s=HOLD_S).passed


def test_a_log_whose_clock_ran_fast_is_found_by_the_stopwatch() -> None:
    hasty = [*ACKS[:3], ack("allocated", 5, "users", 6, 102.9)]

    assert not checks.stopwatch_agrees(hasty, hold_s=HOLD_S).passed


@pytest.mark.parametrize(
    "kinds", [[], [EventKind.ALLOCATED, EventKind.BLOCKED, EventKind.ALLOCATED, EventKind.BLOCKED], [EventKind.ALLOCATED]]
)
def test_a_forgotten_block_is_found(kinds: list[EventKind]) -> None:
    events = [event(9 + place, 104, kind, STRANGERS_PORT, "cart", token=9) for place, kind in enumerate(kinds)]

    assert not checks.block_kept(log(*events), port=STRANGERS_PORT).passed


def test_a_block_that_lasts_passes() -> None:
    events = [
        event(9, 104, EventKind.ALLOCATED, STRANGERS_PORT, "cart", token=9),
        event(10, 104, EventKind.BLOCKED, STRANGERS_PORT, "cart", token=9),
    ]

    assert checks.block_kept(log(*events), port=STRANGERS_PORT).passed


def real_log() -> tuple[list[Event], str]:
    """A log that the library itself has decided on, and the digest of its state."""
    ledger, events = portfsm.replay([]), []
    opened = Open(1, "test", "boot", 0, S)
    for command in (opened, DefinePool(PoolSpec("http", ports="5-9", hold_s=HOLD_S)), Allocate("http", owner="cart-1", service="cart")):
        events += portfsm.decide(ledger, command, now_ns=S)
        ledger = portfsm.replay(events)
    events += portfsm.decide(ledger, Release(ledger.find("cart-1")[0]), now_ns=2 * S)
    return events, portfsm.replay(events).digest()


def test_replay_agrees_with_the_state_it_led_to() -> None:
    events, digest = real_log()

    assert checks.replay_agrees(events, seq=events[-1].seq, digest=digest).passed


def test_replay_that_leads_to_another_state_is_found() -> None:
    events, digest = real_log()

    assert not checks.replay_agrees(events, seq=events[-2].seq, digest=digest).passed


def test_replay_that_stumbles_is_reported_not_raised() -> None:
    events, digest = real_log()

    check = checks.replay_agrees([*events, msgspec.structs.replace(events[-1], seq=len(events) + 1)], seq=99, digest=digest)

    assert not check.passed
    assert "contradicts" in check.found


def test_a_controller_that_found_nobody_fails() -> None:
    back = {"seq": 10, "opening_s": 0.01, "kept": 18, "lost": 2}

    assert checks.came_back([back, back], start_s=0.2).passed
    assert not checks.came_back([back, {**back, "kept": 0}], start_s=0.2).passed
    assert not checks.came_back([back], start_s=0.2).passed


@pytest.mark.parametrize(("counts", "passed"), [(Counts(right=9), True), (Counts(right=9, wrong=1), False), (Counts(), False)])
def test_wrong_answers_with_the_hold_fail_and_so_does_silence(counts: Counts, *, passed: bool) -> None:
    assert checks.none_wrong(counts).passed is passed


def test_no_wrong_answer_without_the_hold_is_said_to_show_nothing() -> None:
    check = checks.some_wrong(Counts(right=9))

    assert not check.passed
    assert "not shown" in check.found
    assert checks.some_wrong(Counts(right=9, wrong=1)).passed


def test_a_note_cut_by_the_kill_was_never_a_note(tmp_path: Path) -> None:
    whole = msgspec.json.encode(ACKS[0]) + b"\n"
    (tmp_path / "acks").write_bytes(whole + whole[:20])

    assert checks.read_acks(tmp_path / "acks") == [ACKS[0]]


def test_the_port_to_look_at_was_held_across_the_kill() -> None:
    busy = [event(10 + place, 104, EventKind.ALLOCATED, 6, "cart", token=10 + place) for place in range(9)]

    assert checks.tell_tale_port(log(*busy), besides=STRANGERS_PORT) == 5
