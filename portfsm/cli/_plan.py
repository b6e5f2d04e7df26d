"""`portfsm plan`: how many ports a workload needs, what fits the ports there are, and what another policy would have done to a real log."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

import click

from portfsm._sizing import Workload, churn_for, hold_for
from portfsm.cli import _options as options
from portfsm.cli._out import Bar, Out
from portfsm.cli._text import Cell, Column, Row, Sheet
from portfsm.cli._times import NS, duration, rfc3339
from portfsm.cli._words import count
from portfsm.errors import InvalidValue, UnknownPool
from portfsm.journals import read_journal
from portfsm.specs import Order, normalise_ports

if TYPE_CHECKING:
    from portfsm._whatif import Outcome, Reuse, Side, Wait

__all__ = ["plan"]

_SHOWN = 20
"""Rows for people; programs get all."""
_FIGURES = (Column(""), Column("", right=True), Column(""))
_HOLDS = (Column("hold", right=True), *(Column(title, right=True) for title in ("held back", "ports", "ports at random")))
_LIVES = (Column(""), Column("recorded", right=True), Column("planned", right=True))
_WAITS = (
    Column("seq", right=True),
    Column("time", time=True, style="dim"),
    Column("pool"),
    Column("owner", label="owner"),
    Column("waits"),
)
_REUSES = (
    Column("seq", right=True), Column("time", time=True, style="dim"), Column("pool"), Column("owner", label="owner"),
    Column("port", right=True), Column("after", right=True), Column("recorded", right=True), Column("after", right=True),
)  # fmt: skip


@options.command(
    "portfsm plan --live 200 --churn 5/s --hold 150s",
    "portfsm plan --live 200 --hold 150s --ports 30000-30999",
    "portfsm plan --live 200 --churn 300/m --ports 1000 --json",
    "portfsm plan --replay ports-log --hold 60 --order longest-idle",
)
@click.option("--live", type=options.COUNT, metavar="COUNT", help="Replicas that run at once on one node.")
@click.option("--churn", type=options.RATE, metavar="RATE", help="How many stop and start anew: 5/s, 300/m, 20/h.")
@click.option("--hold", type=options.SECONDS, metavar="LENGTH", help="How long a released port is held back: 150s, 2m.")
@click.option("--ports", metavar="PORTS", help="How many ports there are, or which: 1000, 30000-30999,31500.")
@click.option("--replay", metavar="LOG", type=options.LOG, help="Live this log once more, under --hold, --order or --ports.")
@click.option("--order", type=click.Choice(get_args(Order)), help="The order to replay with.")
@click.option("--pool", metavar="NAME", help="Change this pool alone.")
@options.as_json
def plan(replay: str | None, order: Order | None, pool: str | None, as_json: bool, **figures: Any) -> int:  # noqa: FBT001
    """How many ports a workload needs.

    Or what hold or churn fits those there are.

    From figures: leave out what you want to know. With --replay: which allocations of a log would have waited under another
    policy, and which ports would have gone to a stranger sooner. Nothing is written. Exit code 1 when the figures do not fit.
    """
    out = Out(as_json=as_json)
    if replay is not None:
        return _replay(out, replay, order, pool, **figures)
    if order is not None or pool is not None:
        raise click.UsageError("--order and --pool go with --replay LOG: figures know neither")
    return _calculate(out, **figures)


# ---------------------------------------------------------------------- figures


def _calculate(out: Out, *, live: int | None, churn: float | None, hold: float | None, ports: str | None) -> int:
    size = None if ports is None else _size(ports)
    if live is None:
        raise click.UsageError("say how many replicas run at once: --live COUNT")
    if churn is not None and hold is not None:
        return _need(out, Workload(live, churn, hold), size)
    if size is None or (churn is None and hold is None):
        raise click.UsageError("say two of --churn RATE, --hold LENGTH and --ports PORTS: the third is what you are told")
    return _fit(out, live, churn, hold, size)


def _size(text: str) -> int:
    """How many ports `text` means: a number, or ranges."""
    try:
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else sum(map(len, normalise_ports(text)))  # noqa: PLR2004
    except InvalidValue as error:
        raise click.UsageError(f"--ports: {error}") from error


def _need(out: Out, work: Workload, size: int | None) -> int:
    fits = size is None or work.ports <= size
    if out.as_json:
        out.json(_need_json(work, size))
        return 0 if fits else 1
    rows: list[Row] = [
        ["live", str(work.live), "replicas that run at once, each on its port"],
        ["held back", str(work.held), f"{_rate(work.per_s)} x {_length(work.hold_s)} of hold: quarantined at any moment"],
        ["to give", "1", "so that the next start finds one"],
        [Cell("ports", "bold"), Cell(str(work.ports), "bold"), "needed when stops come evenly"],
        [
            Cell("at random", "bold"),
            Cell(str(work.ports_at_random), "bold"),
            f"needed when they do not: up to {work.held_at_random} held back",
        ],
    ]
    Sheet(out, _FIGURES).add(rows)
    out.line()
    others = [Workload(work.live, work.per_s, round(work.hold_s * factor, 3)) for factor in (0.25, 0.5, 1, 2)] if work.hold_s else []
    Sheet(out, _HOLDS).add([[_length(other.hold_s), str(other.held), str(other.ports), str(other.ports_at_random)] for other in others])
    if size is not None:
        out.line(_verdict(work, size), style="" if fits else "bold red", wrap=True)
    out.line("A service that takes up its own port again, and evidence that ends a hold early, need fewer.", style="dim", wrap=True)
    return 0 if fits else 1


def _need_json(work: Workload, size: int | None) -> dict[str, Any]:
    return {
        "kind": "needed", "live": work.live, "churn_per_s": work.per_s, "hold_s": work.hold_s, "held": work.held, "ports": work.ports,
        "ports_at_random": work.ports_at_random, "given": size, "fits": None if size is None else work.ports <= size,
        "fits_at_random": None if size is None else work.ports_at_random <= size,
    }  # fmt: skip


def _verdict(work: Workload, size: int) -> str:
    if work.ports > size:
        return f"{count(size, 'port')} are too few by {work.ports - size}."
    if work.ports_at_random > size:
        lacking = work.ports_at_random - size
        return f"{count(size, 'port')} are enough when stops come evenly; for stops at random they are too few by {lacking}."
    return f"{count(size, 'port')} are enough: {size - work.ports_at_random} more than are needed."


def _fit(out: Out, live: int, churn: float | None, hold: float | None, size: int) -> int:
    """What is left of the ports, shared among those that stop."""
    found = hold_for(size, live, churn) if churn is not None else churn_for(size, live, hold or 0.0)
    fits = found >= 0
    if out.as_json:
        shown = None if not fits or math.isinf(found) else round(found, 6)
        known = {
            "kind": "fits",
            "given": size,
            "live": live,
            "churn_per_s": churn,
            "hold_s": hold,
            "fits": fits,
            "unlimited": math.isinf(found),
        }
        out.json(known | {"churn_per_s" if churn is None else "hold_s": shown})
        return 0 if fits else 1
    if not fits:
        out.line(
            f"{count(size, 'port')} are too few by {live + 1 - size} for {live} that live at once and one to give.",
            style="bold red",
            wrap=True,
        )
        return 1
    by = f"/ {_rate(churn)}" if churn is not None else f"/ {_length(hold or 0.0)} of hold"
    what = "hold" if churn is not None else "churn"
    answer = "any" if math.isinf(found) else _length(found) if churn is not None else _rate(found)
    rows: list[Row] = [
        ["ports", str(size), "that there are"],
        ["live", f"-{live}", "replicas that run at once, each on its port"],
        ["to give", "-1", "so that the next start finds one"],
        ["held back", str(size - live - 1), "are left to be quarantined at any moment"],
        [Cell(what, "bold"), Cell(answer, "bold"), f"at most, when stops come evenly: {size - live - 1} {by}"],
    ]
    Sheet(out, _FIGURES).add(rows)
    return 0


def _rate(per_s: float) -> str:
    """`5/s`, `3/m`, `2.5/h`: in the unit in which it is one or more."""
    for unit, seconds in (("s", 1), ("m", 60), ("h", 3_600)):
        if per_s * seconds >= 1:
            return f"{per_s * seconds:.4g}/{unit}"
    return f"{per_s * 86_400:.4g}/d"


def _length(seconds: float) -> str:
    return f"{seconds:.4g} s"


# ---------------------------------------------------------------------- a log


def _replay(
    out: Out, log: str, order: Order | None, pool: str | None,
    *, live: int | None, churn: float | None, hold: float | None, ports: str | None,
) -> int:  # fmt: skip
    from portfsm._whatif import Change, what_if

    if live is not None or churn is not None:
        raise click.UsageError("--live and --churn are what a log tells by itself: leave them out with --replay")
    if hold is None and order is None and ports is None:
        raise click.UsageError("say what to try on the log: --hold LENGTH, --order ORDER or --ports RANGES")
    try:
        outcome = what_if(Bar(log).watch(read_journal(log)), Change(pool, hold, order, ports))
    except (InvalidValue, UnknownPool) as error:
        raise click.UsageError(str(error)) from error
    (_outcome_json if out.as_json else _print_outcome)(out, outcome)
    return 0


def _print_outcome(out: Out, outcome: Outcome) -> None:
    recorded, planned = outcome.recorded, outcome.planned
    unserved = sum(wait.waited_ns is None for wait in outcome.waits)
    rows: list[Row] = [
        ["allocations", str(outcome.allocations), str(outcome.allocations - unserved)],
        ["that wait", "0", Cell(str(len(outcome.waits)), "bold red" if outcome.waits else "")],
        ["ports used", str(len(recorded.ports)), str(len(planned.ports))],
        ["ports that went to a stranger", str(len(recorded.gaps_ns)), str(len(planned.gaps_ns))],
        ["soonest after", *(_gap(min(side.gaps_ns, default=None)) for side in (recorded, planned))],
        ["half of them within", *(_gap(_middle(side)) for side in (recorded, planned))],
    ]
    Sheet(out, _LIVES).add(rows)
    if outcome.waits:
        _heading(out, "would have waited", len(outcome.waits))
        Sheet(out, _WAITS).add([_wait_row(wait) for wait in outcome.waits[:_SHOWN]])
    if outcome.closer:
        _heading(out, "would have gone to a stranger sooner", len(outcome.closer))
        Sheet(out, _REUSES).add([_reuse_row(reuse) for reuse in sorted(outcome.closer, key=lambda reuse: reuse.gap_ns)[:_SHOWN]])
    if outcome.skipped:
        out.line()
        out.line(f"left out: {count(outcome.skipped, 'call')} by hand on a port that is somebody's in this plan", style="yellow", wrap=True)


def _heading(out: Out, text: str, found: int) -> None:
    out.line()
    out.line(f"{text}: {found}" + (f", of which {_SHOWN}:" if found > _SHOWN else ""), style="bold")


def _wait_row(wait: Wait) -> Row:
    waited = "until it ended, unserved" if wait.waited_ns is None else duration(wait.waited_ns)
    return [str(wait.event.seq), wait.event.ts, wait.event.pool, wait.event.owner, waited]


def _reuse_row(reuse: Reuse) -> Row:
    event = reuse.event
    recorded = "never used" if reuse.recorded_gap_ns is None else duration(reuse.recorded_gap_ns)
    where = [str(reuse.port), duration(reuse.gap_ns), str(event.port), recorded]
    return [str(event.seq), event.ts, event.pool, event.owner, *where]


def _gap(gap_ns: int | None) -> str:
    return "" if gap_ns is None else duration(gap_ns)


def _middle(side: Side) -> int | None:
    return int(median(side.gaps_ns)) if side.gaps_ns else None


def _outcome_json(out: Out, outcome: Outcome) -> None:
    for wait in outcome.waits:
        waited_s = None if wait.waited_ns is None else wait.waited_ns / NS
        out.json({"kind": "waits", **_named(wait), "waited_s": waited_s})
    for reuse in outcome.closer:
        recorded_s = None if reuse.recorded_gap_ns is None else reuse.recorded_gap_ns / NS
        recorded = {"port": reuse.port, "after_s": reuse.gap_ns / NS, "recorded_port": reuse.event.port, "recorded_after_s": recorded_s}
        out.json({"kind": "closer", **_named(reuse), **recorded})
    sides = {name: _side_json(side) for name, side in (("recorded", outcome.recorded), ("planned", outcome.planned))}
    totals = {"allocations": outcome.allocations, "waits": len(outcome.waits), "closer": len(outcome.closer), "left_out": outcome.skipped}
    out.json({"kind": "result", **totals, **sides})


def _named(found: Wait | Reuse) -> dict[str, Any]:
    event = found.event
    return {
        "seq": event.seq, "ts": rfc3339(event.ts), "node": event.node or None, "pool": event.pool,
        "owner": event.owner, "service": event.service or None,
    }  # fmt: skip


def _side_json(side: Side) -> dict[str, Any]:
    soonest, middle = min(side.gaps_ns, default=None), _middle(side)
    return {
        "ports": len(side.ports), "strangers": len(side.gaps_ns), "soonest_s": None if soonest is None else soonest / NS,
        "median_s": None if middle is None else middle / NS,
    }  # fmt: skip
