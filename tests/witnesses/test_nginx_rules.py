"""Which workers of nginx count: rule by rule, and on every schedule of a master that reloads and of workers that freeze, crash and answer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import attrs
import pytest

from portfsm.witnesses._nginx_rules import Word, Worker, heard, suspects

SINCE = 20
TICKS_PER_S = 40
"""So that workers less than two ticks apart are of one burst."""


def worker(started: int, **changes) -> Worker:
    return Worker(pid=started + 100, started=started, master=1, **({"quiet": True} | changes))


def held(*workers: Worker, said: dict[Worker, int], since: int = SINCE) -> list[int]:
    """The starts of those that hold a port, after these words."""
    words = [Word(each, generation) for each, generation in said.items()]
    return [each.started for each in suspects(workers, words, since, ticks_per_s=TICKS_PER_S)]


OLD, FIRST, SPEAKER, LAST = worker(1), worker(9), worker(10), worker(11)


def test_a_worker_that_said_so_itself_or_came_after_one_is_not_believed():
    loud = [worker(each, quiet=False) for each in (1, 10, 11)]
    assert held(*loud, said={loud[1]: 20}) == [1]
    assert held(*loud, said={loud[1]: 20, loud[0]: 25}) == []
    assert held(*loud, said={loud[1]: 19}) == [11, 10, 1]
    assert held(*loud, said={}) == [11, 10, 1]


def test_siblings_that_never_answer_hold_ports_for_ever():
    assert held(FIRST, SPEAKER, LAST, said={SPEAKER: 20}) == []
    assert held(*map(worker, range(5, 12)), said={LAST: 20}) == [], "a burst may be long, where no pause of it is"


@pytest.mark.parametrize("change", [{"quiet": False}, {"stopping": True}, {"started": 8}, {"master": 2}, {"orphaned": True, "master": 2}])
def test_a_stranger_that_passes_for_a_sibling(change):
    stranger = attrs.evolve(FIRST, **change)
    assert held(stranger, SPEAKER, said={SPEAKER: 20}) == [stranger.started]


@pytest.mark.parametrize("change", [{"master": 2}, {"orphaned": True}])
def test_a_worker_of_another_master_that_passes_for_a_younger_one(change):
    """During a binary upgrade the old master goes on, and replaces what crashes by what it has."""
    assert held(SPEAKER, attrs.evolve(LAST, **change), said={SPEAKER: 20}) == [11]


def test_a_worker_whose_younger_sibling_said_less_passes_for_new():
    assert held(worker(9), worker(10), worker(11), said={worker(10): 10, worker(11): 20}) == [10, 9]
    assert held(worker(9), worker(11), said={worker(10): 10, worker(11): 20}) == [9], "also of one that has exited"


def test_a_master_that_went_back_is_believed():
    assert held(worker(9), worker(10), worker(11), worker(12), said={worker(9): 20, worker(11): 10}) == [12, 11, 10]


def test_words_that_pile_up_or_are_forgotten_too_soon():
    words = heard(heard((), Word(OLD, 10), [OLD]), Word(SPEAKER, 20), [OLD, SPEAKER])
    assert words == (Word(OLD, 10), Word(SPEAKER, 20))
    assert heard(words, Word(LAST, 30), [FIRST, LAST]) == (Word(SPEAKER, 20), Word(LAST, 30))
    assert heard(words, Word(SPEAKER, 20), [OLD, SPEAKER]) == words


# ---------------------------------------------------------------------- every schedule


@attrs.frozen(cache_hash=True)
class Process:
    worker: Worker
    generation: int
    told: bool = False
    frozen: bool = False


@attrs.frozen(cache_hash=True)
class World:
    """A master with the generation of its configuration, and its workers. Time is as many ticks as matter."""

    processes: tuple[Process, ...] = (Process(Worker(1, 0, 1), 10),)
    generation: int = 10
    now: int = 0
    to_fork: int = 0
    to_tell: bool = False
    crashed: bool = False

    @property
    def at_rest(self) -> bool:
        return not (self.to_fork or self.to_tell)

    def put(self, old: Process, *new: Process) -> World:
        return attrs.evolve(self, processes=(*(each for each in self.processes if each is not old), *new))

    def forked(self) -> World:
        made = Process(Worker(len(self.processes) + 10 * self.now + 2, self.now, 1), self.generation)
        return attrs.evolve(self, processes=(*self.processes, made))

    def listed(self, *, rested: bool) -> list[Worker]:
        """What `/proc` shows. Who was told and is not frozen says so in its title."""
        return [
            attrs.evolve(each.worker, quiet=rested and not each.frozen, stopping=each.told and not each.frozen) for each in self.processes
        ]


@cache
def happenings(world: World, last: int) -> tuple[World, ...]:
    """Every next step; `last` is the last generation that there is a configuration of."""
    return tuple(_happenings(world, last))


def _happenings(world: World, last: int) -> Iterator[World]:
    if world.now < (3 if last == SINCE else 1):
        yield attrs.evolve(world, now=world.now + 1)
    if world.to_fork:
        yield attrs.evolve(world.forked(), to_fork=world.to_fork - 1, to_tell=True)
    elif world.generation < last:  # also in the pause before the old ones are told, which a signal cuts short
        yield attrs.evolve(_told(world), generation=world.generation + 10, to_fork=2)
    if world.to_tell and not world.to_fork:
        yield _told(world)
    for each in world.processes:
        if each.frozen or not any(other.frozen for other in world.processes):
            yield world.put(each, attrs.evolve(each, frozen=not each.frozen))
        if each.told and not each.frozen:
            yield world.put(each)
        elif world.at_rest and not world.crashed:
            gone = attrs.evolve(world.put(each), crashed=True)
            yield gone if each.told else gone.forked()


def _told(world: World) -> World:
    told = (attrs.evolve(each, told=each.told or each.generation < world.generation) for each in world.processes)
    return attrs.evolve(world, processes=tuple(told), to_tell=False) if world.to_tell else world


@attrs.frozen(cache_hash=True)
class Asked:
    """How far the witness has come: a round is an answer, a look at the master, a look at the workers."""

    words: tuple[Word, ...] = ()
    rounds: int = 0
    answer: Process | None = None
    rested: bool | None = None


def steps(world: World, asked: Asked, *, last: int, rounds: int) -> Iterator[tuple[World, Asked]]:
    for after in happenings(world, last):
        yield after, asked
    if asked.answer is None and asked.rounds < rounds:
        for each in world.processes:
            if not each.frozen:
                yield world, attrs.evolve(asked, answer=attrs.evolve(each, told=False))
    elif asked.answer is not None and asked.rested is None:
        yield world, attrs.evolve(asked, rested=world.at_rest)


def explore(*, last: int = 20, rounds: int = 1, waits_for_rest: bool = True) -> tuple[int, int, World | None]:
    """All schedules: how many ends, how many of them clear, and the first world in which that was wrong."""
    start = (World(crashed=last > SINCE), Asked())
    seen, todo, ends, clear = {start}, [start], 0, 0
    while todo:
        world, asked = todo.pop()
        following = list(steps(world, asked, last=last, rounds=rounds))
        if asked.rested is not None and asked.answer is not None:
            ends += 1
            workers = world.listed(rested=asked.rested or not waits_for_rest)
            if not any(each.key == asked.answer.worker.key for each in workers):
                continue  # who answered has exited: no round
            words = heard(asked.words, Word(asked.answer.worker, asked.answer.generation), workers)
            if asked.answer.generation >= SINCE and not suspects(workers, words, SINCE, ticks_per_s=TICKS_PER_S):
                clear += 1
                if any(each.generation < SINCE for each in world.processes):
                    return ends, clear, world
            following.append((world, Asked(words, asked.rounds + 1)))
        fresh = [node for node in following if node not in seen]
        seen.update(fresh)
        todo += fresh
    return ends, clear, None


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"rounds": 2}, marks=pytest.mark.slow), pytest.param({"last": 30}, marks=pytest.mark.slow)]
)
def test_a_schedule_with_an_old_worker_after_clear(options):
    """One reload with a crash; the same asked twice; two reloads, the second one in the pause of the first, too."""
    ends, clear, wrong = explore(**options)
    assert wrong is None
    assert ends > 10_000
    assert clear > 500


def test_a_master_that_has_not_told_its_old_workers_yet_makes_no_difference():
    """The guard of the guard: a witness that does not look whether the master rests is found out."""
    assert explore(waits_for_rest=False)[2]
