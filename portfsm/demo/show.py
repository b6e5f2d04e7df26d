"""What the user sees: a live table on a terminal, a line a second in a pipe, JSON lines for programs.

The supervisor tells a `Show` of moments, notes and the result, and does not know which of the three it is.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol

import attrs
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from portfsm.demo.checks import Check
    from portfsm.demo.side import Gauges

PLAIN_EVERY_S = 1.0


@attrs.frozen
class Moment:
    """How things stand `at_s` seconds into a churn of `of_s`."""

    at_s: float
    of_s: float
    sides: Sequence[Any]
    """Gauges, of the kind that the `Look` knows."""


@attrs.frozen
class Result:
    """What the demo proved, and what to look at next."""

    checks: Sequence[Check]
    log: Path
    took_s: float
    next_commands: Sequence[tuple[str, str]]
    """Each with what it shows."""

    @property
    def passed(self) -> bool:
        """Whether every check did."""
        return all(check.passed for check in self.checks)


class Show(Protocol):
    """Somewhere to tell it."""

    closed: bool
    """Nobody is listening any more: the reader of the pipe has left."""

    def note(self, text: str) -> None:
        """Something happened."""
        ...

    def moment(self, moment: Moment) -> None:
        """Some time has passed."""
        ...

    def result(self, result: Result) -> None:
        """It is over."""
        ...


@attrs.frozen
class Look:
    """How the gauges of one kind of side are shown to people."""

    words: Callable[[Any], str]
    """A side in one short line."""
    table: Callable[[Sequence[Any]], Table]
    """All sides beside each other."""


@contextmanager
def open_show(console: Console, *, json: bool, look: Look | None = None) -> Iterator[Show]:
    """The one that fits where the output goes."""
    look = look or Look(in_words, side_table)
    if json:
        yield JsonShow(console)
    elif console.is_terminal:
        # No thread that refreshes: the supervisor tells of a moment often enough.
        with Live(console=console, auto_refresh=False) as live:
            yield LiveShow(live, look)
    else:
        yield PlainShow(console, look)


class JsonShow:
    """One JSON object a line, and nothing else."""

    def __init__(self, console: Console) -> None:
        self._file = console.file
        self.closed = False

    def note(self, text: str) -> None:
        """`{"kind": "note", "text": ...}`."""
        self._write({"kind": "note", "text": text})

    def moment(self, moment: Moment) -> None:
        """`{"kind": "progress", "at_s": ..., "of_s": ..., "sides": [...]}`."""
        self._write({"kind": "progress", **attrs.asdict(attrs.evolve(moment, at_s=round(moment.at_s, 1)))})

    def result(self, result: Result) -> None:
        """A `check` line each, then one `result` line."""
        for check in result.checks:
            self._write({"kind": "check", **attrs.asdict(check)})
        commands = [command for command, _ in result.next_commands]
        self._write(
            {"kind": "result", "passed": result.passed, "log": str(result.log), "took_s": round(result.took_s, 2), "next": commands}
        )

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(msgspec.json.encode(line).decode() + "\n")
            self._file.flush()
        except BrokenPipeError:
            self.closed = True
            silence(self._file)


class PlainShow:
    """Lines of text without colour, one a second."""

    def __init__(self, console: Console, look: Look | None = None) -> None:
        self._console = console
        self._words = look.words if look else in_words
        self._due_s = 0.0
        self.closed = False

    def note(self, text: str) -> None:
        """A line."""
        self._print(text)

    def moment(self, moment: Moment) -> None:
        """A line, if the last one is old enough."""
        if moment.at_s >= self._due_s:
            self._due_s = moment.at_s + PLAIN_EVERY_S
            sides = " | ".join(f"{side.name}: {self._words(side)}" for side in moment.sides)
            self._print(f"{moment.at_s:5.1f} s  {sides}")

    def result(self, result: Result) -> None:
        """A line a check, the verdict, the commands."""
        for check in result.checks:
            self._print(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.found}")
        self._print(verdict(result))
        for command, shows in result.next_commands:
            self._print(f"  {command:{widest(result)}}  {shows}")

    def _print(self, text: str) -> None:
        try:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        except (BrokenPipeError, SystemExit):  # the latter is how rich takes the former, since 13.9
            self.closed = True
            silence(self._console.file)


def silence(file: IO[str]) -> None:
    """Send what is left in the buffer nowhere, or the interpreter would try once more when it exits, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


