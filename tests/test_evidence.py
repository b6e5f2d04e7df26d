"""The rules of evidence on their own: whatever is asked and answered in whatever order, CLEAR is never taken for another question's."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from portfsm import Event, EventKind, Evidence, Verdict
from portfsm._evidence import Cases, Place

PLACE = Place("", "p", 1)
KINDS = {
    "w": EventKind.WITHDRAWN, "r": EventKind.RELEASED, "h": EventKind.HELD, "u": EventKind.UNBLOCKED,
    "a": EventKind.ALLOCATED, "d": EventKind.ADOPTED, "f": EventKind.FREED, "b": EventKind.BLOCKED,
}  # fmt: skip


def event(seq, kind, port=1):
    return Event(seq, seq * 10, KINDS[kind], "", "p", port)


def answer(since, verdict="CLEAR", *, proxy="x", incarnation="1", generation=None):
    return Evidence(proxy, incarnation, since, Verdict[verdict], generation, "because", 0, 0)


def complete(cases, required=("x",), bounds=None, now=0):
    case = cases.open.get(PLACE)
    return case is not None and cases.is_complete(case, required, {"x": None, "y": None} if bounds is None else bounds, now)


def opened(kind="r", seq=5):
    cases = Cases()
    cases.take_events([event(seq, kind)])
    return cases


def test_an_empty_all_is_evidence():
    cases = opened()
    assert not complete(cases, required=())
    cases.take_answer(PLACE, answer(5))
    assert not complete(cases, required=())
    assert complete(cases)


def test_a_proxy_without_a_witness_has_let_go():
    cases = opened()
    cases.take_answer(PLACE, answer(5))
    assert not complete(cases, bounds={})
    assert not complete(cases, required=("x", "gone"))


@pytest.mark.parametrize("since", [4, 6])
def test_an_answer_to_another_question_counts(since):
    cases = opened()
    cases.take_answer(PLACE, answer(since))
    assert not complete(cases)


def test_a_later_word_does_not_take_back_an_earlier_one():
    cases = opened()
    cases.take_answer(PLACE, answer(5))
    cases.take_answer(PLACE, answer(5, "HELD"))
    assert not complete(cases)


@pytest.mark.parametrize(("before", "after", "void"), [(("1", 7), ("1", 7), False), (("1", 7), ("1", 8), False), (("1", 7), ("1", 6), True),
                                                       (("1", 7), ("2", 9), True), (("1", None), ("1", None), False)])  # fmt: skip
def test_what_a_proxy_said_before_it_changed_stands(before, after, void):
    cases = opened()
    cases.take_events([event(6, "r", 2)])
    cases.take_answer(PLACE, answer(5, incarnation=before[0], generation=before[1]))
    cases.take_answer(Place("", "p", 2), answer(6, "HELD", incarnation=after[0], generation=after[1]))
    assert complete(cases) is not void


def test_silence_makes_a_proxy_another_one():
    cases = opened()
    cases.take_events([event(6, "r", 2)])
    cases.take_answer(PLACE, answer(5, generation=7))
    cases.take_answer(Place("", "p", 2), answer(6, "UNKNOWN", incarnation="", generation=None))
    assert complete(cases)


@pytest.mark.parametrize(("word", "now", "clear"), [(None, 29, False), (None, 30, True), ("UNKNOWN", 30, True), ("HELD", 10**6, False)])
def test_time_counts_for_an_answer(word, now, clear):
    cases = opened(seq=5)
    if word:
        cases.take_answer(PLACE, answer(5, word))
    assert complete(cases, bounds={"x": 30}, now=50 + now * 10**9) is clear


@pytest.mark.parametrize("kind", "adfb")
def test_a_case_outlives_its_port(kind):
    cases = opened()
    cases.take_events([event(6, kind)])
    assert not cases.open


def test_what_was_answered_since_the_withdrawal_is_asked_again_at_the_release():
    cases = opened("w")
    cases.take_answer(PLACE, answer(5))
    assert not cases.take_events([event(6, "r")])
    assert complete(cases)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(st.sampled_from("wrhuadfb"), st.tuples(st.sampled_from("xy"), st.integers(0, 12), st.sampled_from(["CLEAR", "HELD", "UNKNOWN"]))), max_size=30))  # fmt: skip
def test_an_order_of_events_and_answers_that_frees_too_early(steps):
    """Complete means: since the case began, both proxies' last heard word about this very case is CLEAR."""
    cases, seq, since, said = Cases(), 0, None, {}
    for step in steps:
        if isinstance(step, str):
            seq += 1
            cases.take_events([event(seq, step)])
            if step in "adfb":
                since, said = None, {}
            elif step in "wu" or since is None:
                since, said = seq, {}
        else:
            proxy, about, verdict = step
            cases.take_answer(PLACE, answer(about, verdict, proxy=proxy))
            if about == since:
                said[proxy] = verdict
        assert complete(cases, ("x", "y")) is (said.get("x") == said.get("y") == "CLEAR")
