"""Runs the demo: two sides at once, a kill -9 in the middle, the proof at the end.

Everything that happens is in other processes (`controller`, `node` and its replicas, `proxy`, `clients`); this one starts
them, kills the controllers, watches, and makes sure that nobody is left. Then it reads what the logs say.
"""

from __future__ import annotations

import shlex
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm import InvalidValue, read_journal
from portfsm.demo import checks
from portfsm.demo.plan import HOLD_PER_LAG, lag_for
from portfsm.demo.processes import ProcessDied, open_crew
from portfsm.demo.show import Moment, Result, Show, open_show
from portfsm.demo.side import Side, set_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

HELD, BARE = "with-hold", "without-hold"
MIN_SECONDS, MAX_SECONDS = 3.0, 3600.0
DRAW_EVERY_S = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.define(eq=False)
class Supervisor:
    """One run of the demo, from `run`."""

    place: Path
    seconds: float
    show: Show
    signal: signal.Signals | None = None
    """What ended it early, if anything did."""
    sides: tuple[Side, ...] = ()

    async def run(self) -> None:
        """Everything that needs processes. When it returns, or raises, none of them is left."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_at_signal, group.cancel_scope)
            async with open_crew() as crew:
                lag_s = lag_for(self.seconds)
                held, ports = await set_up(crew, name=HELD, directory=self.place, hold_s=HOLD_PER_LAG * lag_s, lag_s=lag_s)
                bare, _ = await set_up(crew, name=BARE, directory=self.place, hold_s=0.0, lag_s=lag_s, avoid=ports)
                self.sides = (held, bare)
                self.show.note(
                    f"{held.plan.replicas} replicas a side behind a proxy that hears of changes {lag_s:.1f} s late; logs in {self.place}"
                )
                await self._play()
            group.cancel_scope.cancel()

    async def _play(self) -> None:
        async with anyio.create_task_group() as group:
            for side in self.sides:
                group.start_soon(side.begin)
        async with anyio.create_task_group() as group:
            group.start_soon(self._draw_for_ever, anyio.current_time())
            with anyio.CancelScope(deadline=anyio.current_time() + self.seconds):
                await anyio.sleep(self.seconds / 2)
                await self._kill()
                await anyio.sleep_forever()
            group.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            for side in self.sides:
                group.start_soon(side.end)

    async def _kill(self) -> None:
        self.show.note("kill -9: both controllers, in the midst of their work")
        async with anyio.create_task_group() as group:
            for side in self.sides:
                group.start_soon(side.kill_and_restart)
        backs = ", ".join(f"{side.plan.name} after {side.away_s:.2f} s with {side.opened[-1]['kept']} replicas" for side in self.sides)
        self.show.note(f"both are back on their logs: {backs}")

    async def _draw_for_ever(self, began: float) -> None:
        while True:
            self.show.moment(Moment(anyio.current_time() - began, self.seconds, [side.gauges for side in self.sides]))
            await anyio.sleep(DRAW_EVERY_S)

    async def _cancel_at_signal(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                self.signal = self.signal or number
                scope.cancel()


def run(*, directory: Path | None, seconds: float, json: bool, console: Console) -> int:
    """Run the demo and return the exit code: 0 all proved, 1 a check failed, 128 + N ended by signal N.

    `directory` gets the logs (default: a new temporary one, which is kept). Raises `InvalidValue` when it already has
    some, or when `seconds` is of no use.
    """
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:  # a NaN is neither
        raise InvalidValue(f"seconds must be from {MIN_SECONDS:g} to {MAX_SECONDS:g}, not {seconds!r}", name="seconds", value=seconds)
    place = prepare(directory)
    began = time.monotonic()
    with open_show(console, json=json) as show:
        supervisor = Supervisor(place, seconds, show)
        broken: list[ProcessDied] = []
        try:
            anyio.run(supervisor.run)
        except* ProcessDied as group:
            broken += leaves(group)
        if supervisor.signal:
            show.note(f"{supervisor.signal.name}: every process has ended, the logs so far are in {place}")
            return 128 + supervisor.signal
        if broken:
            show.note(f"the demo broke: {broken[0]}. All that its processes said is in {place}/*.stderr.txt")
            return 1
        result = conclude(*supervisor.sides, began=began)
        show.result(result)
    return 0 if result.passed else 1


def prepare(directory: Path | None) -> Path:
    """The directory to leave the logs in, made if need be. Raises `InvalidValue` when it has logs already."""
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="portfsm-demo-"))
    if any((directory / name).exists() for name in (HELD, BARE)):
        raise InvalidValue(
            f"{directory} has the logs of an earlier demo: name another directory, or remove it", name="dir", value=str(directory)
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidValue(
            f"{directory} cannot be made: {error.strerror}; name another directory", name="dir", value=str(directory)
        ) from error
    return directory


def leaves(group: BaseExceptionGroup[ProcessDied]) -> list[ProcessDied]:
    """The errors in a tree of groups."""
    found: list[ProcessDied] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def conclude(held: Side, bare: Side, *, began: float) -> Result:
    """Read the logs and hold everybody to what they said."""
    plan = held.plan
    events, acks = list(read_journal(plan.log)), checks.read_acks(plan.acks)
    proofs = (
        checks.came_back(held.opened, away_s=held.away_s),
        checks.acknowledged_kept(events, acks),
        checks.one_holder(events),
        checks.holds_kept(events, hold_s=plan.hold_s),
        checks.stopwatch_agrees(acks, hold_s=plan.hold_s),
        checks.block_kept(events, port=held.blocked_port),
        checks.replay_agrees(events, seq=held.last_words["seq"], digest=held.last_words["digest"]),
        checks.none_wrong(held.gauges.counts),
        checks.some_wrong(bare.gauges.counts),
    )
    port = checks.tell_tale_port(events, besides=held.blocked_port)
    return Result(proofs, plan.log, time.monotonic() - began, next_commands(plan.log, port, held.blocked_port))


def next_commands(log: Path, port: int, blocked: int) -> Sequence[tuple[str, str]]:
    """What to try on the log, with a port worth looking at."""
    place = shlex.quote(str(log))
    return (
        (f"portfsm status {place}", "the pool and every port that is not free"),
        (f"portfsm log {place} -n 20", "the last events, the record everything follows from"),
        (f"portfsm history {place} {port}", "one port's life; its hold outlived the controller"),
        (f"portfsm explain {place} {blocked}", "why this port is not given to anyone"),
        (f"portfsm verify {place}", "every checksum and every transition, once more"),
    )
