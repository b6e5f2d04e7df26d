"""Text for people: tables that are coloured on a terminal and plain, whole lines in a pipe.

Every cell and every line goes through `neutral`: a log can be forged, and a name in it must not be able to move the
cursor, hide a line or turn the reading direction. Rich is imported on a terminal only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from portfsm.cli._times import clock_text, day_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from portfsm.cli._out import Out

__all__ = ["STATE_STYLES", "Cell", "Column", "Sheet", "neutral"]

STATE_STYLES = {"FREE": "cyan", "ALLOCATED": "green", "QUARANTINED": "yellow", "BLOCKED": "red"}
_GAP = "  "
_ESCAPED = re.compile(r"[^ -~]")


def neutral(text: str) -> str:
    """`text` with everything that is not plainly visible written as an escape: control, direction and format characters."""
    if text.isprintable():
        return text
    return _ESCAPED.sub(lambda match: match[0] if match[0].isprintable() else _escape(match[0]), text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


class Cell(NamedTuple):
    """Text or a time (UTC ns) in a table. An empty text is an empty cell."""

    value: str | int
    style: str = ""


@attrs.frozen
class Column:
    """How to show one column."""

    title: str
    right: bool = False
    style: str = ""
    time: bool = False
    """Its cells are times. On a terminal only the time of day is shown, and the day in a line of its own where it changes."""


class Sheet:
    """A table that may be printed in parts, aligned as far as the parts known so far allow.

    A column that is empty in all rows is left out. The last column takes what room is left and may be folded.
    """

    def __init__(self, out: Out, columns: Sequence[Column]) -> None:
        self._out = out
        self._columns = columns
        self._widths = [0] * len(columns)
        self._shown: list[int] = []
        self._day = ""

    def add(self, rows: Sequence[Sequence[Cell | str | int]]) -> None:
        """Print more rows."""
        if not rows:
            return
        console = self._out.console
        cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
        texts = [row for line in cells for row in self._lines(line, by_day=console is not None)]
        header = self._measure(texts)
        if console is None:
            self._print_plain(texts, header=header)
        else:
            self._print_rich(console, texts, header=header)

    def _lines(self, row: list[Cell], *, by_day: bool) -> Iterator[list[Cell]]:
        """The row as texts; before it the day, when that is another than before."""
        times = [index for index, column in enumerate(self._columns) if column.time and isinstance(row[index].value, int)]
        if by_day and times:
            first = times[0]
            day = day_text(int(row[first].value))
            if day != self._day:
                self._day = day
                yield [Cell(day if index == first else "", "bold") for index in range(len(row))]
        yield [Cell(neutral(self._text(cell.value, by_day=by_day)), cell.style) for cell in row]

    def _text(self, value: str | int, *, by_day: bool) -> str:
        if isinstance(value, str):
            return value
        if not by_day:
            return time_text(value)
        return clock_text(value) if day_text(value) == self._day else time_text(value)

    def _measure(self, texts: list[list[Cell]]) -> bool:
        """Widen the columns as needed. True when the header has to be printed (again)."""
        for row in texts:
            for index, cell in enumerate(row):
                self._widths[index] = max(self._widths[index], _width(str(cell.value)))
        shown = [index for index, width in enumerate(self._widths) if width]
        if shown == self._shown:
            return False
        self._shown = shown
        for index in shown:
            self._widths[index] = max(self._widths[index], len(self._columns[index].title))
        return True

    def _print_plain(self, texts: list[list[Cell]], *, header: bool) -> None:
        titles = [[Cell(column.title) for column in self._columns]] if header else []
        for row in titles + texts:
            line = _GAP.join(self._pad(index, str(row[index].value)) for index in self._shown)
            self._out.write(line.rstrip() + "\n")

    def _pad(self, index: int, text: str) -> str:
        space = " " * (self._widths[index] - _width(text))
        return space + text if self._columns[index].right else text + space

    def _print_rich(self, console: Console, texts: list[list[Cell]], *, header: bool) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), show_header=header, header_style="bold underline")
        last = self._shown[-1]
        for index in self._shown:
            column = self._columns[index]
            size: dict[str, Any] = {"overflow": "fold"} if index == last else {"min_width": self._widths[index], "no_wrap": True}
            table.add_column(column.title, justify="right" if column.right else "left", style=column.style, **size)
        for row in texts:
            table.add_row(*(Text(str(row[index].value), row[index].style) for index in self._shown))
        console.print(table)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
