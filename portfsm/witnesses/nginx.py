"""Evidence from nginx: which workers live, and which of them can still have the old list of servers.

nginx has no API. A worker keeps the configuration it was forked with, and nothing but its exit takes it away. So its
configuration must say which one it is, and which worker says so, on a local listener:

    location = /generation { return 200 "417 $pid"; }        # 417: the highest `seq` it was rendered from

Rule, for a port withdrawn at `since`: the question is asked, then the workers are listed. CLEAR when the answer names a generation of at
least `since` and every worker on the list is known to be as new. Known to be are
- a worker that said so itself,
- one that was forked after such a worker: the master never goes back (generations must not), and
- one that was forked in one go with such a worker, is not shutting down, and was never seen under an older generation. The master forks all
  workers of a configuration in a burst, and tells the old ones a tenth of a second later; within that time nobody is
  believed on this ground.
Any other worker holds the port until it exits, whatever its title says: one that is frozen, or never got its signal, bears none.

Without `generation_url` a configuration that failed to load cannot be told from one that was loaded: then nothing is ever CLEAR.
"""

from __future__ import annotations

import os
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from portfsm.errors import InvalidValue
from portfsm.evidence import Evidence, Verdict
from portfsm.witnesses._asking import Finding, Named, NoAnswerError, Place, answer
from portfsm.witnesses._exits import Exits, Tracked
from portfsm.witnesses._family import Family, Worker, family_of, read_pid
from portfsm.witnesses._http import Requester

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from portfsm.evidence import Witness

__all__ = ["NginxWitness"]

_ANSWER = re.compile(rb"\s*([0-9]{1,18})\s+([0-9]{1,10})\s*")
_ANSWER_BYTES = 256
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_BURST_S = 0.05
"""Workers forked no further apart than this belong together; the master itself pauses 0.1 s before it tells the old ones."""
_SETTLED_S = 0.3
"""How old a burst must be before its members are believed: the old workers have been told by then, and say so in their title."""
_NAMED = 5


class NginxWitness(Named):
    """Asks one nginx: `master` is its pid file, or the pid of its master."""

    def __init__(self, master: str | Path | int, *, proxy: str, generation_url: str | None = None, fallback_s: float | None = None) -> None:
        if isinstance(master, bool) or not isinstance(master, str | Path | int) or not master or (isinstance(master, int) and master < 0):
            raise InvalidValue(f"master is a pid file or a pid, not {master!r}", name="master", value=master)
        self._master = master
        super().__init__(proxy, fallback_s)
        self._requester = Requester(generation_url, name="generation_url") if generation_url is not None else None
        self._said: dict[tuple[int, int], int] = {}
        """The generation that each living worker named itself."""
        self._under: dict[tuple[int, int], int] = {}
        """The generation that was in force when each living worker was first seen."""
        self._awaited: dict[tuple[int, int], Tracked] = {}
        self._exits = Exits()

    async def check_many(self, places: Sequence[Place]) -> tuple[Evidence, ...]:
        """Ask for the generation, then look which workers live. Only `since` counts: a worker's servers are not to be seen."""
        return await answer(self._proxy, places, partial(self._look, places))

    def changed(self) -> AsyncIterator[None]:
        """Yields when a worker that was waited for has exited."""
        return self._exits.changed()

    async def _look(self, places: Sequence[Place]) -> list[Finding]:
        said = await self._ask() if self._requester else None
        pid = self._master if isinstance(self._master, int) else read_pid(Path(self._master))
        family = await anyio.to_thread.run_sync(family_of, pid, abandon_on_cancel=True)
        if said is None:
            return [_without_generation(family)] * len(places)
        generation, speaker = said
        self._remember(family, generation, speaker)
        return [self._judge(family, generation, since) for _, _, since in places]

    async def _ask(self) -> tuple[int, int]:
        """Which generation, and which worker says so."""
        assert self._requester is not None  # noqa: S101
        body = await self._requester.fetch(limit=_ANSWER_BYTES)
        match = _ANSWER.fullmatch(body)
        if match is None:
            raise NoAnswerError(f'{self._requester.shown} answered {body[:40]!r}: it must be `return 200 "GENERATION $pid"`')
        return int(match[1]), int(match[2])

    def _remember(self, family: Family, generation: int, speaker: int) -> None:
        living = {worker.key for worker in family.workers}
        self._said = {key: value for key, value in self._said.items() if key in living}
        self._under = {key: self._under.get(key, generation) for key in living}
        keys = [worker.key for worker in family.workers if worker.pid == speaker]
        if not keys:
            raise NoAnswerError(
                f"worker {speaker} answered and is not among the workers of {family.incarnation}: another nginx, or it exited"
            )
        self._said[keys[0]] = generation
        self._exits.settle()
        self._awaited = {key: process for key, process in self._awaited.items() if key in living}

    def _judge(self, family: Family, generation: int, since: int) -> Finding:
        found = partial(Finding, generation=generation, incarnation=family.incarnation)
        if generation < since:
            return found(Verdict.HELD, f"nginx runs a configuration of generation {generation}, made before {since}")
        suspects = self._suspects(family.workers, since)
        if suspects:
            self._await(suspects)
            return found(Verdict.HELD, f"waiting for the exit of {_names(suspects)}")
        return found(Verdict.CLEAR, f"all {len(family.workers)} workers were started with generation {since} or later ({generation} now)")

    def _suspects(self, workers: Sequence[Worker], since: int) -> list[Worker]:
        """The workers not known to be as new as `since`."""
        first = min((worker.started for worker in workers if self._said.get(worker.key, -1) >= since), default=None)
        if first is None:
            return list(workers)
        left = [worker for worker in workers if not self._new(worker, since, first)]
        if time.clock_gettime(time.CLOCK_BOOTTIME) - first / _TICKS < _SETTLED_S:
            return left
        for worker in sorted(left, key=lambda each: -each.started):
            believable = not (worker.stopping or worker.orphaned or worker.key in self._said) and self._under[worker.key] >= since
            if believable and first - worker.started < _BURST_S * _TICKS:
                first = worker.started
                left.remove(worker)
        return left

    def _new(self, worker: Worker, since: int, first: int) -> bool:
        said = self._said.get(worker.key)
        return said >= since if said is not None else worker.started >= first and not worker.orphaned

    def _await(self, suspects: Sequence[Worker]) -> None:
        for worker in suspects:
            if worker.key not in self._awaited:
                self._awaited[worker.key] = process = Tracked(worker.pid, started=worker.started)
                if not process.exited:
                    self._exits.watch(process)


def _without_generation(family: Family) -> Finding:
    stopping = [worker for worker in family.workers if worker.stopping]
    if stopping:
        return Finding(Verdict.HELD, f"waiting for the exit of {_names(stopping)}", None, family.incarnation)
    return Finding(Verdict.UNKNOWN, "nobody says which configuration nginx runs: give generation_url", None, family.incarnation)


def _names(workers: Sequence[Worker]) -> str:
    texts = [f"worker {each.pid}{' (shutting down)' * each.stopping}{' (its master is gone)' * each.orphaned}" for each in workers[:_NAMED]]
    return ", ".join(texts) + (f" and {len(workers) - _NAMED} more" if len(workers) > _NAMED else "")


if TYPE_CHECKING:
    _: type[Witness] = NginxWitness
