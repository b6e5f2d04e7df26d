"""Draw the pictures of docs/audit.md: `python docs/record_audit.py` writes docs/audit-who.svg and docs/audit-top.svg.

A small log is lived by hand, and what the commands show of it on a terminal is drawn, by the code that shows it there.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

import anyio
from rich.console import Console, RenderableType
from rich.text import Text

from portfsm import PoolSpec, open_manager, read_journal, replay
from portfsm.cli._main import run
from portfsm.cli._top_view import Screen, View
from portfsm.testing import ManualClock

DOCS = Path(__file__).resolve().parent
WIDTH, HEIGHT = 100, 22
START_NS = 1_785_592_800_000_000_000
WHO = ["who", "ports-log", "30007", "--at", "2026-08-01T14:03:07Z", "--within", "20"]


async def live(clock: ManualClock) -> None:
    """An afternoon: two applications share a pool, one port is reused sooner than it should have been, one is blocked."""
    pools = [PoolSpec("http", ports="30000-30039", hold_s=30, floor_s=1), PoolSpec("grpc", ports="40000-40007", hold_s=150)]
    async with open_manager("ports-log", pools=pools, clock=clock, holder="controller-0") as manager:
        leases = [await manager.allocate("http", owner=f"search#Ranker#{n:04x}", service="search") for n in range(0, 32 * 999, 999)]
        for number in range(6):
            await manager.allocate("grpc", owner=f"checkout#Cart#{number:04x}", service="checkout")
        await manager.block("http", 30033, reason="bind: address already in use (nginx, pid 812)", for_s=3600)
        clock.advance(180)
        for lease in leases[4:12]:
            await manager.release(lease)
            clock.advance(0.5)
        await manager.free("http", 30007, reason="a replica waits for it")
        await manager.allocate("http", owner="checkout#Cart#8kq2xv", service="checkout", port=30007)
        clock.advance(4)
        await manager.release(leases[20])
        clock.advance(6)


def drawn(title: str, shown: RenderableType) -> str:
    """The SVG of a terminal that shows this."""
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=WIDTH, color_system="truecolor")
    console.print(Text(f"$ {title}", style="bold"))
    console.print(shown)
    return console.export_svg(title=title, unique_id=title.split()[1])


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        """What is written here is shown to people."""
        return True


def pictures() -> dict[str, str]:
    """File name to SVG."""
    clock = ManualClock(start_ns=START_NS)
    shown = mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH), "PAGER": "cat", "TERM": "xterm-256color"})
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), shown, contextlib.redirect_stdout(_Terminal()) as terminal:
        anyio.run(live, clock)
        run(WHO, clock=clock)
        ledger = replay(read_journal("ports-log"))
    screen = Screen("ports-log", ledger, ledger.ts, 4.2, WIDTH, HEIGHT)
    view = View()
    for key in "oo":
        view.press(key)
    return {
        "audit-who.svg": drawn(f"portfsm {' '.join(WHO)}", Text.from_ansi(terminal.getvalue())),
        "audit-top.svg": drawn("portfsm top ports-log", screen.draw(view)),
    }


if __name__ == "__main__":
    for name, picture in pictures().items():
        (DOCS / name).write_text(picture)
        sys.stdout.write(f"docs/{name} drawn\n")
