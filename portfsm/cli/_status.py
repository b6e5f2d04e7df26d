"""`portfsm status`: what every port is doing, now or at some moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portfsm.audit import Replay
from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._pager import paged
from portfsm.cli._reading import log_now, read_state
from portfsm.cli._text import STATE_STYLES, Cell, Column, Row, Sheet
from portfsm.cli._times import duration, time_text
from portfsm.cli._views import pools_of, status_json
from portfsm.errors import JournalCorrupt
from portfsm.journals._inspect import head_at
from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm.audit import Moment
    from portfsm.values import Head, PortView

__all__ = ["status"]

_PORTS = (
    Column("node"), Column("pool"), Column("port", right=True), Column("state"), Column("for", right=True),
    Column("left", right=True), Column("owner", label="owner"), Column("service", label="service"), Column("reason"),
)  # fmt: skip
_POOLS = (
    Column("node"), Column("pool"), *(
        Column(title, right=True) for title in ("size", "free", "allocated", "quarantined", "blocked", "retired")
    ), Column("ranges"),
)  # fmt: skip


@options.command(
    "portfsm status ports-log",
    'portfsm status ports-log --at "15m ago"',
    "portfsm status ports-log --at @1200 --json | jq .pools",
)
@options.log
@click.option("--at", type=options.TIME, metavar="TIME", help="As it was at this moment.")
@options.as_json
@click.pass_context
def status(ctx: click.Context, log: str, at: Moment | None, as_json: bool) -> None:  # noqa: FBT001
    """Pools, counts and every port that is not free.

    TIME is 2026-08-01T09:30:00Z, "15m ago" (s, m, h, d) or @SEQ.
    """
    out = Out(as_json=as_json)
    replay = Replay()
    try:
        read_state(log, upto=at, replay=replay)
    except JournalCorrupt:
        # People may want what there is, with the error below it. Programs would take it for the present state.
        if not as_json and replay.ledger.seq:
            _print(out, replay, now_ns=_present(replay, at, ctx), head=None, damaged=True)
        raise
    head = head_at(log, replay.ledger.seq) if replay.ledger.seq else None
    if as_json:
        out.json(status_json(replay.ledger, head))
    else:
        _print(out, replay, now_ns=_present(replay, at, ctx), head=head)


def _present(replay: Replay, at: Moment | None, ctx: click.Context) -> int:
    ledger = replay.ledger
    if at is None:
        return log_now(ledger, options.clock_of(ctx))
    return max(ledger.ts, at.ts or 0)


def _print(out: Out, replay: Replay, *, now_ns: int, head: Head | None, damaged: bool = False) -> None:
    ledger = replay.ledger
    with paged(out):
        _print_ports(out, ledger, now_ns)
        _print_pools(out, ledger)
        out.line(_writer(replay, now_ns, damaged=damaged), wrap=True)
        if head is not None:
            out.line(f"head {head}", style="dim")


def _print_ports(out: Out, ledger: Ledger, now_ns: int) -> None:
    rows = [_port_row(view, now_ns) for view in ledger.ports()]
    Sheet(out, _PORTS).add(rows)
    if rows:
        out.line()


def _port_row(view: PortView, now_ns: int) -> Row:
    held = duration(now_ns - view.since) if view.since else ""
    reason = "" if view.reason == "released" else view.reason
    return [
        view.node, view.pool, str(view.port), Cell(view.state.value, STATE_STYLES[view.state.value]), held, left(view, now_ns),
        view.owner, view.service, reason,
    ]  # fmt: skip


def left(view: PortView, now_ns: int) -> str:
    """Time left of a hold or a block; `due` once it is over, as only the next allocate or sweep frees the port."""
    if view.until is None or view.state is PortState.ALLOCATED:
        return ""
    return duration(view.until - now_ns) if view.until > now_ns else "due"


def _print_pools(out: Out, ledger: Ledger) -> None:
    pools = pools_of(ledger)
    if not pools:
        out.line("no pool is defined yet")
    several = any(pool.node for pool in pools)
    sheet = Sheet(out, _POOLS)
    rows: list[Row] = []
    for pool in pools:
        counts = pool.statistics()
        numbers = (counts.size, counts.free, counts.allocated, counts.quarantined, counts.blocked)
        exhausted = "" if counts.free else "bold red"
        cells = [Cell(str(number), exhausted if index == 1 else "") for index, number in enumerate(numbers)]
        node = (pool.node or '""') if several else ""
        rows.append([node, pool.name, *cells, str(counts.retired) if counts.retired else "", pool.spec.ranges])
    sheet.add(rows)


def _writer(replay: Replay, now_ns: int, *, damaged: bool) -> str:
    """How far this goes, and who wrote last."""
    ledger, last, opened = replay.ledger, replay.last, replay.opened
    if not ledger.seq:
        return "the log has no events yet"
    until = f"as of @{ledger.seq}, {time_text(ledger.ts)}"
    if damaged:
        return f"{until}: the last event before the damage, NOT the present state"
    if now_ns > ledger.ts:
        until += f" ({duration(now_ns - ledger.ts)} ago)"
    if (last is not None and last.kind is EventKind.CLOSED) or opened is None:
        return f"{until}; epoch {ledger.epoch}, closed"
    holder = (opened.data or {}).get("holder")
    return f"{until}; epoch {ledger.epoch}, open since {time_text(opened.ts)} by {holder}, unless a crash left it so"
