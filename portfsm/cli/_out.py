"""Where output goes: text or JSON lines on stdout, notes and errors on stderr, a progress bar when it takes long."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from typing import IO, TYPE_CHECKING, Any, Literal

from portfsm.cli._text import fold, neutral

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console
    from rich.progress import Progress

    from portfsm.events import Event

__all__ = ["Out", "complain", "console_on"]

BAR_AFTER_S = 1.0
_BAR_EVERY = 4_096
_TAIL_BYTES = 64 << 10


class Out:
    """The output of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _console() if not as_json and sys.stdout.isatty() else None
        """None unless stdout is a terminal and gets text."""
        self.held: list[str] | None = None
        """Notes that wait until a pager has left the screen; None without one."""

    def write(self, text: str) -> None:
        """Text as it is."""
        sys.stdout.write(text)

    def flush(self) -> None:
        """Let readers see what was written."""
        sys.stdout.flush()

    def line(self, text: str = "", *, style: str = "", wrap: bool = False) -> None:
        """A line for people. With `wrap`, a terminal breaks it between words; without, it can be copied as it is."""
        text = neutral(text)
        if self.console is None:
            self.write(text + "\n")
            return
        for line in fold(text, self.console.width) if wrap else [text]:
            self.console.print(line, style=style, soft_wrap=True)

    def json(self, value: dict[str, Any]) -> None:
        """A line for programs, in ASCII: whatever a name holds is escaped."""
        self.write(json.dumps(value, separators=(", ", ": ")) + "\n")

    def note(self, text: str) -> None:
        """Something about the output that is not part of it."""
        if self.held is not None:
            self.held.append(text)
        elif not self.as_json:
            complain(text)


def complain(text: str) -> None:
    """A sentence on stderr, below what stdout got before it."""
    with contextlib.suppress(OSError):  # whoever reads stdout may be gone, and is not told here
        sys.stdout.flush()
    text = f"portfsm: {neutral(text)}"
    lines = fold(text, shutil.get_terminal_size().columns) if sys.stderr.isatty() else [text]
    print(*lines, sep="\n", file=sys.stderr)


def _console() -> Console:
    return console_on(None)


def console_on(file: IO[str] | None, *, width: int | None = None) -> Console:
    """A console that writes to stdout, or to what stands between it and the terminal."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # whoever read has seen enough; rich would end the process with code 1

    # NO_COLOR (no-color.org) asks for no escape codes at all, so bold and underline go as well.
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Piped(
        file=file, width=width, force_terminal=True if file else None, color_system=colours, highlight=False, markup=False, emoji=False
    )


class Bar:
    """How far a long replay has come, on stderr, if that is a terminal."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._began_s = time.monotonic()
        self._progress: Progress | None = None
        self._ended = not sys.stderr.isatty()

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events."""
        try:
            for count, event in enumerate(events):
                if not count % _BAR_EVERY and not self._ended:
                    self._show(event.seq)
                yield event
        finally:
            self.end()

    def watch_all(self, batches: Iterable[list[Event]]) -> Iterator[list[Event]]:
        """The same lists of events."""
        try:
            yield from map(self.seen, batches)
        finally:
            self.end()

    def seen(self, batch: list[Event]) -> list[Event]:
        """The same list of events."""
        if batch and not self._ended:
            self._show(batch[-1].seq)
        return batch

    def _show(self, seq: int) -> None:
        if self._progress is None:
            if time.monotonic() - self._began_s < BAR_AFTER_S:
                return
            self._progress = _progress(last_seq(self._log))
        self._progress.update(self._progress.task_ids[0], completed=seq)

    def end(self) -> None:
        """Remove it, so that output can follow."""
        self._ended = True
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _progress(total: int | None) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TextColumn("events"), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.add_task("", total=total)
    progress.start()
    return progress


def last_seq(log: str) -> int | None:
    """About where a log in a directory ends, without proof: good enough for a bar."""
    try:
        last = max(entry.path for entry in os.scandir(log) if entry.name.endswith(".jsonl") and not entry.name.endswith(".snap.jsonl"))
        with open(last, "rb") as file:
            file.seek(max(0, os.path.getsize(last) - _TAIL_BYTES))
            tail = file.read()
    except (OSError, ValueError):
        return None
    digits = tail.rpartition(b'{"seq":')[2].partition(b",")[0]
    return int(digits) if digits.isdigit() else None
