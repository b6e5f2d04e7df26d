"""Streams whose address nobody names: of a slot that has moved, and of HAProxy itself."""

from __future__ import annotations

import re

import attrs
import pytest

from portfsm.witnesses._haproxy_answers import Worker
from portfsm.witnesses._haproxy_rules import Moves
from tests.witnesses.answers import FREE, reason, recorded, verdict, worker
from tests.witnesses.record import GONE, RESTING

GONE_AT = f"gone 127.0.0.1 2 0 1 1 0 1 0 2 0 0 0 0 - {GONE}"
TRIES = re.compile(r"(srv=gone ts=00 epoch=)0(.*)scb=\[3,")


def tries(*, at: int = GONE, epoch: int = 0, state: int = 3, listings: int = 1) -> Worker:
    """The recorded worker after so many listings, with its slot `gone` at a port and a stream of it from an epoch in a state."""
    text = recorded("worker").replace("epoch=0x1 ", f"epoch={listings:#x} ").replace(GONE_AT, GONE_AT.replace(f"{GONE}", f"{at}"))
    return worker(text=TRIES.sub(rf"\g<1>{epoch:#x}\g<2>scb=[{state},", text))


def test_a_stream_that_tries_an_address_which_its_slot_had_before_anybody_asked():
    """It holds every port until it is over; one that began later goes where the slot is."""
    moves = Moves()
    first = moves.told(tries())
    assert [verdict(first, port) for port in (GONE, FREE)] == ["HELD", "HELD"]
    assert "began before the slot was seen where it is" in reason(first, FREE)
    assert verdict(moves.told(tries(listings=2)), FREE) == "HELD"
    assert verdict(moves.told(tries(epoch=1, listings=3)), FREE) == "HELD", "from between the table and the listing"
    assert verdict(moves.told(tries(epoch=2, listings=4)), FREE) == "CLEAR"


@pytest.mark.parametrize(
    ("state", "retries_replies", "stray"), [(2, False, False), (3, False, True), (7, False, True), (8, False, False), (8, True, True)]
)
def test_a_stream_without_an_address_of_its_own_that_holds_every_port(state, retries_replies, stray):
    assert bool(Moves(retries_replies=retries_replies).told(tries(state=state)).strays) == stray


def test_a_slot_that_moved_while_a_stream_tried_its_old_address():
    moves = Moves()
    assert moves.told(tries(state=8)).strays == ()
    assert moves.told(tries(epoch=2, listings=3)).strays == ()
    moved = moves.told(tries(at=21098, epoch=2, listings=4))
    assert moved.strays == [("b", "gone")]
    assert verdict(moved, GONE) == "HELD"
    assert moves.told(tries(at=21098, epoch=5, listings=5)).strays == ()
    moves.keep([])
    assert moves.told(tries(at=21098, epoch=5, listings=6)).strays == [("b", "gone")]


def test_a_deleted_server_whose_stream_is_forgotten():
    moves = Moves()
    moves.told(tries(state=8))
    deleted = attrs.evolve(tries(epoch=9, listings=9), slots={})
    assert moves.told(deleted).strays == [("b", "gone")]
    assert moves.told(attrs.evolve(deleted, streams=())).strays == ()
    assert moves.told(deleted).strays == (), "of what never was in the table nothing is thought"


OWN = (
    "0x14ea6330: proto=? ts=00 epoch={epoch} age=0s calls=2 rq[f=808000h,i=0,an=00h,ax=] scf=[8,40h,fd=-1] scb=[{state},1h,fd=-1] exp=0s\n"
)


def with_own(*, state: int, epoch: str = "0x2") -> Worker:
    """The recorded worker with a stream that nobody's request began, as a ring, a peer and an agent have them."""
    return worker(text=re.sub(r"\n\n$", "\n" + OWN.format(state=state, epoch=epoch) + "\n", tries_settled()))


def tries_settled() -> str:
    return recorded("worker").replace("scb=[3,", "scb=[8,")


def test_a_log_or_a_peer_whose_stream_holds_every_port_for_ever():
    """They have no slot to their name: an established one is none of our business, one under way may be going to any slot there is."""
    assert [verdict(with_own(state=8), port, retries_replies=False) for port in (RESTING, FREE)] == ["CLEAR", "CLEAR"]
    assert verdict(with_own(state=8), FREE, retries_replies=True) == "CLEAR"
    assert [verdict(with_own(state=3), port) for port in (RESTING, FREE)] == ["HELD", "CLEAR"]
    assert "a stream of its own (to a log" in reason(with_own(state=3), RESTING)
    old = attrs.evolve(with_own(state=3), old=True, stopping=True)
    assert [verdict(old, port) for port in (GONE, FREE)] == ["HELD", "CLEAR"]


def test_an_agent_at_a_slot_that_moved_while_it_was_being_called():
    moves = Moves()
    assert moves.told(with_own(state=4, epoch="0")).strays == [("", "")]
    assert verdict(moves.told(with_own(state=4, epoch="0")), FREE) == "HELD"
    assert moves.told(with_own(state=4, epoch="0x2")).strays == ()
