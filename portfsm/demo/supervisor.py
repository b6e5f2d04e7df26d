"""Runs the demo: two sides at once, a kill -9 in the middle, the proof at the end.

Everything that happens is in other processes (`controller`, `node` and its replicas, `proxy`, `clients`); this one starts
them, kills the controllers, watches, and makes sure that nobody is left. Then it reads what the logs say.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from portfsm import InvalidValue, JournalError, read_journal
from portfsm.demo import checks
from portfsm.demo.plan import HOLD_S, DemoError, lag_for
from portfsm.demo.processes import open_crew
from portfsm.demo.show import Moment, Result, Show, open_show
from portfsm.demo.side import CASUALTIES, Side, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from rich.console import Console

    from portfsm.demo.processes import Crew
    from portfsm.demo.show import Look

HELD, BARE = "hold", "no-hold"
MIN_SECONDS, MAX_SECONDS = 3.0, 3600.0
DRAW_EVERY_S = 0.2
PATIENCE_S = 30.0
"""Bound on each step of the play: only a hang reaches it."""
REST_S = 0.3
"""How long nobody is in control before the next controller is started: a process manager takes that long to notice."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.define(eq=False)
class Supervisor:
    """One run of the demo, from `run`."""

    place: Path
    seconds: float
    show: Show
    ended_by: signal.Signals | None = None
    """What ended it early, if anything did."""
    sides: tuple[Any, ...] = ()
    """Each has `gauges`."""
    _scope: anyio.CancelScope | None = None

    async def run(self) -> None:
        """Everything that needs processes. When it returns, or raises, none of them is left."""
        async with anyio.create_task_group() as group:
            self._scope = group.cancel_scope
            group.start_soon(self._stop_at_signal)
            async with open_crew() as crew:
                await self._set_up(crew)
                await self._play()
            group.cancel_scope.cancel()

    async def _set_up(self, crew: Crew) -> None:
        lag_s = lag_for(self.seconds)
        held, ports = await set_up(crew, name=HELD, directory=self.place, hold_s=HOLD_S, lag_s=lag_s)
        bare, _ = await set_up(crew, name=BARE, directory=self.place, hold_s=0.0, lag_s=lag_s, avoid=ports)
        self.sides = (held, bare)
        self.show.note(f"the logs go to {self.place}")
        self.show.note(f"{held.plan.replicas} replicas a side, behind proxies that hear of changes {lag_s:.1f} s late")

    async def _play(self) -> None:
        await self._on_both(Side.begin)
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(self._draw_for_ever, began)
            await anyio.sleep_until(began + self.seconds / 2)
            await self._kill_and_restart()
            # Little may be left of a short run, or on a slow machine: the holds that ran at the kill shall all come to
            # their end, and some of the ports go to others.
            await anyio.sleep_until(max(began + self.seconds, anyio.current_time() + 1.5 * HOLD_S))
            group.cancel_scope.cancel()
        await self._on_both(Side.end)
        self._draw(self.seconds)

    async def _kill_and_restart(self) -> None:
        await self._on_both(Side.kill)
        self.show.note(f"kill -9: both controllers at work, and {CASUALTIES} replicas of each; the others go on")
        await anyio.sleep(REST_S)
        await self._on_both(Side.start_controller)
        self.show.note("both are back, with nothing but their logs to go by")

    async def _on_both(self, step: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        try:
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    for side in self.sides:
                        group.start_soon(step, side)
        except TimeoutError as error:
            raise DemoError(f"a step that takes a second was not done after {PATIENCE_S:.0f} s") from error

    async def _draw_for_ever(self, began: float) -> None:
        while True:
            self._draw(anyio.current_time() - began)
            await anyio.sleep(DRAW_EVERY_S)

    def _draw(self, at_s: float) -> None:
        self.show.moment(Moment(at_s, self.seconds, [side.gauges for side in self.sides]))
        if self.show.closed:
            self._stop(signal.SIGPIPE)  # `... | head` has seen enough

    async def _stop_at_signal(self) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        self.ended_by = self.ended_by or number
        if self._scope:
            self._scope.cancel()


def run(*, directory: Path | None, seconds: float, json: bool, console: Console) -> int:
    """Run the demo and return the exit code: 0 all proved, 1 a check failed, 128 + N ended by signal N.

    `directory` gets the logs (default: a new temporary one, which is kept). Raises `InvalidValue` when it already has
    some, or when `seconds` is of no use.
    """
    check_length(seconds)
    place = prepare(directory)
    return perform(lambda show: Supervisor(place, seconds, show), conclude, console=console, json=json)


def check_length(seconds: float) -> None:
    """Raise `InvalidValue` for a length of no use."""
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:  # a NaN is neither
        raise InvalidValue(f"seconds must be from {MIN_SECONDS:g} to {MAX_SECONDS:g}, not {seconds!r}", name="seconds", value=seconds)


def perform(
    make: Callable[[Show], Supervisor], conclude: Callable[..., Result], *, console: Console, json: bool, look: Look | None = None
) -> int:
    """Run what `make` makes, and return the exit code. `conclude` gets its sides, and when it `began`."""
    began = time.monotonic()
    with open_show(console, json=json, look=look) as show:
        supervisor = make(show)
        place = supervisor.place
        broken: list[DemoError] = []
        try:
            anyio.run(supervisor.run)
        except* DemoError as group:
            broken += leaves(group)
        if supervisor.ended_by:
            show.note(f"{supervisor.ended_by.name}: every process has ended, the logs so far are in {place}")
            return 128 + supervisor.ended_by
        if broken:
            show.note(f"the demo broke: {broken[0]}. All that its processes said is in {place}/*.stderr.txt")
            return 1
        result = conclude(*supervisor.sides, began=began)
        show.result(result)
    return 0 if result.passed else 1


def prepare(directory: Path | None, names: Sequence[str] = (HELD, BARE)) -> Path:
    """The directory to leave the logs in, made if need be. Raises `InvalidValue` when it has logs already."""
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="portfsm-demo-"))
    if any((directory / name).exists() for name in names):
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


