"""`portfsm log`: the events, all or some, and those still to come."""

from __future__ import annotations

import contextlib
import select
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import click

from portfsm.audit import Replay, Selection
from portfsm.cli import _options as options
from portfsm.cli._out import Bar, Out
from portfsm.cli._pager import paged
from portfsm.cli._reading import signature
from portfsm.cli._text import Cell, Column, Row, Sheet
from portfsm.cli._views import event_json
from portfsm.cli._words import KIND_STYLES, details
from portfsm.journals import past_of, read_journal
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm._ledger import Ledger
    from portfsm.audit import Moment, Step
    from portfsm.events import Event
    from portfsm.journals import Past

__all__ = ["Printer", "log"]

_COLUMNS = (
    Column("seq", right=True), Column("time", time=True, style="dim"), Column("event"), Column("node"), Column("pool"),
    Column("port", right=True), Column("owner", label="owner"), Column("service", label="service"), Column("details"),
)  # fmt: skip
_PART = 512
"""So many rows are aligned and printed at a time."""
_POLL_S = 0.2


class Printer:
    """Steps as JSON lines or as rows of a table, some at a time."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._sheet = Sheet(out, _COLUMNS)
        self._rows: list[Row] = []
        self.count = 0

    def add(self, step: Step) -> None:
        """Print one more, at once or soon."""
        self.count += 1
        if self._out.as_json:
            self._out.json(event_json(step))
            return
        self._rows.append(_row(step))
        if len(self._rows) >= _PART:
            self.flush()

    def flush(self) -> None:
        """Print what was kept back."""
        self._sheet.add(self._rows)
        self._rows = []
        self._out.flush()


def _row(step: Step) -> Row:
    event = step.event
    kind = Cell(event.kind.value, KIND_STYLES.get(event.kind, ""))
    port = str(event.port) if event.port else ""
    return [str(event.seq), event.ts, kind, event.node, event.pool, port, event.owner, event.service, details(step)]


@options.command(
    "portfsm log ports-log -n 20",
    "portfsm log ports-log --port 30007 --since '1h ago'",
    "portfsm log ports-log --kind blocked --kind unblocked",
    "portfsm log ports-log --follow --json",
)
@options.log
@click.option("--port", type=options.PORT, metavar="PORT", multiple=True, help="Of this port.")
@click.option("--pool", metavar="NAME", multiple=True, help="Of this pool.")
@click.option("--node", metavar="NAME", multiple=True, help='On this node ("" for this host).')
@click.option("--owner", metavar="NAME", multiple=True, help="That name this owner.")
@click.option("--service", metavar="NAME", multiple=True, help="That name this service.")
@click.option("--kind", type=click.Choice([kind.value for kind in EventKind]), metavar="KIND", multiple=True, help="Of this kind.")
@click.option("--since", type=options.TIME, metavar="TIME", help="At this moment or later.")
@click.option("--until", type=options.TIME, metavar="TIME", help="At this moment or earlier.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is recorded from now on, until Ctrl-C.")
@click.option("-n", "last", type=options.COUNT, metavar="COUNT", help="Only the last ones.")
@options.as_json
def log(log: str, follow: bool, last: int | None, as_json: bool, **chosen: Any) -> None:  # noqa: FBT001
    """The events, oldest first.

    Options that choose may be repeated: `--port 1 --port 2` means either. TIME is 2026-08-01T09:30:00Z, "15m ago" (s, m,
    h, d) or @SEQ. KIND is allocated, adopted, withdrawn, released, held, freed, blocked, unblocked, or of the log itself:
    opened, closed, pool_defined, proxy_joined, proxy_left.
    """
    wanted = _selection(**chosen)
    out = Out(as_json=as_json)
    printer = Printer(out)
    past = past_of(log)
    replay = Replay(_start(past, wanted, last))
    bar = Bar(log)
    steps = replay.steps(_until(bar.watch(past.events(replay.ledger.seq)), wanted), wanted.__contains__)
    with contextlib.nullcontext() if follow else paged(out):
        _print(out, printer, bar, steps, last)
    if follow:
        for step in replay.steps(_until(_coming(log, replay.ledger.seq, printer), wanted), wanted.__contains__):
            printer.add(step)
    elif not printer.count:
        out.note("the log has no events yet" if not replay.ledger.seq else "no event fits these options")


def _start(past: Past, wanted: Selection, last: int | None) -> Ledger:
    """A state after which everything is that somebody wants to see."""
    since = wanted.since
    if since is not None:
        return past.nearest(seq=None if since.seq is None else max(0, since.seq - 1), ts=None if since.ts is None else since.ts - 1)
    if last is not None and wanted == Selection():
        return past.nearest(seq=max(0, past.last_seq() - last))
    return past.nearest(seq=0)


def _print(out: Out, printer: Printer, bar: Bar, steps: Iterable[Step], last: int | None) -> None:
    """All steps, or the last ones; also those before damage, which are worth seeing."""
    kept: deque[Step] = deque(maxlen=last)
    try:
        for step in steps:
            if last is not None:
                kept.append(step)
                continue
            if out.console is not None:
                bar.end()  # both would write to one terminal
            printer.add(step)
    finally:
        for step in kept:
            printer.add(step)
        printer.flush()


def _selection(
    *,
    port: tuple[int, ...],
    pool: tuple[str, ...],
    node: tuple[str, ...],
    owner: tuple[str, ...],
    service: tuple[str, ...],
    kind: tuple[str, ...],
    since: Moment | None,
    until: Moment | None,
) -> Selection:
    return Selection(ports=port, pools=pool, nodes=node, owners=owner, services=service, kinds=kind, since=since, until=until)


def _until(events: Iterable[Event], wanted: Selection) -> Iterator[Event]:
    """The events up to the last that can be wanted."""
    for event in events:
        if wanted.past(event):
            return
        yield event


def _coming(log: str, seq: int, printer: Printer) -> Iterator[Event]:
    """What is recorded after `seq`, for ever, or until nobody reads us any more."""
    seen: object = None
    while True:
        found = signature(log)
        if found != seen:
            seen = found
            for event in read_journal(log, after=seq):
                seq = event.seq
                yield event
            printer.flush()
        _wait()


def _wait() -> None:
    """Sleep a little. Raise `BrokenPipeError` when the other end of the pipe is closed: with nothing to write we would never notice."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(_POLL_S * 1000)):
        raise BrokenPipeError
