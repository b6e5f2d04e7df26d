"""Controllers that share a log, as part of the suite: a quick run, the long one, and proof that it notices."""

from __future__ import annotations

import re

import pytest

from tests.simulation.broken import SHARED
from tests.simulation.many import explain, many, some
from tests.simulation.story import tell

HAPPENED = """
    took the lead|lead was lost|lead was given up|kill|machine restarted|left
    partition|process paused|machine suspended|stale leader was asked|leader slept and still leads
    stopped before its answer was heard
    append: question lost|append: answer lost|append: late|sign of life: question lost|sign of life: answer lost|sign of life: late
    take-over: question lost|take-over: answer lost|take-over: late|giving up: question lost|giving up: answer lost|giving up: late
    what was late arrived|server answers nobody|server takes no writes|server fails over to its stand-by|server is full
    server's clock step|wall clock step|events lost before anybody was told|opened from a snapshot
    allocate Fenced|allocate OutcomeUnknown|allocate JournalUnreadable|allocate JournalFull|renew Fenced|release Fenced
    controller ended by Fenced|controller ended by OutcomeUnknown|controller ended by JournalUnreadable
    history lost|event held lost|survivor adopted|leads what is gone
    event held reboot|event released expired|event freed evidence|event freed elapsed|event proxy_joined|waiter was served|answered twice
"""


def test_a_promise_is_broken_where_the_log_is_shared():
    """In this process: what else runs meanwhile has the other cores."""
    *_, hits, failures = some(0, 60, 200, {"shared": True}, "")
    assert not failures, explain(failures[0][0], 200, shared=True)
    never = [what for line in HAPPENED.strip().splitlines() for what in line.strip().split("|") if not hits[what]]
    assert not never


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_promise_is_broken_once_in_three_hundred_stories_of_a_shared_log(times):
    found = many(60, 300 * times, 200, shared=True)
    assert not found.failures, explain(found.failures[0][0], 200, shared=True)
    assert found.hits["lead was lost"] > 1000


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHARED)
def test_a_safeguard_of_the_shared_log_is_off_and_nobody_notices(name):
    _, promise, said = many(0, 200, 200, name=name, enough=1, chunk=2, shared=True).failures[0]
    assert not re.search(r"\b(Attribute|Name|Type)Error\b", f"{promise} {said}"), "what is broken here is the break"


def test_a_failing_seed_of_a_shared_log_does_not_say_how_to_see_it_again():
    with SHARED["a_refusal_is_not_heard"]():
        failing = next(seed for seed in range(20) if tell(seed, shared=True).failure)
    text = explain(failing, 200, name="a_refusal_is_not_heard", shared=True)
    assert f"python -m tests.simulation --seed {failing} --steps 200 --shared --broken a_refusal_is_not_heard" in text
    assert int(text.split(" steps are enough")[0].rsplit("\n", 1)[1]) < 60
