"""Each rule of the judge, broken once: a judge that lets everything pass finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from portfsm import Event

from . import model
from .rules import Contract

SECOND = 1_000_000_000


def pool(ports="1-4", hold_s=10.0, floor_s=1.0, **policy):
    return "pool_defined", {"ports": ports, "hold_s": hold_s, "floor_s": floor_s, **policy}


def opened(boot="b", **data):
    return "opened", {"boot": boot, **data}


JOIN = "proxy_joined", {"proxy": "edge"}
PRESSED = pool(on_pressure="free-earliest", held_max=0.5)


def log(*told):
    """Events, and when each was decided: `kind cause port owner/service [fields]`, journal events, and seconds that pass between them."""
    now, seq, tokens = 0, 0, {}
    for each in told:
        if isinstance(each, int | float):
            now += round(each * SECOND)
            continue
        seq, kind, fields = seq + 1, each[0], {}
        if isinstance(each[1], dict):
            fields = {"data": each[1], "pool": "p" if kind == "pool_defined" else ""}
        else:
            _, cause, port, who, *more = each
            owner, _, service = who.partition("/")
            tokens[port] = seq if kind in ("allocated", "adopted") else tokens.get(port, 0)
            fields = {"pool": "p", "port": port, "owner": owner, "service": service, "token": tokens[port], "cause": cause}
            fields |= more[0] if more else {}
            if "until_s" in fields:
                fields["until"] = now + round(fields.pop("until_s") * SECOND)
        yield Event(seq=seq, ts=now, kind=kind, **fields), now


def judged(*told):
    judge = Contract()
    for event, now in log(*told):
        judge.take(event, now)
    return judge


GIVEN = "allocated", "", 1, "a/x"
RELEASED = "released", "released", 1, "a/x"
HELD = GIVEN, RELEASED
BLOCKED = "blocked", "operator", 1, "", {"until_s": 5}
TO_B = "allocated", "", 1, "b/y"

ALLOWED = [
    (pool(), *HELD, 10, ("freed", "elapsed", 1, ""), TO_B),
    (pool(), *HELD, ("allocated", "", 1, "b/x")),
    (pool(), JOIN, *HELD, 1, ("freed", "evidence", 1, ""), TO_B),
    (pool(on_silence="free"), JOIN, *HELD, 10, ("freed", "elapsed", 1, "")),
    (pool(), *HELD, ("freed", "operator", 1, "")),
    (pool(), BLOCKED, 5, ("unblocked", "elapsed", 1, ""), 10, ("freed", "elapsed", 1, "")),
    (opened(), pool(), *HELD, 10, opened("c"), ("freed", "elapsed", 1, "")),
    (opened(), pool(), opened(history="lost"), ("held", "lost", 1, "", {"until_s": 10}), ("adopted", "", 1, "a/x"), RELEASED, GIVEN),
    (opened(), pool(), opened("c", history="lost"), 10, ("pool_defined", pool()[1] | {"history": "kept"}), GIVEN),
]

REFUSED = {
    "allocated while ALLOCATED of a/x": (pool(), GIVEN, TO_B),
    "allocated while QUARANTINED of a/x": (pool(), *HELD, 20, TO_B),
    "allocated while BLOCKED": (pool(), BLOCKED, GIVEN),
    "allocated while FREE": (pool("2-4"), GIVEN),
    "withdrawn while ALLOCATED": (pool(), GIVEN, ("withdrawn", "", 1, "a/x"), ("withdrawn", "", 1, "a/x")),
    "released while FREE": (pool(), RELEASED),
    "freed while ALLOCATED": (pool(), GIVEN, ("freed", "operator", 1, "")),
    "unblocked while FREE": (pool(), ("unblocked", "operator", 1, "")),
    "held while BLOCKED": (pool(), BLOCKED, ("held", "operator", 1, "")),
    "the token of another lease": (pool(), GIVEN, ("released", "released", 1, "a/x", {"token": 1})),
    "the token of another lease ": (pool(), ("allocated", "", 1, "a/x", {"token": 1})),
    "its owner holds another port": (pool(), GIVEN, ("allocated", "", 2, "a/x")),
    "freed before its time": (pool(), *HELD, 9.9, ("freed", "elapsed", 1, "")),
    "freed before its time ": (pool(), *HELD, 5, ("held", "operator", 1, "", {"hold_ms": 6000}), 5.5, ("freed", "elapsed", 1, "")),
    "freed before its time  ": (opened(), pool(), *HELD, 9, opened("c"), ("freed", "elapsed", 1, "")),
    "unblocked before its time": (pool(), BLOCKED, 4, ("unblocked", "elapsed", 1, "")),
    "unblocked before its time ": (pool(), ("blocked", "operator", 1, ""), 400, ("unblocked", "elapsed", 1, "")),
    "freed for 'reboot'": (pool(), *HELD, 20, ("freed", "reboot", 1, "")),
    "released for ''": (pool(), GIVEN, ("released", "", 1, "a/x")),
    "freed by evidence of nobody": (pool(), *HELD, 5, ("freed", "evidence", 1, "")),
    "freed by evidence before its floor": (pool(), JOIN, *HELD, 0.9, ("freed", "evidence", 1, "")),
    "freed by evidence before its floor ": (
        (pool(), JOIN, *HELD, 2, ("held", "operator", 1, "", {"hold_ms": 1500}), 1, ("freed", "evidence", 1, ""))
    ),
    "freed by time, and proxies are required": (pool(), JOIN, *HELD, 20, ("freed", "elapsed", 1, "")),
    "freed by time, and proxies are required ": (
        (pool(), JOIN, *HELD, GIVEN, ("released", "cancelled", 1, "a/x"), 20, ("freed", "elapsed", 1, ""))
    ),
    "its history was lost": (opened(), pool(), opened("c", history="lost"), GIVEN),
    "its history was lost ": (opened(), opened(history="lost"), pool(), GIVEN),
    "given back, and in what was lost": (
        opened(),
        pool(),
        *HELD,
        opened(history="lost"),
        ("held", "lost", 1, "a/x", {"until_s": 10}),
        GIVEN,
    ),
    "given back, and in what was lost ": (
        (opened(), pool(), JOIN, *HELD, opened(history="lost"), ("held", "lost", 1, "a/x", {"until_s": 10}), 20, GIVEN)
    ),
    "the hold after a loss ended too early": (
        (opened(), pool(), opened(history="lost"), 9, ("pool_defined", pool()[1] | {"history": "kept"}))
    ),
    "a hold after a loss was shortened": (opened(), pool(), opened(history="lost"), ("held", "lost", 1, "", {"until_s": 9})),
    "a service has more than its hard quota": (pool(quotas={"x": {"hard": 1}}), GIVEN, ("allocated", "", 2, "b/x")),
    "what others are owed was given": (pool("1-2", quotas={"y": {"soft": 2}}), GIVEN),
    "a hold was cut off without need or leave": (PRESSED, *HELD, 5, ("freed", "pressure", 1, "")),
    "a hold was cut off that proxies end": (
        (PRESSED, JOIN, *[each for n in (1, 2, 3) for each in (("allocated", "", n, f"{n}/x"), ("released", "released", n, f"{n}/x"))])
        + (5, ("freed", "pressure", 1, ""))
    ),
}


@pytest.mark.parametrize("told", ALLOWED)
def test_the_judge_refuses_what_the_contract_allows(told):
    judged(*told)


@pytest.mark.parametrize("broken", REFUSED)
def test_the_judge_lets_pass_what_the_contract_forbids(broken):
    *before, last = REFUSED[broken]
    judged(*before)
    with pytest.raises(AssertionError, match=broken.strip()):
        judged(*before, last)


def test_the_judge_overlooks_a_gap():
    judge = judged(pool())
    with pytest.raises(AssertionError, match="gap"):
        judge.take(Event(seq=3, ts=0, kind="closed"), 0)


def test_a_reference_that_nobody_reads_at_one_glance():
    """Sixty lines, so that whoever has read the contract sees that they say the same."""
    assert len(Path(model.__file__).read_text().splitlines()) <= 60
