"""`portfsm who` and `portfsm diff`: who held a port then, and what is different from another moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from portfsm.audit import diff as differences
from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._pager import paged
from portfsm.cli._past import life_around
from portfsm.cli._places import strange_node
from portfsm.cli._reading import log_now, read_state
from portfsm.cli._text import STATE_STYLES, Cell, Column, Row, Sheet
from portfsm.cli._times import duration, rfc3339, time_text
from portfsm.cli._words import why
from portfsm.states import PortState

if TYPE_CHECKING:
    from portfsm.audit import Difference, Moment, Span
    from portfsm.cli._past import Life
    from portfsm.values import PortView

__all__ = ["diff", "who"]

_SPANS = (
    Column("state"), Column("from", time=True), Column("to", time=True), Column("for", right=True), Column("owner", label="owner"),
    Column("service", label="service"), Column("lease", right=True, label="lease"),
)  # fmt: skip
_DIFFERENCES = (
    Column("node"), Column("pool"), Column("port", right=True), Column("before"), Column("after"),
    Column("owner before", label="owner before"), Column("owner after", label="owner after"),
    Column("service before", label="service before"), Column("service after", label="service after"),
)  # fmt: skip


@options.command(
    "portfsm who ports-log 30007 --at 2026-08-01T14:03:07Z",
    "portfsm who ports-log 30007 --at 2026-08-01T14:03:07Z --within 30",
    'portfsm who ports-log 30007 --at "15m ago" --json | jq -r .owner',
)
@options.log
@options.port
@click.option("--at", type=options.TIME, metavar="TIME", required=True, help="The moment.")
@click.option("--within", type=options.SECONDS, metavar="LENGTH", default="0", help="And so long before and after it: 30, 90s, 10m.")
@options.pool
@options.node
@options.as_json
@click.pass_context
def who(
    ctx: click.Context,
    log: str,
    port: int,
    at: Moment,
    within: float,
    pool: str | None,
    node: str | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Who held a port at a moment, or around it.

    Between two holders, who held it last: traffic for that one may still have come. TIME is 2026-08-01T09:30:00Z, "15m ago" (s, m,
    h, d) or @SEQ.
    """
    out = Out(as_json=as_json)
    found = life_around(log, port, at, within_s=within, pool=pool, node=node)
    if found.damage and as_json:  # programs would take a span without an end for one that lasts
        raise found.damage
    for span in found.spans if as_json else ():
        out.json(_span_json(span))
    if not as_json:
        with paged(out):
            _print(out, found, log_now(found.ledger, options.clock_of(ctx)))
    if found.beyond:
        out.note(
            f"the log ends at @{found.ledger.seq}, {time_text(found.ledger.ts)}, before that moment: what came after it is not recorded"
        )
    if warning := strange_node(found.ledger, node):
        out.note(warning)
    if found.damage:
        raise found.damage


def _span_json(span: Span) -> dict[str, Any]:
    return {
        "node": span.node or None, "pool": span.pool, "port": span.port, **_holder_json(span),
        "from": rfc3339(span.from_ns), "to": None if span.to_ns is None else rfc3339(span.to_ns),
    }  # fmt: skip


def _holder_json(of: Span | PortView) -> dict[str, Any]:
    token = of.token if of.state is not PortState.FREE else 0
    return {"state": of.state.value, "owner": of.owner or None, "service": of.service or None, "token": token or None}


def _print(out: Out, found: Life, now_ns: int) -> None:
    before = [found.before] if found.before else []
    Sheet(out, _SPANS).add([_row(span, now_ns) for span in (*before, *found.spans)])
    if before or found.spans:
        out.line()
    for sentence in _sentences(found):
        out.line(sentence, wrap=True)


def _row(span: Span, now_ns: int) -> Row:
    lasted = duration(span.lasted_ns(now_ns)) + ("+" if span.to_ns is None else "")
    token = span.token if span.state is not PortState.FREE else 0
    state, to = Cell(span.state.value, STATE_STYLES[span.state.value]), "" if span.to_ns is None else span.to_ns
    return [state, span.from_ns, to, lasted, span.owner, span.service, str(token or "")]


