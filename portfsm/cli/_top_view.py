"""What `portfsm top` shows: pools as bars, and the ports that are not free, to fill a screen of any size. Keys change what is shown.

Rule: no file, no clock, no keyboard. State and the present come in, lines of text go out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from rich.console import Group
from rich.text import Text

from portfsm.cli._status import left
from portfsm.cli._text import STATE_STYLES, neutral
from portfsm.cli._times import clock_text, duration
from portfsm.cli._views import pools_of
from portfsm.cli._words import count
from portfsm.states import PortState

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.values import PortView

__all__ = ["HELP", "Screen", "View"]

HELP: Final = "q quit   \u2191\u2193 PgUp PgDn scroll   s state   o order   p pool   space pause"
_STATES: Final = (None, PortState.ALLOCATED, PortState.QUARANTINED, PortState.BLOCKED)
_FOR_EVER: Final = 1 << 63
_ORDERS: Final[dict[str, Callable[[PortView], tuple[object, ...]]]] = {
    "port": lambda view: (view.node, view.pool, view.port),
    "longest": lambda view: (view.since or _FOR_EVER, view.port),
    "newest": lambda view: (-(view.since or 0), view.port),
    "next to end": lambda view: (view.until or _FOR_EVER, view.port),
}
_LEAST_BAR = 10
_TITLES: Final = ("node", "pool", "port", "state", "for", "left", "owner", "service", "reason")
_BY_NEED: Final = ("port", "state", "owner", "for", "node", "pool", "left", "service", "reason")
_FIGURES: Final = frozenset({"port", "for", "left"})
_SOME: Final = 12
"""So much of a column is worth showing."""


@attrs.define
class View:
    """What somebody chose to see."""

    state: int = 0
    order: int = 0
    pool: int = 0
    first: int = 0
    """Index of the first port shown."""
    page: int = 10
    paused: bool = False

    def press(self, key: str) -> bool:
        """Take a key; False when it means the end."""
        match key:
            case "q" | "esc":
                return False
            case "s":
                self.state, self.first = (self.state + 1) % len(_STATES), 0
            case "o":
                self.order, self.first = (self.order + 1) % len(_ORDERS), 0
            case "p":
                self.pool, self.first = self.pool + 1, 0
            case " ":
                self.paused = not self.paused
            case _:
                self._scroll(key)
        return True

    def _scroll(self, key: str) -> None:
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self.page, "page down": self.page}
        ends = {"home": 0, "g": 0, "end": _FOR_EVER, "G": _FOR_EVER}
        self.first = ends.get(key, self.first + steps.get(key, 0))


@attrs.frozen
class Screen:
    """One picture of a log."""

    log: str
    ledger: Ledger
    now_ns: int
    per_s: float
    """Events a second of late."""
    width: int
    height: int

    def draw(self, view: View) -> RenderableType:
        """Lines to fill the screen; `view` learns how far it can scroll."""
        pools = pools_of(self.ledger)
        chosen = pools[(view.pool - 1) % len(pools)] if pools and view.pool % (len(pools) + 1) else None
        if chosen is None:
            view.pool = 0
        above = [self._title(view), *self._pools(pools, chosen)][: max(1, self.height - 4)]
        ports = self._chosen(view, chosen)
        view.page = max(1, self.height - len(above) - 3)
        view.first = max(0, min(view.first, len(ports) - view.page))
        rows = self._ports(ports[view.first : view.first + view.page])
        blank = [Text()] * (self.height - len(above) - len(rows) - 2)
        return Group(*above, self._caption(view, ports), *rows, *blank, self._line(Text(HELP, style="dim")))

    def _title(self, view: View) -> Text:
        rate = f"{self.per_s:.0f} events/s" if self.per_s >= 10 or not self.per_s else f"{self.per_s:.1f} events/s"  # noqa: PLR2004
        at = f"@{self.ledger.seq}  {clock_text(self.ledger.ts)[:8]}" if self.ledger.seq else "no events yet"
        title = Text(f"{neutral(self.log)}  {at}  epoch {self.ledger.epoch}  {rate}", style="bold")
        if view.paused:
            title.append("  PAUSED", style="bold yellow")
        return self._line(title)

    def _line(self, text: Text) -> Text:
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _pools(self, pools: list[Pool], chosen: Pool | None) -> list[Text]:
        room = max(1, self.height // 3)
        names = [f"{neutral(pool.node)}/{neutral(pool.name)}" if pool.node else neutral(pool.name) for pool in pools[:room]]
        wide = max(map(len, names), default=0)
        lines = [self._pool(pool, name.ljust(wide), marked=pool is chosen) for pool, name in zip(pools, names, strict=False)]
        return lines if len(pools) <= room else [*lines, Text(f"and {count(len(pools) - room, 'pool')} more", style="dim")]

    def _pool(self, pool: Pool, name: str, *, marked: bool) -> Text:
        found = pool.statistics()
        figures = f"{found.free} free of {found.size}" + (f", {found.retired} retired" if found.retired else "")
        room = max(_LEAST_BAR, self.width - len(name) - len(figures) - 4)
        line = Text(f"{'>' if marked else ' '} {name} ", style="bold" if marked else "")
        for style, length in _bar(found.size, room, allocated=found.allocated, quarantined=found.quarantined, blocked=found.blocked):
            line.append("\u2588" * length if style else "\u00b7" * length, style=style)
        line.append(f" {figures}", style="" if found.free else "bold red")
        return self._line(line)

    def _chosen(self, view: View, chosen: Pool | None) -> list[PortView]:
        state = _STATES[view.state]
        found = self.ledger.ports() if chosen is None else self.ledger.ports(chosen.name, node=chosen.node)
        key = _ORDERS[list(_ORDERS)[view.order]]
        return sorted((port for port in found if state in (None, port.state)), key=key)

    def _caption(self, view: View, ports: list[PortView]) -> Text:
        state = _STATES[view.state]
        what = count(len(ports), f"{state.value if state else 'held'} port")
        shown = f", {view.first + 1} to {min(len(ports), view.first + view.page)}" if len(ports) > view.page else ""
        return self._line(Text(f"{what}{shown}, by {list(_ORDERS)[view.order]}", style="dim"))

    def _ports(self, ports: list[PortView]) -> list[Text]:
        """A header and a line a port: the columns that have something to say and fit, most telling first."""
        rows = [_cells(port, self.now_ns) for port in ports]
        wide = {title: max(map(len, (title, *(row[title] for row in rows)))) for title in _TITLES if any(row[title] for row in rows)}
        shown: set[str] = set()
        for title in sorted(wide, key=_BY_NEED.index):
            if sum(wide[other] + 2 for other in shown) + min(wide[title], _SOME) <= self.width:
                shown.add(title)
        titles = [title for title in _TITLES if title in shown]
        header = Text("  ".join(_aligned(title, title, wide[title]) for title in titles), style="bold")
        lines = [
            Text("  ").join(Text(_aligned(row[title], title, wide[title]), style=_style(row, title)) for title in titles) for row in rows
        ]
        for line in lines:
            line.rstrip()
        return [self._line(line) for line in (header, *lines)]


def _cells(port: PortView, now_ns: int) -> dict[str, str]:
    held = duration(now_ns - port.since) if port.since else ""
    reason = "" if port.reason == "released" else port.reason
    cells = (port.node, port.pool, str(port.port), port.state.value, held, left(port, now_ns), port.owner, port.service, reason)
    return {title: neutral(cell) for title, cell in zip(_TITLES, cells, strict=True)}


def _aligned(text: str, title: str, width: int) -> str:
    return text.rjust(width) if title in _FIGURES else text.ljust(width)


def _style(row: dict[str, str], title: str) -> str:
    return STATE_STYLES[row[title]] if title == "state" else ""


def _bar(size: int, room: int, **counts: int) -> list[tuple[str, int]]:
    """Styles and lengths that share `room` as the counts share `size`; what is there at all is seen."""
    lengths = {name: max(1, number * room // size) if number else 0 for name, number in counts.items()}
    while sum(lengths.values()) > room:
        longest = max(lengths, key=lambda name: lengths[name])
        lengths[longest] -= 1
    shown = [(STATE_STYLES[name.upper()], length) for name, length in lengths.items()]
    return [*shown, ("", room - sum(lengths.values()))]
