"""`portfsm doctor`: what stands in the way around the library, and the line to add."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import click

from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._text import Cell, Column, Row, Sheet
from portfsm.cli._words import count

if TYPE_CHECKING:
    from pathlib import Path

    from portfsm.witnesses._haproxy_preflight import Preflight

__all__ = ["doctor"]


@attrs.frozen
class _Examined:
    """One thing that was asked for, and what was found."""

    about: str
    """`haproxy`."""
    where: str
    preflight: Preflight


@options.command(
    "portfsm doctor --haproxy /run/haproxy-master.sock --config /etc/haproxy",
    "portfsm doctor --haproxy /run/haproxy-master.sock --json | jq -r 'select(.kind == \"finding\").add'",
)
@click.option("--haproxy", metavar="SOCKET", help="The master socket of a HAProxy (`haproxy -W -S SOCKET`).")
@click.option("--config", type=click.Path(), metavar="FILE", help="Its configuration, or a directory of *.cfg: some of it cannot be asked.")
@click.option("--retries-replies", is_flag=True, help="Its HAProxyWitness is made with retries_replies=True.")
@options.as_json
def doctor(haproxy: str | None, config: Path | None, retries_replies: bool, as_json: bool) -> int:  # noqa: FBT001
    """Say what a proxy's configuration lacks for evidence to be right.

    Each finding has the reason and the line to add. Nothing is changed. Exit code 0 when nothing is missing, 1 with
    findings, 2 when nobody answers.
    """
    if haproxy is None:
        raise click.UsageError("say what to examine: --haproxy SOCKET")
    out = Out(as_json=as_json)
    examined = [_Examined("haproxy", haproxy, _ask_haproxy(haproxy, config, retries_replies=retries_replies))]
    for each in examined:
        (_print_json if as_json else _print)(out, each)
    if not all(each.preflight.reached for each in examined):
        return 2
    return 0 if all(each.preflight.ready for each in examined) else 1


def _ask_haproxy(path: str, config: Path | None, *, retries_replies: bool) -> Preflight:
    from functools import partial

    import anyio

    from portfsm.witnesses import HAProxyWitness

    async def ask() -> Preflight:
        witness = HAProxyWitness(path, proxy="doctor", retries_replies=retries_replies, deadline_s=5.0)
        return await witness.preflight(config=config)

    return anyio.run(partial(ask))


def _print_json(out: Out, each: _Examined) -> None:
    named = {"about": each.about, "where": each.where}
    for finding in each.preflight.findings:
        out.json({"kind": "finding", **named, "what": finding.what, "why": finding.why, "add": finding.add})
    for text in each.preflight.unchecked:
        out.json({"kind": "unchecked", **named, "what": text})
    ready, reached = each.preflight.ready, each.preflight.reached
    out.json({"kind": "result", **named, "reached": reached, "ready": ready, "findings": len(each.preflight.findings)})


def _print(out: Out, each: _Examined) -> None:
    preflight = each.preflight
    rows: list[Row] = [[Cell(finding.what, "bold red"), finding.why] for finding in preflight.findings]
    if rows:
        Sheet(out, (Column("found"), Column("why"))).add(rows)
        out.line()
        out.line("add:", style="bold")
        adds: dict[str, str] = {}
        for finding in preflight.findings:
            adds.setdefault(finding.add.partition("  ")[0], finding.add)  # two findings may want one line
        for add in adds.values():
            out.line(f"    {add}", style="cyan")
        out.line()
    for text in preflight.unchecked:
        out.line(f"not looked at: {text}", style="yellow", wrap=True)
    if not preflight.reached:
        out.line(f"Nobody answers at {each.where}.", style="bold red", wrap=True)
    elif preflight.ready:
        looked = " of what could be looked at" if preflight.unchecked else ""
        out.line(f"{each.where}: ready for evidence, nothing is missing{looked}.", style="bold green", wrap=True)
    else:
        out.line(f"{each.where}: {count(len(preflight.findings), 'finding')}.", style="bold red", wrap=True)
