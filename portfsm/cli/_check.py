"""`portfsm verify`, `head` and `repair`: is the log what was written, and what can be saved if it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._proof import Proof, where
from portfsm.cli._proof_shared import proof_of
from portfsm.cli._reading import read_all
from portfsm.cli._text import Cell, Column, Row, Sheet
from portfsm.cli._words import count
from portfsm.errors import JournalUnreadable
from portfsm.journals._inspect import head_at
from portfsm.journals._repair import RepairPlan
from portfsm.journals._repair import repair as repair_log
from portfsm.journals._urls import is_url, shown

if TYPE_CHECKING:
    from portfsm.values import Head

__all__ = ["head", "repair", "verify"]

_MARKS = {"ok": "green", "FAIL": "bold red", "note": "yellow", "-": "dim"}


@options.command(
    "portfsm verify ports-log",
    "portfsm head ports-log > /elsewhere/head && portfsm verify ports-log --expect $(cat /elsewhere/head)",
)
@options.log
@click.option("--expect", type=options.HEAD, metavar="HEAD", help="Also check against this head, kept elsewhere.")
@options.as_json
def verify(log: str, expect: Head | None, as_json: bool) -> int:  # noqa: FBT001
    """Check every byte and every step.

    Framing, checksums, seals and the links between segments; that each event is legal after those before it; that the
    snapshot says what the events say. A torn tail is normal after a crash and no finding. Exit code 1 if anything is
    found.
    """
    out = Out(as_json=as_json)
    proof = proof_of(log, expect)
    if as_json:
        out.json(proof.json())
    else:
        _print_proof(out, proof)
    return 0 if proof.passed else 1


def _print_proof(out: Out, proof: Proof) -> None:
    rows: list[Row] = [[Cell(check.mark, _MARKS[check.mark]), check.name, check.found] for check in proof.checks]
    Sheet(out, (Column(""), Column("check"), Column("found"))).add(rows)
    out.line()
    out.line(proof.sentence(), style="bold green" if proof.passed else "bold red", wrap=True)
    if proof.passed and proof.head:
        out.line(f"head {proof.head}", style="dim")


@options.command("portfsm head ports-log", "portfsm head ports-log > /elsewhere/head")
@options.log
@options.as_json
def head(log: str, as_json: bool) -> None:  # noqa: FBT001
    """Name the whole history in one line, LOGID:SEQ:HEX.

    Kept where nobody who can write the log can write, it shows later that nothing was cut off or changed: see `portfsm
    verify --expect`.
    """
    found = head_at(log)
    if not found.log_id:
        raise JournalUnreadable(f"{shown(log)} has no events yet, so there is no head to keep", path=shown(log), errno=None)
    out = Out(as_json=as_json)
    if as_json:
        out.json({"head": str(found), "log": found.log_id, "seq": found.seq, "digest": found.digest})
    else:
        out.line(str(found))


@options.command("portfsm repair ports-log", "portfsm repair ports-log --apply")
@options.log
@click.option("--apply", is_flag=True, help="Do it. Without this, only say what would be done.")
@options.as_json
def repair(log: str, apply: bool, as_json: bool) -> int:  # noqa: FBT001
    """Save what stands before the first damage. Dry run unless --apply is given.

    What goes is kept in torn/ inside the log. A torn tail needs no repair: the next opening sees to it. Exit code 1
    while there is damage.
    """
    if is_url(log):
        raise JournalUnreadable(f"{shown(log)} lies in a database: restore that from a backup", path=shown(log), errno=None)
    out = Out(as_json=as_json)
    plan = repair_log(log, apply=apply)
    if plan.damage is None:
        read_all(log)  # bytes that prove may still tell what cannot be, and that nothing mends
    if as_json:
        out.json(_plan_json(plan))
    else:
        _print_plan(out, plan)
    return 0 if plan.damage is None or plan.kept_in else 1


def _plan_json(plan: RepairPlan) -> dict[str, object]:
    return {
        "log": plan.path,
        "damage": str(plan.damage) if plan.damage else None,
        "last_seq": plan.last_seq,
        "cut_segment": plan.cut_segment,
        "cut_offset": plan.cut_offset,
        "dropped_segments": list(plan.dropped_segments),
        "dropped_bytes": plan.dropped_bytes,
        "dropped_events": plan.dropped_events,
        "kept_in": list(plan.kept_in),
    }


def _print_plan(out: Out, plan: RepairPlan) -> None:
    if plan.damage is None:
        out.line(f"{plan.path} needs no repair: it opens as it is, up to @{plan.last_seq}", wrap=True)
        return
    goes = f"{count(plan.dropped_events, 'event')} that can still be read, {count(plan.dropped_bytes, 'byte')}: {_parts(plan)}"
    rows: list[Row] = [["damage", where(plan.path, plan.damage)], ["stays", f"everything up to @{plan.last_seq}"], ["goes", goes]]
    if plan.kept_in:
        rows.append(["kept in", f"{plan.path}/torn"])
    Sheet(out, (Column(""), Column(""))).add(rows)
    out.line()
    lost = f"what was recorded after @{plan.last_seq} (leases, releases, blocks)"
    if plan.kept_in:
        out.line(
            f"Repaired. {lost[0].upper()}{lost[1:]} is forgotten: let each controller look what is in use before it gives ports.", wrap=True
        )
    else:
        out.line(f"Dry run: nothing was changed. With --apply, {lost} is forgotten. Prefer a copy of the log, if there is one.", wrap=True)


def _parts(plan: RepairPlan) -> str:
    parts = [f"{plan.cut_segment} from byte {plan.cut_offset}"] if plan.cut_segment else []
    if plan.dropped_segments:
        later = "later " if parts else ""
        parts.append(f"{later}{', '.join(plan.dropped_segments)}")
    return " and ".join(parts)
