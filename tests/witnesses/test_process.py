"""Exits as evidence, on real processes."""

from __future__ import annotations

import os

import anyio
import pytest

from portfsm.errors import InvalidValue
from portfsm.evidence import Verdict, Witness
from portfsm.witnesses import ProcessWitness
from portfsm.witnesses._exits import read_stat
from tests.witnesses.helpers import PATIENCE_S, on_every_loop, process

HELD, CLEAR, UNKNOWN = Verdict.HELD, Verdict.CLEAR, Verdict.UNKNOWN


@pytest.fixture
def witness():
    witness = ProcessWitness(proxy="haproxy", fallback_s=150)
    yield witness
    witness.close()


async def verdict(witness, since=10):
    return (await witness.check("127.0.0.1", 30000, since)).verdict


def end(child):
    child.kill()
    child.wait()


@on_every_loop
async def test_an_old_process_that_lives_is_taken_for_gone(witness):
    with process() as old, process() as new:
        witness.track(old.pid, generation=9)
        witness.track(new.pid, generation=10)
        found = await witness.check("127.0.0.1", 30000, 10)
        assert (found.verdict, found.proxy, found.since, found.generation) == (HELD, "haproxy", 10, 9)
        assert f"{old.pid} (generation 9)" in found.reason
        assert str(new.pid) not in found.reason
        end(old)
        found = await witness.check("127.0.0.1", 30000, 10)
        assert (found.verdict, found.generation) == (CLEAR, 10)
        assert found.asked_at <= found.answered_at
        assert await verdict(witness, since=11) is HELD


@on_every_loop
async def test_only_the_last_of_many_processes_is_looked_at(witness):
    with process() as stranded, process() as second, process() as third:
        for generation, child in enumerate([stranded, second, third], start=1):
            witness.track(child.pid, generation=generation)
        end(second)
        assert await verdict(witness, since=3) is HELD
        end(stranded)
        assert await verdict(witness, since=3) is CLEAR


@on_every_loop
async def test_nobody_tracked_counts_as_everybody_gone(witness):
    found = await witness.check("127.0.0.1", 30000, 10)
    assert found.verdict is UNKNOWN
    assert "track" in found.reason


@on_every_loop
async def test_a_process_of_unknown_generation_is_trusted(witness):
    with process() as child:
        witness.track(child.pid)
        found = await witness.check("127.0.0.1", 30000, 1)
        assert (found.verdict, found.generation) == (HELD, None)
        assert "unknown" in found.reason
        end(child)
        assert await verdict(witness, since=1) is CLEAR


@on_every_loop
async def test_a_pid_that_was_given_away_holds_ports_for_ever(witness):
    with process() as other:
        witness.track(other.pid, generation=1, started=read_stat(other.pid).started - 1)
        assert await verdict(witness) is CLEAR
        witness.track(other.pid, generation=1, started=read_stat(other.pid).started)
        assert await verdict(witness) is HELD


@on_every_loop
async def test_an_exit_wakes_nobody(witness):
    with process() as first, process() as second:
        witness.track(first.pid, generation=1)
        changes = witness.changed()
        with anyio.fail_after(PATIENCE_S):
            first.kill()
            await anext(changes)
            assert await verdict(witness) is CLEAR
            witness.track(second.pid, generation=2)
            second.kill()
            await anext(changes)
        with anyio.move_on_after(0.05) as scope:
            await anext(changes)
        assert scope.cancelled_caught, "an exit is told once, not for ever"
        await changes.aclose()


@on_every_loop
async def test_an_exit_that_a_question_saw_first_is_never_told(witness):
    with process() as child:
        witness.track(child.pid, generation=1)
        end(child)
        assert await verdict(witness) is CLEAR
        changes = witness.changed()
        with anyio.fail_after(PATIENCE_S):
            await anext(changes)
        await changes.aclose()


@on_every_loop
async def test_many_ports_in_one_look_are_mixed_up(witness):
    with process() as child:
        witness.track(child.pid, generation=5)
        found = await witness.check_many([("a", 1, 5), ("b", 2, 6), ("c", 3, 4)])
        assert [(each.since, each.verdict) for each in found] == [(5, CLEAR), (6, HELD), (4, CLEAR)]
        assert await witness.check_many([]) == ()


def test_a_year_of_reloads_leaks_descriptors(witness):
    before = len(os.listdir("/proc/self/fd"))
    for generation in range(20):
        with process() as child:
            witness.track(child.pid, generation=generation)
            end(child)
        anyio.run(verdict, witness)
    assert len(os.listdir("/proc/self/fd")) <= before


@on_every_loop
async def test_a_restarted_controller_passes_for_the_one_that_tracked(witness):
    with process() as child:
        found = []
        for each in (witness, ProcessWitness(proxy="haproxy")):
            each.track(child.pid)
            found.append((await each.check("127.0.0.1", 30000, 10)).incarnation)
    assert len({*found, ""}) == 3


@pytest.mark.parametrize("pid", [0, -1, 2**40, True, 1.5, "1", None])
def test_what_is_no_pid_is_tracked(witness, pid):
    with pytest.raises(InvalidValue):
        witness.track(pid)


@pytest.mark.parametrize(
    "options", [{"proxy": ""}, {"proxy": "a\n"}, {"proxy": "p", "fallback_s": -1}, {"proxy": "p", "fallback_s": float("nan")}]
)
def test_junk_options_are_taken(options):
    with pytest.raises(InvalidValue):
        ProcessWitness(**options)


def test_it_is_no_witness(witness):
    assert isinstance(witness, Witness)
    assert (witness.proxy, witness.fallback_s) == ("haproxy", 150)
