"""`portfsm verify`, `head` and `repair`: is the log what was written, and what can be saved if it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._proof import Proof, prove
from portfsm.cli._text import Cell, Column, Sheet
from portfsm.errors import JournalUnreadable
from portfsm.journals._inspect import head_at
from portfsm.journals._repair import RepairPlan, repair as repair_log

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
    proof = prove(log, expect)
    if as_json:
        out.json(proof.json())
    else:
        _print_proof(out, proof)
    return 0 if proof.passed else 1


def _print_proof(out: Out, proof: Proof) -> None:
    rows = [[Cell(check.mark, _MARKS[check.mark]), check.name, check.found] for check in proof.checks]
    Sheet(out, (Column(""), Column("check"), Column("found"))).add(rows)
    out.line()
    out.line(proof.sentence(), style="bold green" if proof.passed else "bold red", wrap=True)


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
        raise JournalUnreadable(f"{log} has no events yet, so there is no head to keep", path=log, errno=None)
    out = Out(as_json=as_json)
    if as_json:
        out.json({"head": str(found), "log": found.log_id, "seq": found.seq, "digest": found.digest})
    else:
        out.write(f"{found}\n")
