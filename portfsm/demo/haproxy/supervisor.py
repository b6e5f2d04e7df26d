"""Runs both sides at once, and says what came of it."""

from __future__ import annotations

import shlex
import tempfile
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm import EventKind, InvalidValue, JournalError, read_journal
from portfsm.demo import checks
from portfsm.demo.haproxy.look import LOOK
from portfsm.demo.haproxy.plan import HARD_STOP_S, LIFE_S, POOL_SIZE, WITH, WITHOUT, haproxy
from portfsm.demo.haproxy.side import Side, set_up
from portfsm.demo.plan import DemoError
from portfsm.demo.show import Result
from portfsm.demo.supervisor import Supervisor, check_length, perform, prepare, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from rich.console import Console

    from portfsm import Event
    from portfsm.demo.processes import Crew


@attrs.define(eq=False)
class Duel(Supervisor):
    """One run of the comparison. The left side goes without evidence."""

    binary: str = ""
    sockets: str = ""

    async def run(self) -> None:
        """Everything that needs processes, and the place for their sockets."""
        with tempfile.TemporaryDirectory(prefix="pf") as self.sockets:
            await super().run()

    async def _set_up(self, crew: Crew) -> None:
        prepared = partial(set_up, crew, directory=self.place, sockets=self.sockets, binary=self.binary)
        without, ports = await prepared(name=WITHOUT)
        with_, _ = await prepared(name=WITH, avoid=ports)
        self.sides = (without, with_)
        self.show.note(f"{POOL_SIZE} ports, replicas that live {LIFE_S[0]:g} to {LIFE_S[1]:g} s, a real HAProxy each; logs in {self.place}")

    async def _play(self) -> None:
        await self._on_both(Side.begin)
        began = anyio.current_time()
        async with self._drawing(began):
            await anyio.sleep_until(began + self.seconds)
        self._draw(self.seconds)
        await self._on_both(Side.end)
        super()._draw(self.seconds)  # the last counts, and the rate as it was

    @asynccontextmanager
    async def _drawing(self, began: float) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self._draw_for_ever, began)
            yield
            group.cancel_scope.cancel()

    def _draw(self, at_s: float) -> None:
        for side in self.sides:
            side.tick(at_s)
        super()._draw(at_s)


def run(*, directory: Path | None, seconds: float, json: bool, console: Console) -> int:
    """See `portfsm.demo.haproxy.run`."""
    check_length(seconds)
    try:
        binary = haproxy()
    except DemoError as error:
        raise InvalidValue(str(error), name="haproxy", value=None) from error
    place = prepare(directory, (WITH, WITHOUT))
    make = partial(Duel, place, seconds, binary=binary)
    return perform(make, conclude, console=console, json=json, look=LOOK)


def conclude(without: Side, with_: Side, *, began: float) -> Result:
    """What was shown, and what the log of the right side says of its ports."""
    log = with_.plan.log
    try:
        events, others = list(read_journal(log)), read_journal(without.plan.log)
        ports = busiest(events), busiest(others)
    except JournalError as error:
        return Result([checks.Check("the log reads back", passed=False, found=str(error))], log, time.monotonic() - began, [])
    proofs = (shown(without), kept(with_), on_evidence(events), checks.one_holder(events), pace(without, with_))
    return Result(proofs, log, time.monotonic() - began, next_commands(log, without.plan.log, *ports))


def shown(side: Side) -> checks.Check:
    """Without evidence some clients were answered by another service: else this run has shown nothing."""
    return attrs.evolve(checks.some_wrong(side.gauges.counts), name="wrong answers without evidence")


def kept(side: Side) -> checks.Check:
    """With it none was."""
    return attrs.evolve(checks.none_wrong(side.gauges.counts), name="no wrong answer with evidence")


def on_evidence(events: Iterable[Event]) -> checks.Check:
    """No port went to another service but after HAProxy's evidence, by the log."""
    released: dict[int, str] = {}
    reused, broken = 0, []
    for event in events:
        if event.kind is EventKind.RELEASED:
            released[event.port] = event.service
        elif event.kind is EventKind.FREED:
            if event.cause == "evidence":
                released.pop(event.port, None)
                reused += 1
        elif event.kind is EventKind.ALLOCATED and released.pop(event.port, event.service) != event.service:
            broken.append(f"{event.port} at seq {event.seq}")
    found = f"{reused} times a port was free because HAProxy said so, {len(broken)} times one was given on without that"
    found += f": {broken[0]}" if broken else ""
    return checks.Check("ports freed on evidence", reused > 0 and not broken, found, {"by_evidence": reused, "otherwise": len(broken)})


def pace(without: Side, with_: Side) -> checks.Check:
    """What it cost: the starts per second of both, and what a hold would have allowed."""
    fixed = POOL_SIZE / (sum(LIFE_S) / 2 + HARD_STOP_S)
    left, right = without.gauges.per_s, with_.gauges.per_s
    found = (
        f"{right:.1f} with evidence, {left:.1f} without; a hold of {HARD_STOP_S} s, for which an old worker may live, allows {fixed:.2f}"
    )
    return checks.Check("starts per second", right > 0, found, {"evidence": right, "no_evidence": left, "hold": round(fixed, 3)})


def busiest(events: Iterable[Event]) -> int:
    """The port with the most leases."""
    ports = [event.port for event in events if event.kind is EventKind.ALLOCATED]
    return max(set(ports), key=ports.count, default=0)


def next_commands(log: Path, other: Path, port: int, others: int) -> Sequence[tuple[str, str]]:
    """What to try on the logs, with a port of each worth looking at."""
    portfsm, place = program(), shlex.quote(str(log))
    return (
        (f"{portfsm} history {place} {port}", "one port's life"),
        (f"{portfsm} history {shlex.quote(str(other))} {others}", "the same without"),
        (f"{portfsm} status {place}", "how the pool stands"),
        (f"{portfsm} verify {place}", "check every line"),
        (f"less {shlex.quote(str(log.with_name(f'{log.name}.haproxy')))}/*.cfg", "HAProxy's last file"),
    )