def in_words(side: Gauges) -> str:
    """A side in one short line."""
    counts = side.counts
    return f"{side.moved} moved, {side.quarantined} quarantined, {counts.right} right, {counts.wrong} WRONG, {counts.failed} failed"


class LiveShow:
    """A table that changes in place; notes scroll by above it."""

    def __init__(self, live: Live, look: Look) -> None:
        self._live = live
        self._table = look.table
        self.closed = False

    def note(self, text: str) -> None:
        """A line above the table."""
        self._live.console.print(Text(text), highlight=False)

    def moment(self, moment: Moment) -> None:
        """Draw the table anew."""
        self._live.update(self.drawn(moment), refresh=True)

    def drawn(self, moment: Moment) -> Group:
        """How far it has come, and the table."""
        bar = Table.grid(padding=(0, 1))
        clock = f"{min(moment.at_s, moment.of_s):4.1f} of {moment.of_s:g} s"
        bar.add_row(Text(clock), ProgressBar(total=moment.of_s, completed=min(moment.at_s, moment.of_s), width=40))
        return Group(bar, self._table(moment.sides))

    def result(self, result: Result) -> None:
        """The checks as a table, the verdict, the commands."""
        print_ = self._live.console.print
        self._live.stop()
        print_(check_table(result.checks))
        print_(Text(verdict(result), style="bold green" if result.passed else "bold red"), highlight=False)
        for command, shows in result.next_commands:
            print_(Text.assemble("  ", (f"{command:{widest(result)}}", "cyan"), (f"  {shows}", "dim")), soft_wrap=True, highlight=False)


ROWS: Sequence[tuple[str, Callable[[Gauges], Text]]] = (
    ("controller", lambda side: Text(side.controller, "bold red" if side.controller.startswith("killed") else "")),
    ("events in the log", lambda side: Text(str(side.seq))),
    ("replicas serving", lambda side: Text(str(side.replicas))),
    ("replicas moved", lambda side: Text(str(side.moved))),
    ("ports quarantined", lambda side: Text(str(side.quarantined))),
    ("ports free", lambda side: Text(str(side.free))),
    ("answers right", lambda side: Text(str(side.counts.right), "green")),
    ("answers from the WRONG service", lambda side: Text(str(side.counts.wrong), "bold red" if side.counts.wrong else "green")),
    ("answers failed", lambda side: Text(str(side.counts.failed))),
)


def side_table(sides: Sequence[Gauges]) -> Table:
    """A column a side."""
    table = Table(show_header=True, header_style="bold")
    table.add_column("")
    for side in sides:
        table.add_column(f"hold {side.hold_s:g} s" if side.hold_s else "no hold", justify="right", min_width=16)
    for label, cell in ROWS:
        table.add_row(label, *map(cell, sides))
    return table


def check_table(checks: Sequence[Check]) -> Table:
    """A row a check."""
    table = Table(show_header=False, show_lines=False, pad_edge=False, box=None)
    for check in checks:
        mark = Text("✓", "bold green") if check.passed else Text("✗", "bold red")
        table.add_row(mark, Text(check.name, "bold", no_wrap=True), Text(check.found))
    return table


def verdict(result: Result) -> str:
    """One sentence."""
    failed = [check.name for check in result.checks if not check.passed]
    if failed:
        return f"{len(failed)} of {len(result.checks)} checks failed: {', '.join(failed)}. The log: {result.log}"
    return f"All {len(result.checks)} checks passed in {result.took_s:.0f} s. Look at the log it left:"


def widest(result: Result) -> int:
    """The width of the longest command."""
    return max(len(command) for command, _ in result.next_commands)
