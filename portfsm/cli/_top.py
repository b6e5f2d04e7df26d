"""`portfsm top`: the log as it grows, on a terminal, until somebody has seen enough."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import click

from portfsm.cli import _options as options
from portfsm.cli._reading import log_now, read_state, signature
from portfsm.journals import past_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.audit import Replay

__all__ = ["top"]

_TICK_S: Final = 0.2
_REDRAW_S: Final = 1.0
"""Times go on though nothing happens."""
_RATE_S: Final = 10.0
_KEYS: Final = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1b[F": "end", "\x1b[1~": "home", "\x1b[4~": "end", "\x1b": "esc",
}  # fmt: skip


@options.command("portfsm top ports-log")
@options.log
@click.pass_context
def top(ctx: click.Context, log: str) -> None:
    """A live view in the terminal.

    Pools as bars, and every port that is not free. Keys: q quits; arrows, PgUp and PgDn scroll; s chooses a state, o an order, p a
    pool; space pauses.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal: use `portfsm status`, or `portfsm log --follow`")
    from rich.live import Live

    from portfsm.cli._out import Out
    from portfsm.cli._top_view import Screen, View

    console, clock = Out().console, options.clock_of(ctx)
    watched, view = _Watched(log), View()
    with _keyboard() as fd, Live(console=console, screen=True, auto_refresh=False, redirect_stderr=False) as live:
        size = None
        drawn_s = 0.0
        while True:
            grown = not view.paused and watched.catch_up()
            if grown or size != os.get_terminal_size() or time.monotonic() - drawn_s > _REDRAW_S:
                size, drawn_s = os.get_terminal_size(), time.monotonic()
                ledger = watched.replay.ledger
                picture = Screen(log, ledger, log_now(ledger, clock), watched.per_s(), size.columns, size.lines)
                live.update(picture.draw(view), refresh=True)
            keys = _pressed(fd, _TICK_S)
            if not all(view.press(key) for key in keys):
                return
            drawn_s = 0.0 if keys else drawn_s


class _Watched:
    """A log, and how fast it grows."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._seen = signature(log)
        self.replay: Replay = read_state(log)
        self._past: deque[tuple[float, int]] = deque([(time.monotonic(), self.replay.ledger.seq)])

    def catch_up(self) -> bool:
        """Take in what is new. Tells whether anything was."""
        found, seq = signature(self._log), self.replay.ledger.seq
        if found != self._seen:
            self._seen = found
            for batch in past_of(self._log).batches(seq):
                self.replay.take(batch)
        now_s = time.monotonic()
        self._past.append((now_s, self.replay.ledger.seq))
        while now_s - self._past[0][0] > _RATE_S:
            self._past.popleft()
        return self.replay.ledger.seq > seq

    def per_s(self) -> float:
        """Events a second, over the last ten."""
        (first_s, first), (last_s, last) = self._past[0], self._past[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


@contextlib.contextmanager
def _keyboard() -> Iterator[int]:
    """Keys as they are pressed, not shown; the terminal is put back as it was."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _pressed(fd: int, within_s: float) -> list[str]:
    """The keys pressed by now, or within so long. A closed terminal means the end."""
    ready, _, _ = select.select([fd], [], [], within_s)
    if not ready:
        return []
    text = os.read(fd, 64).decode(errors="replace")
    return list(_keys_in(text)) if text else ["q"]


def _keys_in(text: str) -> Iterator[str]:
    while text:
        code = max((code for code in _KEYS if text.startswith(code)), key=len, default=text[0])
        yield _KEYS.get(code, code)
        text = text[len(code) :]
