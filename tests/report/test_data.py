"""What the page knows is what a brute-force replay says: the ledger after each event."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfsm import JournalCorrupt, PortState, audit
from portfsm.audit import report
from portfsm.audit.report._columns import Piece
from portfsm.audit.report._condense import condensed, step_for
from portfsm.audit.report._data import Report
from portfsm.states import EventKind
from tests.audit.walks import HISTORIES, SECOND, Known, walk
from tests.report.unpack import at, data_of, lives_of, units

NAMES = ("FREE", "ALLOCATED", "QUARANTINED", "BLOCKED")
windows = st.tuples(st.integers(0, 99), st.integers(0, 99))


def drawn(found, budget=10**9) -> dict:
    return Report(found, clean=str).drawn(budget)[0]


def moments(known: Known) -> list[int]:
    """The last event of each microsecond: what the page shows at that time is what was after it."""
    following = [*known.events[1:], None]
    return [event.seq for event, after in zip(known.events, following, strict=True) if after is None or after.ts // 1000 > event.ts // 1000]


def told_state(data, lives, place, port, ns) -> str:
    span = at(lives.get((place, port), []), units(data, ns))
    return NAMES[span.state] if span else "FREE"


def check_states(data, known: Known, seqs) -> None:
    """Every port of every pool at each of these events, and who holds it."""
    lives = lives_of(data)
    for seq in seqs:
        ledger, ns = known.states[seq], known.ts(seq)
        for number, place in enumerate(data["places"]):
            if (place["node"], place["pool"]) not in ledger.pools:
                continue  # not used yet
            pool = ledger.pools[place["node"], place["pool"]]
            for port in range(99, 106):
                view = pool.view(port)
                assert told_state(data, lives, number, port, ns) == view.state.value, (seq, port)
                if view.state is PortState.ALLOCATED:
                    span = at(lives[number, port], units(data, ns))
                    assert (span.owner, span.service) == (view.owner, view.service)
                    assert span.seq in (view.token, 0 if view.token < data["window"]["first_seq"] else view.token)


@given(HISTORIES)
def test_the_map_shows_another_state_or_owner_than_a_replay(known):
    check_states(drawn(report.collect(known.events)), known, moments(known))


@given(HISTORIES, windows)
def test_a_window_shows_other_states_than_the_whole(known, part):
    first, last = sorted(1 + cut * len(known.events) // 100 for cut in part)
    since, until = audit.Moment(seq=first), audit.Moment(seq=last)
    data = drawn(report.collect(known.events, since=since, until=until))
    assert (data["window"]["first_seq"], data["window"]["last_seq"]) == (first, last)
    check_states(data, known, [seq for seq in moments(known) if first <= seq <= last])


@given(HISTORIES, st.integers(0, 99))
def test_a_window_begun_from_a_state_before_it_tells_something_else(known, part):
    first = 1 + part * len(known.events) // 100
    whole = drawn(report.collect(known.events, since=audit.Moment(seq=first)))
    near = (first - 1) // 2
    onto = known.states[near].copy()
    closed = not near or known.events[near - 1].kind is EventKind.CLOSED
    begun = drawn(report.collect(known.events[near:], since=audit.Moment(seq=first), onto=onto, closed=closed))
    for data in (whole, begun):  # of a crash before the nearest state nobody is told
        data["happenings"] = [row for row in data["happenings"] if row[2] not in ("crashed", "opened")]
    assert begun == whole


@given(HISTORIES)
def test_a_shortage_is_missed_or_invented(known):
    data = drawn(report.collect(known.events))
    names = [(place["node"], place["pool"]) for place in data["places"]]
    told = [
        (*name, since, until) for name, place in zip(names, data["places"], strict=True) for since, until in place["exhausted"]["listed"]
    ]
    expected = [
        (one.node, one.pool, units(data, one.from_ns), None if one.to_ns is None else units(data, one.to_ns))
        for one in audit.exhaustions(known.events)
    ]
    assert sorted(told, key=str) == sorted(expected, key=str)


@given(HISTORIES)
def test_a_chart_draws_another_mean_than_the_counts_of_a_replay(known):
    """Integrated over the whole window, step by step of the ledger."""
    found = report.collect(known.events)
    data = drawn(found)
    for place in data["places"]:
        for column, field in zip(place["means"], ("allocated", "quarantined", "blocked"), strict=True):
            spent = 0
            for seq in range(1, len(known.events)):
                pool = known.states[seq].pools.get((place["node"], place["pool"]))
                if pool is not None:
                    spent += getattr(pool.statistics(), field) * (known.ts(seq + 1) - known.ts(seq))
            step = data["grid"]["step"] * data["unit_us"] * 1000
            lasts = found.ends_ns - found.begins_ns
            lengths = [min(step, lasts - n * step) for n in range(data["grid"]["count"])]
            if lasts:
                told = sum(mean * length for mean, length in zip(column, lengths, strict=True))
                assert math.isclose(told, spent, rel_tol=1e-6, abs_tol=0.051 * lasts)


@given(HISTORIES)
def test_a_port_that_changed_hands_is_not_listed(known):
    found = report.collect(known.events)
    data = drawn(found)
    closest, owners = data["closest"], data["texts"]["owners"]
    told = [
        (closest["port"][n], closest["gap_us"][n], owners[closest["owner"][n]], owners[closest["next_owner"][n]])
        for n in range(len(closest["port"]))
    ]
    spans = list(audit.spans(known.events))
    expected = [(one.after.port, one.gap_ns // 1000, one.before.owner, one.after.owner) for one in audit.reuses(spans) if one.stranger]
    assert sorted(told) == sorted(expected)
    assert [gap for _, gap, *_ in told] == sorted(gap for _, gap, *_ in told)
    assert closest["total"] == len(expected)


def test_a_port_held_for_a_lost_history_is_shown_free():
    """One that was used before, one that never was; until an event of their own, or the end of the hold."""
    known = walk(
        [("a", 0, 1), ("r", 0, 1), ("t", 0, 3), ("s", 0, 0), ("t", 0, 1), ("o", 0, 0), ("t", 0, 2), ("a", 1, 1), ("t", 0, 3), ("s", 0, 0)]
    )
    data = drawn(report.collect(known.events))
    check_states(data, known, moments(known))
    lost = next(event for event in known.events if (event.data or {}).get("history") == "lost")
    assert {told_state(data, lives_of(data), 0, port, lost.ts) for port in (100, 101, 102)} == {"QUARANTINED"}


def test_an_owner_that_comes_back_is_a_stranger():
    known = walk([("a", 0, 0), ("r", 0, 0), ("t", 0, 1), ("a", 0, 0), ("r", 0, 0), ("t", 0, 3), ("s", 0, 0), ("a", 1, 0)])
    closest = drawn(report.collect(known.events))["closest"]
    assert (closest["total"], closest["gap_us"]) == (1, [11_000_000])


# ---------------------------------------------------------------------- what is drawn together


def pieces(lengths) -> list[Piece]:
    """Pieces of these lengths in seconds, their states in turn."""
    found, at_s = [], 0.0
    for n, length in enumerate(lengths):
        found.append(Piece(int(at_s * SECOND), int((at_s + length) * SECOND), (1, 2, 0)[n % 3], n + 1, n, n, n))
        at_s += length
    return found


@given(st.lists(st.sampled_from([0.0, 0.4, 1.0, 3.0, 20.0]), max_size=40), st.sampled_from([1, 2, 5]))
def test_drawing_together_loses_a_lease_or_moves_a_long_state(lengths, step_s):
    life = pieces(lengths)
    short = condensed(life, step_s * SECOND)
    assert [piece for piece in life if piece.end - piece.start >= step_s * SECOND] == [
        piece for piece in short if not piece.changes and piece.end - piece.start >= step_s * SECOND
    ]
    assert sum(piece.changes or 1 for piece in short) == len(life)
    assert sum(piece.leases if piece.changes else piece.state == 1 for piece in short) == sum(piece.state == 1 for piece in life)
    assert [piece.start for piece in short[1:]] == [piece.end for piece in short[:-1]]
    assert all(piece.end - piece.start <= 2 * step_s * SECOND for piece in short if piece.changes)


def test_a_piece_that_stands_for_several_shows_the_state_of_a_moment():
    assert condensed(pieces([0.1, 0.3, 0.1, 0.1]), SECOND)[0] == Piece(0, 600_000_000, 2, 1, 0, 0, 0, 2, 4)


def test_more_is_drawn_together_than_the_room_asks_for():
    lives = [pieces([0.5] * 60), pieces([4.0] * 60)]
    assert step_for(lives, 1.0, 10**12) == (0, 1.0)
    assert step_for(lives, 0.75, 10**12) == (2 * SECOND, 75 / 120)
    step_ns, left = step_for(lives, 0.0001, 10**10)
    assert (step_ns, left > 0.0001) == (10 * SECOND, True)  # no longer than it may be


def test_a_page_with_too_little_room_does_not_say_so():
    known = walk([("a", n % 5, n % 3) if n % 2 else ("r", n % 5, n % 3) for n in range(50)] * 4)
    found = report.collect(known.events)
    data, omitted = Report(found, clean=str).drawn(2)
    assert omitted.places + omitted.spans > 0
    assert data["omitted"] == {
        "shorter_than_ns": omitted.shorter_than_ns, "spans": omitted.spans, "places": omitted.places
    }  # fmt: skip
    assert [place["left_out"] for place in data["places"]].count(True) == omitted.places


# ---------------------------------------------------------------------- bad logs


def test_what_stands_before_damage_is_not_told():
    known = walk([("a", 0, 0), ("t", 0, 1), ("a", 1, 1)])

    def cut():
        yield from known.events[:-1]
        raise JournalCorrupt("the rest is damaged", path="x", segment="y", offset=9, seq=len(known.events))

    found = report.collect(cut())
    assert found.last_seq == len(known.events) - 1
    assert "damaged" in drawn(found)["damage"]
    check_states(drawn(found), known, [found.last_seq])


def test_an_event_that_cannot_have_happened_is_drawn():
    known = walk([("a", 0, 0), ("t", 0, 1)])
    found = report.collect([*known.events, known.events[-1]])
    assert found.damage is not None
    assert found.last_seq == len(known.events)


@pytest.mark.parametrize("events", [0, 1, 2])
def test_a_log_without_ports_breaks_the_page(events):
    found = report.collect(walk([]).events[:events])
    page, _ = report.page(found, report.Facts(title="x"))
    assert data_of(page)["places"] == []
    assert data_of(page)["window"]["events"] == events
