"""A question that makes no sense is refused with the value in the message; events that cannot have happened are not answered from."""

from __future__ import annotations

import math

import msgspec
import pytest

from portfsm import audit
from portfsm.audit import Moment
from portfsm.errors import InvalidValue, JournalCorrupt
from tests.audit.walks import walk

KNOWN = walk([("a", 0, 0), ("a", 1, 1), ("t", 0, 1), ("r", 0, 0)])


@pytest.mark.parametrize("given", [{}, {"ts": 1, "seq": 1}])
def test_a_moment_that_is_none_or_two(given):
    with pytest.raises(InvalidValue, match="one of the two"):
        Moment(**given)


@pytest.mark.parametrize("within_s", [-1, -0.001, math.nan, math.inf, 1e10])
def test_a_length_of_time_that_is_none(within_s):
    with pytest.raises(InvalidValue, match="within_s must be seconds"):
        audit.who(KNOWN.events, "p", 100, at=Moment(seq=1), within_s=within_s)


@pytest.mark.parametrize("within_s", [0, 5])
def test_a_moment_beyond_the_log_is_answered_by_its_end(within_s):
    beyond = len(KNOWN.events) + 1
    with pytest.raises(InvalidValue, match=f"@{beyond}"):
        audit.who(KNOWN.events, "p", 100, at=Moment(seq=beyond), within_s=within_s)
    with pytest.raises(InvalidValue, match=f"@{beyond}"):
        audit.state_at(KNOWN.events, Moment(seq=beyond))


def test_events_that_cannot_have_happened_are_answered_from():
    """A lease in the middle is missing, or one event says another owner."""
    gap = KNOWN.events[:3] + KNOWN.events[4:]
    lie = [msgspec.structs.replace(event, owner="liar") if event.kind == "released" else event for event in KNOWN.events]
    for events in (gap, lie):
        with pytest.raises(JournalCorrupt):
            audit.state_at(events, Moment(seq=len(KNOWN.events)))
        with pytest.raises(JournalCorrupt):
            list(audit.exhaustions(events))
        with pytest.raises(JournalCorrupt):
            list(audit.spans(audit.Replay().checked(events)))


def test_what_stood_before_the_lie_is_withheld():
    lie = [msgspec.structs.replace(event, owner="liar") if event.kind == "released" else event for event in KNOWN.events]
    seen = []
    with pytest.raises(JournalCorrupt):
        for event in audit.Replay().checked(lie):
            seen.append(event)  # noqa: PERF402
    assert seen == [event for event in KNOWN.events if event.seq < next(event.seq for event in lie if event.owner == "liar")]


def test_nothing_at_all_is_something():
    assert list(audit.spans([])) == list(audit.exhaustions([])) == list(audit.reuses([])) == []
    assert audit.who([], "p", 100, at=Moment(ts=5)) == audit.life([], "p", 100) == ()
    assert audit.diff(audit.state_at([], Moment(ts=1)), audit.state_at([], Moment(seq=0))) == ()
