"""A pager for what is longer than the screen, as in git: `$PAGER`, else less, which leaves at once when all fits on the screen."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from portfsm.cli._out import console_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.cli._out import Out

__all__ = ["paged"]


@contextlib.contextmanager
def paged(out: Out) -> Iterator[None]:
    """Lines of `out` go to the pager when they would go to a terminal; notes and errors come after it.

    `PAGER=cat`, or an empty one, means none.
    """
    command = _command()
    if out.console is None or not command:
        yield
        return
    terminal = out.console
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={"LESS": "FRX"} | os.environ, text=True) as pager:  # noqa: S603  (it is the user's)
        out.console = console_on(pager.stdin, width=terminal.width)
        out.held = []
        try:
            yield
        finally:
            out.console = terminal
            _wait(pager)
            notes, out.held = out.held, None
            for note in notes:
                out.note(note)


def _command() -> list[str]:
    words = shlex.split(os.environ.get("PAGER", "less"))
    return words if words and words != ["cat"] and shutil.which(words[0]) and os.environ.get("TERM") != "dumb" else []


def _wait(pager: subprocess.Popen[str]) -> None:
    """Until the reader has seen enough. Ctrl-C is the pager's meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.suppress(BrokenPipeError):
            if pager.stdin is not None:
                pager.stdin.close()
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