def _sentences(found: Life) -> list[str]:
    name = f"port {found.place.port} of pool {found.place.pool!r}" + (f" on node {found.place.node!r}" if found.place.node else "")
    at = time_text(found.at_ns) if found.at_ns is not None else "that moment"
    then = found.then
    if then is None:
        return [f"At {at}, {name} was {found.unused}, and nothing had happened to it before."]
    unknown = ["When that ended cannot be read: the log is damaged after it."] if found.damage else []
    return [f"At {at}, {name} was {_was(then)}.", *_ended(then), *unknown, *_former(found.former, then)]


def _was(span: Span) -> str:
    holder = f"{span.owner!r}" + (f" (service {span.service!r})" if span.service else "")
    match span.state:
        case PortState.ALLOCATED:
            return f"ALLOCATED to {holder} under lease {span.token}"
        case PortState.FREE:
            return "FREE: nobody held it"
        case state:
            return f"{state.value}; {holder} held it last" if span.owner else state.value


def _ended(span: Span) -> list[str]:
    if span.ended is None:
        return []
    reason = f" ({text})" if (text := why(span.ended)) else ""
    return [f"That ended {time_text(span.ended.ts)} with @{span.ended.seq}, {span.ended.kind}{reason}."]


def _former(before: Span | None, then: Span) -> list[str]:
    if before is None or before.to_ns is None:
        return ["Nobody had held it before."] if then.state is PortState.ALLOCATED else []
    holder = f"{before.owner!r}" + (f" (service {before.service!r})" if before.service else "")
    apart = f", {duration(then.from_ns - before.to_ns)} earlier" if then.state is PortState.ALLOCATED else ""
    return [f"Before, {holder} held it until {time_text(before.to_ns)}{apart}."]


@options.command(
    'portfsm diff ports-log --from "1h ago" --to "5m ago"',
    "portfsm diff ports-log --from @1200 --json | jq 'select(.after.state == \"BLOCKED\")'",
)
@options.log
@click.option("--from", "start", type=options.TIME, metavar="TIME", required=True, help="The one moment.")
@click.option("--to", "end", type=options.TIME, metavar="TIME", help="The other moment; the end of the log if left out.")
@options.as_json
def diff(log: str, start: Moment, end: Moment | None, as_json: bool) -> None:  # noqa: FBT001
    """Ports whose state or owner differs between two moments.

    TIME is 2026-08-01T09:30:00Z, "15m ago" (s, m, h, d) or @SEQ.
    """
    out = Out(as_json=as_json)
    before, after = read_state(log, upto=start).ledger, read_state(log, upto=end).ledger
    found = differences(before, after)
    if as_json:
        for pair in found:
            out.json(_difference_json(pair))
        return
    span = duration(abs(after.ts - before.ts))
    many = f"{len(found)} ports differ" if len(found) != 1 else "1 port differs"
    with paged(out):
        Sheet(out, _DIFFERENCES).add([_difference_row(pair) for pair in found])
        if found:
            out.line()
        out.line(f"{many} between {_end(before.seq, before.ts)} and {_end(after.seq, after.ts)}, {span} apart", wrap=True)


def _end(seq: int, ts: int) -> str:
    return f"@{seq} ({time_text(ts)})" if seq else "the beginning"


def _difference_json(pair: Difference) -> dict[str, Any]:
    view = pair.after
    sides = {"before": _holder_json(pair.before), "after": _holder_json(pair.after)}
    return {"node": view.node or None, "pool": view.pool, "port": view.port, **sides}


def _difference_row(pair: Difference) -> Row:
    before, after = pair.before, pair.after
    states = [Cell(view.state.value, STATE_STYLES[view.state.value]) for view in (before, after)]
    return [after.node, after.pool, str(after.port), *states, before.owner, after.owner, before.service, after.service]