def leaves(group: BaseExceptionGroup[DemoError]) -> list[DemoError]:
    """The errors in a tree of groups."""
    found: list[DemoError] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def conclude(held: Side, bare: Side, *, began: float) -> Result:
    """Read the logs and hold everybody to what they said."""
    plan = held.plan
    try:
        events = list(read_journal(plan.log))
    except JournalError as error:
        return Result([checks.Check("the log reads back", passed=False, found=str(error))], plan.log, time.monotonic() - began, [])
    acks = checks.read_acks(plan.acks)
    proofs = (
        checks.came_back(held.opened, start_s=held.start_s),
        checks.acknowledged_kept(events, acks),
        checks.one_holder(events),
        checks.holds_kept(events, hold_s=plan.hold_s),
        checks.stopwatch_agrees(acks, hold_s=plan.hold_s),
        checks.block_kept(events, port=held.blocked_port),
        checks.replay_agrees(events, seq=held.last_words.get("seq", 0), digest=held.last_words.get("digest", "")),
        checks.none_wrong(held.gauges.counts),
        checks.some_wrong(bare.gauges.counts),
    )
    port = checks.tell_tale_port(events, besides=held.blocked_port)
    return Result(proofs, plan.log, time.monotonic() - began, next_commands(plan.log, port, held.blocked_port))


def next_commands(log: Path, port: int, blocked: int) -> Sequence[tuple[str, str]]:
    """What to try on the log, with a port worth looking at."""
    portfsm, place = program(), shlex.quote(str(log))
    return (
        (f"{portfsm} status {place}", "how the pool stands"),
        (f"{portfsm} log {place} -n 20", "the last events"),
        (f"{portfsm} history {place} {port}", "one port's life"),
        (f"{portfsm} explain {place} {blocked}", "why it is not given"),
        (f"{portfsm} verify {place}", "check every line"),
    )


def program() -> str:
    """What to type for `portfsm` here: in a virtual environment that is not activated, its path."""
    beside = Path(sys.executable).with_name("portfsm")
    return shlex.quote(str(beside)) if beside.exists() and not shutil.which("portfsm") else "portfsm"
