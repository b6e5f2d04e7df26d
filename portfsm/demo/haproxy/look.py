"""How the comparison looks: a column a side, and the wrong answers second by second.

The table leaves a column of an 80-column terminal free: what the terminal itself writes there (`^C`) must not begin a new line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from portfsm.demo.haproxy.plan import WITH
from portfsm.demo.show import Look

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from portfsm.demo.haproxy.side import Gauges

LEVELS = "▁▂▃▄▅▆▇█"
SECONDS = 20
"""How many of the last seconds are drawn."""


def spark(counts: Sequence[int], most: int) -> str:
    """A bar a number, the highest for `most`; nothing but a dot for 0."""
    return "".join(LEVELS[(len(LEVELS) - 1) * count // most] if count else "·" for count in counts)


def table(sides: Sequence[Gauges]) -> Table:
    """A column a side."""
    most = max([1, *(count for side in sides for count in side.wrong_by_second)])
    found = Table(header_style="bold")
    found.add_column("")
    for side in sides:
        found.add_column("with evidence" if side.name == WITH else "without evidence", justify="right", min_width=SECONDS)
    for label, cell in ROWS:
        found.add_row(label, *map(cell, sides))
    found.add_section()
    found.add_row(Text("answers from WRONG service", "bold"), *(Text(str(side.counts.wrong), alarm(side)) for side in sides))
    found.add_row("  each second", *(Text(spark(side.wrong_by_second[-SECONDS:], most), alarm(side)) for side in sides))
    return found


def alarm(side: Gauges) -> str:
    """Red from the first wrong answer on."""
    return "bold red" if side.counts.wrong else "bold green"


def words(side: Gauges) -> str:
    """A side in one short line."""
    counts = side.counts
    return f"{side.started} started, {side.per_s:.1f}/s, {counts.right} right, {counts.wrong} WRONG, {counts.failed} failed"


ROWS: Sequence[tuple[str, Callable[[Gauges], str | Text]]] = (
    ("HAProxy hears of an end", lambda side: Text("at once" if side.name == WITH else "at the next reload", "dim")),
    ("a port is free", lambda side: Text("when HAProxy let go" if side.name == WITH else "when released", "dim")),
    ("ports leased, held, free", lambda side: f"{side.leased}, {side.quarantined}, {side.free}"),
    ("HAProxy let go after", lambda side: f"{side.cleared_ms:.0f} ms" if side.cleared_ms else "not asked"),
    ("HAProxy reloads", lambda side: str(side.reloads)),
    ("replicas started", lambda side: str(side.started)),
    ("starts per second", lambda side: Text(f"{side.per_s:.1f}", "bold")),
    ("answers right", lambda side: Text(str(side.counts.right), "green")),
    ("answers failed", lambda side: str(side.counts.failed)),
)
LOOK = Look(words, table)
