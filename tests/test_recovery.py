"""The decision table: torn or corrupt, for every combination of facts."""

import itertools

import pytest

from portfsm._recovery import RULES, Facts, Place, Tail, Verdict, decide

BOOLEANS = (False, True)
EVERY = [
    Facts(*combination[:3], later=combination[3], oversize=combination[4])
    for combination in itertools.product(Place, BOOLEANS, Tail, BOOLEANS, BOOLEANS)
]


@pytest.mark.parametrize("facts", EVERY, ids=str)
def test_two_rules_or_none_match(facts):
    """Every combination of facts has exactly one row."""
    assert [rule.matches(facts) for rule in RULES].count(True) == 1


def test_a_rule_is_never_used():
    """Each row decides something."""
    used = {decide(facts).why for facts in EVERY}
    assert used == {rule.why for rule in RULES}


def test_something_else_than_the_last_unsealed_write_is_cut():
    """TORN, the only verdict that drops bytes, is given to one combination of place, seal and evidence alone."""
    torn = [facts for facts in EVERY if decide(facts).verdict is Verdict.TORN]
    assert torn
    for facts in torn:
        assert (facts.place, facts.sealed, facts.later, facts.oversize) == (Place.LAST, False, False, False)
        assert facts.tail in {Tail.INCOMPLETE, Tail.UNPROVEN}


def test_damage_is_called_clean():
    """CLEAN is said only when nothing lies behind the good bytes, and of an earlier segment only when it is sealed."""
    for facts in EVERY:
        if decide(facts).verdict is Verdict.CLEAN:
            assert facts.tail is Tail.EMPTY
            assert facts.sealed or facts.place is Place.LAST


def test_a_clean_segment_is_refused():
    """The everyday cases open: sealed anywhere, unsealed at the end."""
    for place, sealed in ((Place.LAST, True), (Place.LAST, False), (Place.EARLIER, True)):
        assert decide(Facts(place, sealed, Tail.EMPTY)).verdict is Verdict.CLEAN
