"""`portfsm doctor`: what stands in the way around the library, and what to do about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._reading import read_state
from portfsm.cli._text import Cell, Column, Row, Sheet
from portfsm.cli._words import count
from portfsm.journals._urls import is_url
from portfsm.specs import normalise_ports

if TYPE_CHECKING:
    from portfsm.cli._machine import Examined
    from portfsm.protocols import Clock
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
    "portfsm doctor --ports 30000-30999 /var/lib/ports-log",
    "portfsm doctor /var/lib/ports-log --json | jq -r 'select(.kind == \"finding\").do'",
    "portfsm doctor --haproxy /run/haproxy-master.sock --config /etc/haproxy",
    "portfsm doctor --haproxy /run/haproxy-master.sock --json | jq -r 'select(.kind == \"finding\").add'",
)
@click.argument("log", type=options.LOG, required=False)
@click.option("--ports", metavar="RANGES", help="The ports to look at, `30000-30999,41500`; by default those of LOG's pools.")
@click.option("--proc", type=click.Path(path_type=Path), metavar="DIR", default="/proc", help="Where procfs is mounted.")
@click.option("--haproxy", metavar="SOCKET", help="The master socket of a HAProxy (`haproxy -W -S SOCKET`).")
@click.option("--config", type=click.Path(), metavar="FILE", help="Its configuration, or a directory of *.cfg: some of it cannot be asked.")
@click.option("--retries-replies", is_flag=True, help="Its HAProxyWitness is made with retries_replies=True.")
@options.as_json
@click.pass_context
def doctor(
    ctx: click.Context, log: str | None, ports: str | None, proc: Path,
    haproxy: str | None, config: Path | None, retries_replies: bool, as_json: bool,  # noqa: FBT001
) -> int:  # fmt: skip
    """Say what stands in the way.

    On this machine, and in a proxy's configuration.

    With LOG (which may be yet to be made) or --ports: do outgoing connections take these ports, who listens on ports that are
    nobody's, does a sync under LOG reach a disk and how long does it take, is the clock right. With --haproxy: what its
    configuration lacks for evidence to be right. Each finding has the reason and what to do. Nothing is changed. Exit code 0
    when nothing is found, 1 with findings, 2 when LOG cannot be read or HAProxy does not answer.
    """
    if haproxy is None and ports is None and log is None:
        raise click.UsageError("say what to examine: LOG, --ports RANGES, --haproxy SOCKET")
    out = Out(as_json=as_json)
    looked = _look(log, ports, proc, options.clock_of(ctx)) if (log, ports) != (None, None) else []
    if looked:
        (_print_machine_json if as_json else _print_machine)(out, looked)
    examined = [_Examined("haproxy", haproxy, _ask_haproxy(haproxy, config, retries_replies=retries_replies))] if haproxy else []
    for each in examined:
        (_print_json if as_json else _print)(out, each)
    if not all(each.preflight.reached for each in examined):
        return 2
    return 0 if all(each.preflight.ready for each in examined) and not any(each.findings for each in looked) else 1


def _look(log: str | None, ports: str | None, proc: Path, clock: Clock) -> list[Examined]:
    """At the machine, with what the log knows where there is one."""
    from portfsm.cli import _machine as machine

    ledger = read_state(log).ledger if log and _is_log(log) else None
    known = [piece for spec in ledger.specs.values() for piece in spec.ports] if ledger is not None else []
    ranges = normalise_ports(ports) if ports is not None else normalise_ports({port for piece in known for port in piece}) if known else ()
    looked = []
    if ranges:
        looked += [
            machine.examine_ranges(ranges, proc=proc),
            machine.examine_listeners(ranges, proc=proc, ledger=ledger, log=log if ledger is not None and log else ""),
        ]
    if log and not is_url(log):
        looked.append(machine.examine_disk(log, proc=proc))
    return [*looked, machine.examine_clock(clock, proc=proc, is_set=machine.kernel_time_is_set(), ledger=ledger)]


def _is_log(log: str) -> bool:
    """Whether there is something to read, or something in the way: not where a log is yet to be made."""
    if os.path.isdir(log):
        return any(name.endswith(".jsonl") for name in os.listdir(log))
    return is_url(log) or os.path.exists(log)


def _print_machine_json(out: Out, looked: list[Examined]) -> None:
    for each in looked:
        named = {"about": each.about, "where": each.where}
        for finding in each.findings:
            out.json({"kind": "finding", **named, "what": finding.what, "why": finding.why, "do": finding.do})
        for kind, texts in (("note", each.notes), ("unchecked", each.unchecked)):
            for text in texts:
                out.json({"kind": kind, **named, "what": text})
        out.json({"kind": "result", **named, "ready": not each.findings, "findings": len(each.findings), **each.figures})


def _print_machine(out: Out, looked: list[Examined]) -> None:
    findings = [(each.about, finding) for each in looked for finding in each.findings]
    if findings:
        Sheet(out, (Column("about"), Column("found"), Column("why"))).add(
            [[about, Cell(finding.what, "bold red"), finding.why] for about, finding in findings]
        )
        out.line()
        out.line("do:", style="bold")
        for do in dict.fromkeys(finding.do for _, finding in findings):
            out.line(f"    {do}", style="cyan")
        out.line()
    for each in looked:
        for text in each.notes:
            out.line(f"{each.about}: {text}", wrap=True)
        for text in each.unchecked:
            out.line(f"not looked at: {text}", style="yellow", wrap=True)
    about = ", ".join(each.about for each in looked)
    if findings:
        out.line(f"{about}: {count(len(findings), 'finding')}.", style="bold red", wrap=True)
    else:
        out.line(f"{about}: nothing stands in the way.", style="bold green", wrap=True)


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
