"""The fake proxy that the manager's tests lean on."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from portfsm.evidence import Evidence, Verdict, Witness
from portfsm.testing import FakeWitness, ManualClock
from tests.witnesses.helpers import on_every_loop

PLACE = ("10.0.0.1", 30000, 7)


async def verdicts(witness, count):
    return [(await witness.check(*PLACE)).verdict for _ in range(count)]


@on_every_loop
async def test_a_script_is_not_followed_or_ends_before_the_questions_do():
    witness = FakeWitness("p", [Verdict.HELD, Verdict.UNKNOWN, Verdict.CLEAR])
    assert await verdicts(witness, 4) == [Verdict.HELD, Verdict.UNKNOWN, Verdict.CLEAR, Verdict.CLEAR]
    witness.say(Verdict.HELD)
    assert await verdicts(witness, 2) == [Verdict.HELD] * 2
    assert await verdicts(FakeWitness(), 1) == [Verdict.UNKNOWN]


@on_every_loop
async def test_a_function_is_not_asked_what_the_witness_is_asked():
    async def slowly(host, port, since):
        await anyio.lowlevel.checkpoint()
        return Verdict.CLEAR if port == 1 else Verdict.HELD

    for script in (slowly, lambda host, port, since: Verdict.CLEAR if port == 1 else Verdict.HELD):
        witness = FakeWitness("p", script)
        found = await witness.check_many([("h", 1, 5), ("h", 2, 6)])
        assert [(each.verdict, each.since, each.generation) for each in found] == [(Verdict.CLEAR, 5, 5), (Verdict.HELD, 6, None)]
        assert (witness.asked, witness.rounds) == ([("h", 1, 5), ("h", 2, 6)], [2])


@on_every_loop
async def test_an_earlier_question_asked_later_voids_what_was_said():
    """A generation that goes back is a proxy with an older configuration, and nothing that it said counts any more."""
    found = await FakeWitness("p", [Verdict.CLEAR]).check_many([("h", 1, 9), ("h", 2, 5)])
    assert [each.generation for each in found] == [9, 9]


@on_every_loop
async def test_times_are_not_those_of_the_tests_clock():
    clock = ManualClock()
    clock.advance(3)
    found = await FakeWitness("p", [Verdict.CLEAR], clock=clock, incarnation="i", generation=4).check(*PLACE)
    assert found == Evidence("p", "i", 7, Verdict.CLEAR, 4, "as scripted", 3_000_000_000, 3_000_000_000)


@on_every_loop
async def test_a_trigger_is_lost_or_told_twice():
    witness = FakeWitness()
    witness.trigger()
    changes = witness.changed()
    with anyio.fail_after(5):
        await anext(changes)
    async with anyio.create_task_group() as group:
        group.start_soon(anext, changes)
        await anyio.wait_all_tasks_blocked()
        witness.trigger()
    with anyio.move_on_after(0.02) as scope:
        await anext(changes)
    assert scope.cancelled_caught
    await changes.aclose()


@on_every_loop
async def test_nobody_hears_of_a_question():
    witness = FakeWitness()
    async with anyio.create_task_group() as group:
        group.start_soon(witness.wait_asked, 2)
        await verdicts(witness, 2)
    await witness.withdraw(*PLACE)
    assert witness.withdrawn == [PLACE]


@on_every_loop
async def test_what_a_script_raises_is_swallowed():
    def broken(host, port, since):
        raise RuntimeError("a witness must not")

    with pytest.raises(RuntimeError):
        await FakeWitness("p", broken).check(*PLACE)


def test_it_is_no_witness():
    assert isinstance(FakeWitness(), Witness)
