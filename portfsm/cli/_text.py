"""Text for people: tables that are coloured on a terminal and plain, whole lines in a pipe.

Every cell and every line goes through `neutral`: a log can be forged, and a name in it must not be able to move the
cursor, hide a line or turn the reading direction. Rich is imported on a terminal only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import attrs

from portfsm.cli._times import clock_text, day_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from portfsm.cli._out import Out

__all__ = ["STATE_STYLES", "Cell", "Column", "Row", "Sheet", "fold", "neutral"]

STATE_STYLES = {"FREE": "cyan", "ALLOCATED": "green", "QUARANTINED": "yellow", "BLOCKED": "red"}
_GAP = "  "
_READABLE = 24
"""A column of text this wide may be folded; a narrower one stands below its row."""
_ESCAPED = re.compile(r"[^ -~]")
_PARTS = re.compile(r"[^ ,]*[ ,]|[^ ,]+")


def neutral(text: str) -> str:
    """`text` with everything that is not plainly visible written as an escape: control, direction and format characters."""
    if text.isprintable():
        return text
    return _ESCAPED.sub(lambda match: match[0] if match[0].isprintable() else _escape(match[0]), text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def fold(text: str, width: int, *, whole: bool = True) -> list[str]:
    """`text` in lines of at most `width`, broken behind spaces and commas.

    A longer piece stays whole, so that it can be copied; unless it must not leave its column (`whole=False`).
    """
    lines = [""]
    for part in _PARTS.findall(text):
        for piece in [part] if whole else _chopped(part, width):
            if lines[-1] and _width((lines[-1] + piece).rstrip(" ")) > width:
                lines.append("")
            lines[-1] += piece if lines[-1] else piece.lstrip(" ")
    return [line.rstrip(" ") for line in lines]


def _chopped(text: str, width: int) -> list[str]:
    pieces = [""]
    for char in text:
        if _width(pieces[-1] + char.rstrip(" ")) > width:
            pieces.append("")
        pieces[-1] += char
    return pieces


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
    label: str = ""
    """What to call a cell of it that has no room on its row's line."""


Row = Sequence[Cell | str | int]
"""The cells of a row, of which those without a style may be bare."""


class Sheet:
    """A table that may be printed in parts, aligned as far as the parts known so far allow.

    A column that is empty in all rows is left out. In a pipe every row is one whole line, however long. On a terminal the
    last column is folded, and columns that still do not fit stand on a line of their own below the row: nothing is cut, and no name
    is broken.
    """

    def __init__(self, out: Out, columns: Sequence[Column]) -> None:
        self._out = out
        self._columns = columns
        self._widths = [0] * len(columns)
        self._shown: list[int] = []
        self._day = ""

    def add(self, rows: Sequence[Row]) -> None:
        """Print more rows."""
        if not rows:
            return
        console = self._out.console
        cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
        texts = [row for line in cells for row in self._lines(line, by_day=console is not None)]
        new = self._measure(texts)
        room = self._room(console.width) if console else len(self._shown)
        folds = console is not None and room == len(self._shown) - 1 and self._left(console.width) >= _READABLE
        if new and any(column.title for column in self._columns):
            titles = [Cell(column.title, "bold") for column in self._columns]
            self._print(console, self._first_line(titles, room + folds))
        for row in texts:
            if console and folds:
                self._print_folded(console, row)
                continue
            self._print(console, self._first_line(row, room))
            if console:
                self._print_below(console, row, room)

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
        day, clock = day_text(value), clock_text(value)
        return clock if day == self._day else f"{day} {clock[:5]}"

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

    def _room(self, width: int) -> int:
        """How many of the shown columns fit on a line."""
        used = -len(_GAP)
        for count, index in enumerate(self._shown):
            used += self._widths[index] + len(_GAP)
            if used > width:
                return max(1, count)
        return len(self._shown)

    def _left(self, width: int) -> int:
        """How much of a line the last column may take."""
        return width - sum(self._widths[index] + len(_GAP) for index in self._shown[:-1])

    def _print_folded(self, console: Console, row: list[Cell]) -> None:
        """The last column in lines of its own width."""
        cell = row[self._shown[-1]]
        width = self._left(console.width)
        start = self._first_line(row, len(self._shown) - 1)
        for line in fold(str(cell.value), width, whole=False):
            self._print(console, [*start, Cell(line, cell.style)])
            start = [Cell(" " * (console.width - width))]

    def _first_line(self, row: list[Cell], room: int) -> list[Cell]:
        line: list[Cell] = []
        for index in self._shown[:room]:
            text = str(row[index].value)
            space = " " * (self._widths[index] - _width(text))
            text = space + text if self._columns[index].right else text + space
            line += [Cell(text, row[index].style or self._columns[index].style), Cell(_GAP)]
        return line

    def _print_below(self, console: Console, row: list[Cell], room: int) -> None:
        """What has no room on the row's line, each with its label, in lines of their own."""
        start = Cell(" " * (self._widths[self._shown[0]] + len(_GAP)))
        width = max(_READABLE, console.width - len(str(start.value)))
        line, used = [start], 0
        for index in (index for index in self._shown[room:] if row[index].value):
            label = f"{self._columns[index].label} ".lstrip()
            for text in fold(str(row[index].value), width - len(label)):
                size = len(label) + _width(text)
                if used and used + size > width:
                    self._print(console, line)
                    line, used = [start], 0
                line += [Cell(label, "dim"), Cell(text, row[index].style), Cell(_GAP)]
                used += size + len(_GAP)
                label = ""
        if used:
            self._print(console, line)

    def _print(self, console: Console | None, line: list[Cell]) -> None:
        if console is None:
            self._out.write("".join(str(cell.value) for cell in line).rstrip() + "\n")
            return
        from rich.text import Text

        text = Text.assemble(*((str(cell.value), cell.style) for cell in line))
        text.rstrip()
        console.print(text, soft_wrap=True)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
