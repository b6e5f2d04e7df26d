"""`portfsm copy`: a log moves house."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._words import count
from portfsm.journals._copy import copy as copy_log

if TYPE_CHECKING:
    from portfsm.journals._copy import Copied

__all__ = ["copy"]


@options.command(
    "portfsm copy ports-log 'etcd://10.0.0.1:2379,10.0.0.2:2379/ports'",
    "portfsm copy 'postgresql://portfsm@db.example/ports?log=edge' ports-log",
)
@click.argument("source", type=options.LOG)
@click.argument("target", type=options.LOG)
@options.as_json
def copy(source: str, target: str, as_json: bool) -> None:  # noqa: FBT001
    """Copy a log to where none is yet.

    To and from a directory, PostgreSQL or etcd. Events and epochs stay as they are; every byte is proven at both ends. To move
    house, stop the controllers first, copy, and start them on the new place: two that each go on from the same history would
    give away the same ports. Of a log that is written to, what is there at the beginning is copied. A copy that was
    interrupted cannot be opened; copy again, it starts over.
    """
    done = copy_log(source, target)
    out = Out(as_json=as_json)
    if as_json:
        heads = {"head": str(done.head), "head_there": str(done.head_there)}
        out.json({"source": done.source, "target": done.target, "seq": done.head.seq, **heads, "closed": done.closed})
    else:
        _print(out, done)


def _print(out: Out, done: Copied) -> None:
    out.line(f"{done.source} is copied to {done.target}: {count(done.head.seq, 'event')}, proven at both ends.", wrap=True)
    if not done.closed:
        seq = done.head.seq
        found = "Its last controller has not closed it: it may run still, or was killed."
        out.line(f"{found} What it records after @{seq} is not in the copy.", style="yellow", wrap=True)
    same = done.head == done.head_there
    out.line(f"head {done.head}" if same else f"head {done.head} there, {done.head_there} here", style="dim")
