"""Evidence from exits alone, for proxies that can be asked nothing: HAProxy reloaded by `-sf` without a master, and others alike.

Rule: a process can hold a port withdrawn at `since` unless it has exited or was started with a configuration of a generation
of at least `since`. The port is clear when no process ever tracked can hold it. Processes whose generation nobody named
hold every port until they exit. Where none was ever tracked, nothing is known.

This stands on two promises of the controller: every process that ever got a configuration is tracked, also those that live on
from before a restart of the controller; and a process keeps the configuration it was started with. A master that reloads
workers breaks the second: use `HAProxyWitness` or `NginxWitness` for it.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import attrs
from anyio.lowlevel import checkpoint

from portfsm.errors import InvalidValue
from portfsm.evidence import Evidence, Verdict
from portfsm.witnesses._asking import Finding, Named, Place
from portfsm.witnesses._exits import Exits, Tracked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from portfsm.evidence import Witness

__all__ = ["ProcessWitness"]

_LAST_PID = 2**22
_NAMED = 5
"""How many processes a reason names."""


@attrs.frozen
class _Started:
    process: Tracked
    generation: int | None


class ProcessWitness(Named):
    """Says CLEAR when every process that may hold the port has exited. Call `track` for each one as it is started."""

    def __init__(self, *, proxy: str, fallback_s: float | None = None) -> None:
        super().__init__(proxy, fallback_s)
        # What an earlier witness of the same name said does not bind this one: it may have tracked other processes.
        self._incarnation = uuid.uuid4().hex
        self._living: list[_Started] = []
        self._tracked = 0
        self._exits = Exits()

    def track(self, pid: int, *, generation: int | None = None, started: int | None = None) -> None:
        """Count on a process from now on, in the same step in which it was started.

        `generation` is the highest `seq` that its configuration was made from. `started` is its start time (field 22 of
        `/proc/PID/stat`), for a process that was not started just now: when it differs, the pid has been given away and
        the process meant has exited. One that has exited already is counted as such.
        """
        _check_whole("pid", pid, least=1, most=_LAST_PID)
        for name, value in (("generation", generation), ("started", started)):
            if value is not None:
                _check_whole(name, value)
        process = Tracked(pid, started=started)
        self._tracked += 1
        if not process.exited:
            self._living.append(_Started(process, generation))
            self._exits.watch(process)

    async def check_many(self, places: Sequence[Place]) -> tuple[Evidence, ...]:
        """Look which processes live. The same answer for every host and port: only `since` counts."""

        async def look() -> list[Finding]:
            await checkpoint()
            self._settle()
            return [self._judge(since) for _, _, since in places]

        return await self._answer(places, look)

    def changed(self) -> AsyncIterator[None]:
        """Yields after exits."""
        return self._exits.changed()

    def close(self) -> None:
        """Let go of the descriptors. Nothing is clear any more."""
        self._exits.close()
        self._living.clear()
        self._tracked = 0

    def _settle(self) -> None:
        for started in self._living:
            started.process.look()
        self._exits.settle()
        self._living = [started for started in self._living if not started.process.exited]

    def _judge(self, since: int) -> Finding:
        if not self._tracked:
            return Finding(Verdict.UNKNOWN, "no process was tracked: call track(pid, generation=...) for every one that is started")
        holders = [started for started in self._living if started.generation is None or started.generation < since]
        generation = self._generation()
        if holders:
            return Finding(Verdict.HELD, f"waiting for the exit of {_names(holders)}", generation, self._incarnation)
        living = f"{len(self._living)} live" if self._living else "none lives"
        reason = f"all processes started before generation {since} have exited ({self._tracked} tracked, {living})"
        return Finding(Verdict.CLEAR, reason, generation, self._incarnation)

    def _generation(self) -> int | None:
        """The oldest configuration that still runs."""
        known = [started.generation for started in self._living if started.generation is not None]
        return min(known) if known and len(known) == len(self._living) else None


def _names(holders: list[_Started]) -> str:
    texts = [f"{each.process.pid} (generation {'unknown' if each.generation is None else each.generation})" for each in holders[:_NAMED]]
    return ", ".join(texts) + (f" and {len(holders) - _NAMED} more" if len(holders) > _NAMED else "")


def _check_whole(name: str, value: object, *, least: int = 0, most: int = 2**63 - 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidValue(f"{name} is a whole number from {least} to {most}, not {value!r}", name=name, value=value)


if TYPE_CHECKING:
    _: type[Witness] = ProcessWitness
