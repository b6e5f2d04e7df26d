"""Which workers of an nginx may still have an older configuration. Pure: who lives, and what was said.

A worker keeps the configuration it was forked with, and a master never goes back (generations must not): what it forked after
a worker is as new as that one, what it forked before is no newer. Known to be as new as `since` is
- a worker that said so itself,
- one that the same master forked after such a worker, and
- one that it forked in one go with such a worker. A master forks all workers of a configuration in a burst, tells the old ones to stop, and
  rests. So one of the burst is believed when its title does not say that it stops although it was seen waiting for events after its master
  was seen at rest.
Any other worker holds the port until it exits, whatever its title says: one that is frozen, or never got its signal, bears none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Family", "Word", "Worker", "heard", "suspects"]

BURST_S = 0.05
"""Workers forked no further apart than this belong together: the master rests for twice as long before it tells the old ones."""


@attrs.frozen
class Worker:
    """One process that may route."""

    pid: int
    started: int
    """In clock ticks after boot."""
    master: int
    stopping: bool = False
    orphaned: bool = False
    quiet: bool = False
    """It waits for events, and did so after its master was at rest: had it been told to stop, its title would say so."""

    @property
    def key(self) -> tuple[int, int]:
        """Names the process for as long as the machine runs."""
        return self.pid, self.started


@attrs.frozen
class Family:
    """All processes that may route, at one look."""

    incarnation: str
    workers: tuple[Worker, ...]


@attrs.frozen
class Word:
    """What a worker said of its configuration."""

    worker: Worker
    generation: int


def heard(words: Iterable[Word], word: Word, workers: Sequence[Worker]) -> tuple[Word, ...]:
    """All that was said, with one word more; without what says nothing of the workers that live."""
    eldest = min(worker.started for worker in workers)
    return (*(each for each in words if each.worker.started >= eldest and each.worker.key != word.worker.key), word)


def suspects(workers: Iterable[Worker], words: Iterable[Word], since: int, *, ticks_per_s: int) -> list[Worker]:
    """The workers that are not known to be as new as `since`."""
    said = {word.worker.key: word for word in words}
    left = [worker for worker in workers if worker.key not in said or said[worker.key].generation < since]
    masters = dict.fromkeys(worker.master for worker in left)
    return [worker for master in masters for worker in _of_one_master(master, left, said.values(), since, BURST_S * ticks_per_s)]


def _of_one_master(master: int, workers: Iterable[Worker], words: Iterable[Word], since: int, burst: float) -> list[Worker]:
    youngest_first = sorted((worker for worker in workers if worker.master == master), key=lambda worker: -worker.started)
    told = [word for word in words if word.worker.master == master]
    older = max((word.worker.started for word in told if word.generation < since), default=-1)
    newer = min((word.worker.started for word in told if word.generation >= since and word.worker.started > older), default=-1)
    kept = []
    for worker in youngest_first:
        in_one_go = worker.quiet and not worker.stopping and older < worker.started <= newer < worker.started + burst
        if in_one_go:
            newer = worker.started
        elif worker.orphaned or newer < 0 or worker.started <= newer:
            kept.append(worker)
    return kept
