"""Evidence from nginx: which workers live, and which of them can still have the old list of servers.

nginx has no API. A worker keeps the configuration it was forked with, and nothing but its exit takes it away. So its
configuration must say which one it is, and which worker says so, on a local listener:

    location = /generation { return 200 "417 $pid"; }        # 417: the highest `seq` it was rendered from

Rule, for a port withdrawn at `since`: the question is asked, then the workers are listed. CLEAR when the answer names a generation of at
least `since` and every worker on the list is known to be as new (`_nginx_rules` says how). Any other holds the port until it exits.

Without `generation_url` a configuration that failed to load cannot be told from one that was loaded: then nothing is ever CLEAR.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from portfsm.errors import InvalidValue
from portfsm.evidence import Evidence, Verdict
from portfsm.witnesses._asking import DEADLINE_S, Finding, Named, NoAnswerError, Place
from portfsm.witnesses._exits import Exits, Tracked
from portfsm.witnesses._family import family_of, read_pid
from portfsm.witnesses._http import Requester
from portfsm.witnesses._nginx_rules import Word, heard, suspects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from portfsm.evidence import Witness
    from portfsm.witnesses._nginx_rules import Family, Worker

__all__ = ["NginxWitness"]

_ANSWER = re.compile(rb"\s*([0-9]{1,18})\s+([0-9]{1,10})\s*")
_ANSWER_BYTES = 256
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_NAMED = 5


class NginxWitness(Named):
    """Asks one nginx: `master` is its pid file, or the pid of its master."""

    def __init__(
        self,
        master: str | Path | int,
        *,
        proxy: str,
        generation_url: str | None = None,
        fallback_s: float | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        if isinstance(master, bool) or not isinstance(master, str | Path | int) or not master or (isinstance(master, int) and master < 0):
            raise InvalidValue(f"master is a pid file or a pid, not {master!r}", name="master", value=master)
        self._master = master
        super().__init__(proxy, fallback_s, deadline_s=deadline_s)
        self._requester = Requester(generation_url, name="generation_url") if generation_url is not None else None
        self._words: tuple[Word, ...] = ()
        self._awaited: dict[tuple[int, int], Tracked] = {}
        self._exits = Exits()

    async def check_many(self, places: Sequence[Place]) -> tuple[Evidence, ...]:
        """Ask for the generation, then look which workers live. Only `since` counts: a worker's servers are not to be seen."""
        return await self._answer(places, partial(self._look, places))

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
        worker = next((worker for worker in family.workers if worker.pid == speaker), None)
        if worker is None:
            raise NoAnswerError(
                f"worker {speaker} answered and is not among the workers of {family.incarnation}: another nginx, or it exited"
            )
        self._words = heard(self._words, Word(worker, generation), family.workers)
        self._exits.settle()
        living = {worker.key for worker in family.workers}
        self._awaited = {key: process for key, process in self._awaited.items() if key in living}

    def _judge(self, family: Family, generation: int, since: int) -> Finding:
        found = partial(Finding, generation=generation, incarnation=family.incarnation)
        if generation < since:
            return found(Verdict.HELD, f"nginx runs a configuration of generation {generation}, made before {since}")
        if holders := suspects(family.workers, self._words, since, ticks_per_s=_TICKS_PER_S):
            self._await(holders)
            return found(Verdict.HELD, f"waiting for the exit of {_names(holders)}")
        return found(Verdict.CLEAR, f"all {len(family.workers)} workers were started with generation {since} or later ({generation} now)")

    def _await(self, holders: Sequence[Worker]) -> None:
        for worker in holders:
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
