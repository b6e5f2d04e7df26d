"""`portfsm history` and `portfsm explain`: one port's life, and why it is as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portfsm._explain import explain as explain_port
from portfsm.audit import Replay, spans
from portfsm.cli import _options as options
from portfsm.cli._out import Bar, Out
from portfsm.cli._pager import paged
from portfsm.cli._places import find_place, strange_node
from portfsm.cli._reading import log_now, read_state
from portfsm.cli._text import STATE_STYLES, Cell, Column, Row, Sheet
from portfsm.cli._times import duration
from portfsm.cli._views import event_json, port_json
from portfsm.cli._words import why
from portfsm.errors import CommandRejected, InvalidValue, JournalCorrupt, PortOutOfRange
from portfsm.journals import read_journal
from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm.audit import Span, Step
    from portfsm.cli._places import Place
    from portfsm.protocols import Clock

__all__ = ["explain", "history"]

_COLUMNS = (
    Column("state"), Column("from", time=True), Column("to", time=True), Column("for", right=True), Column("owner", label="owner"),
    Column("service", label="service"), Column("lease", right=True, label="lease"), Column("details"),
)  # fmt: skip


@options.command(
    "portfsm history ports-log 30007",
    "portfsm history ports-log 30007 --pool http --node node-a",
    "portfsm history ports-log 30007 --json | jq -r 'select(.kind == \"allocated\") | .owner'",
)
@options.log
@options.port
@options.pool
@options.node
@options.as_json
@click.pass_context
def history(ctx: click.Context, log: str, port: int, pool: str | None, node: str | None, as_json: bool) -> None:  # noqa: FBT001
    """One port's life: who held it from when to when.

    Every state is shown with its duration. With --json, the port's events.
    """
    out = Out(as_json=as_json)
    replay = Replay()
    steps: list[Step] = []
    damage: JournalCorrupt | None = None
    try:
        for step in replay.steps(Bar(log).watch(read_journal(log)), lambda event: event.port == port):
            steps.append(step)  # noqa: PERF402  (those before the damage are to stay)
    except JournalCorrupt as error:
        damage = error
    try:
        place = find_place(replay.ledger, port, pool=pool, node=node)
    except CommandRejected:
        if damage is None:
            raise
    else:
        mine = [step for step in steps if (step.event.node, step.event.pool) == (place.node, place.pool)]
        with paged(out):
            _print(out, mine, replay.ledger, place, options.clock_of(ctx))
        if warning := strange_node(replay.ledger, node):
            out.note(warning)
    if damage is not None:
        raise damage


def _print(out: Out, steps: list[Step], ledger: Ledger, place: Place, clock: Clock) -> None:
    if out.as_json:
        for step in steps:
            out.json(event_json(step))
        return
    now_ns = log_now(ledger, clock)
    life = list(spans(step.event for step in steps))
    Sheet(out, _COLUMNS).add([_row(span, now_ns) for span in life])
    if life:
        out.line()
    out.line(_sentence(ledger, place, now_ns), wrap=True)


def _row(span: Span, now_ns: int) -> Row:
    state = Cell(span.state.value, STATE_STYLES[span.state.value])
    so_far = "" if span.ended else "+"
    holder = (span.owner, span.service, str(span.token)) if span.state is PortState.ALLOCATED else ("", "", "")
    ended = "" if span.to_ns is None else span.to_ns
    return [state, span.from_ns, ended, duration(span.lasted_ns(now_ns)) + so_far, *holder, _details(span)]


def _details(span: Span) -> str:
    """What began it, and what happened meanwhile."""
    if span.began is None:
        return ""
    first = f"adopted; {why(span.began)}" if span.began.kind is EventKind.ADOPTED else why(span.began)
    later = [f"{event.kind} after {duration(event.ts - span.from_ns)}: {why(event)}".removesuffix(": ") for event in span.events]
    return "; ".join(part.removesuffix("; ") for part in (first, *later) if part)


def _sentence(ledger: Ledger, place: Place, now_ns: int) -> str:
    try:
        return explain_port(ledger, place.pool, place.port, node=place.node, now_ns=now_ns)
    except PortOutOfRange as error:  # it retired, and only its history is left
        return str(error)
    except InvalidValue as error:
        return f"no writer of portfsm records such a name: {error}"


@options.command(
    "portfsm explain ports-log 30007",
    "portfsm explain ports-log 30007 --pool http --node node-a",
)
@options.log
@options.port
@options.pool
@options.node
@options.as_json
@click.pass_context
def explain(ctx: click.Context, log: str, port: int, pool: str | None, node: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Why a port is in its state, and what ends it."""
    out = Out(as_json=as_json)
    ledger = read_state(log).ledger
    place = find_place(ledger, port, pool=pool, node=node)
    sentence = explain_port(ledger, place.pool, port, node=place.node, now_ns=log_now(ledger, options.clock_of(ctx)))
    if as_json:
        view = ledger.port(place.pool, port, node=place.node)
        out.json({"node": place.node or None, "pool": place.pool, **port_json(view), "explanation": sentence})
    else:
        out.line(sentence, wrap=True)
    if warning := strange_node(ledger, node):
        out.note(warning)
