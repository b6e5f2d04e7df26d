"""Strangers' bytes: a few thousand inputs a target in every run, and every cut of an answer. `python -m tests.fuzz` goes on for longer."""

from __future__ import annotations

import random

import pytest

from portfsm.witnesses._haproxy_answers import Unreadable, read_listing, read_worker
from portfsm.witnesses._haproxy_rules import judge

from .mutate import mutated
from .targets import LISTING, PID, SEEDS, TARGETS, WORKER

INPUTS = {"log": 400, "scanner": 1500}


@pytest.mark.parametrize("name", TARGETS)
def test_bytes_raise_what_is_not_documented(name, times):
    chance = random.Random(name)
    for data in SEEDS[name]:
        TARGETS[name](data)
    for _ in range(INPUTS.get(name, 3000) * times):
        data = mutated(chance.choice(SEEDS[name]), chance)
        try:
            TARGETS[name](data)
        except Exception:
            print(f"the input: {data!r}")
            raise


def test_a_cut_answer_lets_go_of_a_port_that_the_whole_one_holds():
    """A worker dies, or the socket closes, in the middle of its answer."""
    whole = read_worker(PID, WORKER, old=False)
    slot = next(slot for slots in whole.slots.values() for slot in slots)
    assert judge([whole], slot.address, slot.port, 1).verdict.value == "HELD"
    for size in range(len(WORKER)):
        worker = read_worker(PID, WORKER[:size], old=False)
        assert worker is None or judge([worker], slot.address, slot.port, 1).verdict.value == "HELD", WORKER[:size][-80:]


def test_a_cut_list_of_processes_hides_a_worker():
    whole = read_listing(LISTING)
    for size in range(len(LISTING)):
        try:
            listing = read_listing(LISTING[:size])
        except Unreadable:
            continue
        assert listing.workers in ((), whole.workers), "no worker at all is no answer to those who ask"
