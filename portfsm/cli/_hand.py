"""`portfsm block`, `unblock`, `hold`, `free`: the operator's hand, when no controller has the log open.

Rule: what is refused, or is true already, is found by reading; the log is opened for writing only to record something. It
is never made: a path without a log is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import click

from portfsm import commands
from portfsm._decide import decide
from portfsm._explain import explain
from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._places import find_place, strange_node
from portfsm.cli._reading import log_now, read_state
from portfsm.cli._views import port_json
from portfsm.manager import open_manager

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from portfsm._ledger import Ledger
    from portfsm.cli._places import Place
    from portfsm.manager import PortManager
    from portfsm.protocols import Clock
    from portfsm.values import PortView

    Command = commands.Block | commands.Unblock | commands.Hold | commands.Free
    Call = Callable[[PortManager], Awaitable[PortView]]

__all__ = ["block", "free", "hold", "unblock"]

_for = click.option("--for", "for_s", type=options.SECONDS, metavar="LENGTH", help="How long: seconds, or 90s, 10m, 2h, 1d.")


def _reason(*, required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    # A default of None would count as given.
    needed: dict[str, Any] = {"required": True} if required else {"default": ""}
    return click.option("--reason", metavar="TEXT", help="Why, for the record.", **needed)


@options.command('portfsm block ports-log 30007 --reason "nginx sits on it"', "portfsm block ports-log 30007 --reason maintenance --for 2h")
@options.log
@options.port
@_reason(required=True)
@_for
@options.pool
@options.node
@options.as_json
@click.pass_context
def block(ctx: click.Context, /, for_s: float | None, reason: str, **given: Any) -> None:
    """Take a port out of use, for a while or until unblocked.

    This ends its lease, if it has one. A port that is blocked already keeps its first reason and end.
    """
    _do(ctx, given, lambda place: (
        commands.Block(place.pool, place.port, node=place.node, reason=reason, for_s=for_s),
        lambda manager: manager.block(place.pool, place.port, node=place.node, reason=reason, for_s=for_s),
    ))  # fmt: skip


@options.command("portfsm unblock ports-log 30007", 'portfsm unblock ports-log 30007 --reason "nginx is gone"')
@options.log
@options.port
@_reason(required=False)
@options.pool
@options.node
@options.as_json
@click.pass_context
def unblock(ctx: click.Context, /, reason: str, **given: Any) -> None:
    """End a block: a full hold begins."""
    _do(ctx, given, lambda place: (
        commands.Unblock(place.pool, place.port, node=place.node, reason=reason),
        lambda manager: manager.unblock(place.pool, place.port, node=place.node, reason=reason),
    ))  # fmt: skip


@options.command("portfsm hold ports-log 30007 --for 10m")
@options.log
@options.port
@click.option("--for", "hold_s", type=options.SECONDS, metavar="LENGTH", required=True, help="How long: seconds, or 90s, 10m, 2h, 1d.")
@_reason(required=False)
@options.pool
@options.node
@options.as_json
@click.pass_context
def hold(ctx: click.Context, /, hold_s: float, reason: str, **given: Any) -> None:
    """Lengthen a quarantine, or take a free port out for a while.

    The hold then ends this long from now or later, never earlier than before.
    """
    _do(ctx, given, lambda place: (
        commands.Hold(place.pool, place.port, node=place.node, hold_s=hold_s, reason=reason),
        lambda manager: manager.hold(place.pool, place.port, node=place.node, hold_s=hold_s, reason=reason),
    ))  # fmt: skip


@options.command('portfsm free ports-log 30007 --reason "the proxy was restarted"')
@options.log
@options.port
@_reason(required=True)
@options.pool
@options.node
@options.as_json
@click.pass_context
def free(ctx: click.Context, /, reason: str, **given: Any) -> None:
    """End a quarantine now.

    It is on your word that nothing routes to the port any more: nobody checks.
    """
    _do(ctx, given, lambda place: (
        commands.Free(place.pool, place.port, node=place.node, reason=reason),
        lambda manager: manager.free(place.pool, place.port, node=place.node, reason=reason),
    ))  # fmt: skip


def _do(ctx: click.Context, given: dict[str, Any], plan: Callable[[Place], tuple[Command, Call]]) -> None:
    """Find the port, look whether anything is to be done, do it, and say how the port stands now."""
    log, clock, out = given["log"], options.clock_of(ctx), Out(as_json=given["as_json"])
    ledger = read_state(log).ledger
    place = find_place(ledger, given["port"], pool=given["pool"], node=given["node"])
    if warning := strange_node(ledger, given["node"]):
        out.note(warning)
    command, call = plan(place)
    changed = bool(decide(ledger, command, now_ns=log_now(ledger, clock)))
    if changed:
        anyio.run(_record, log, clock, call)
        ledger = read_state(log).ledger
    _print(out, ledger, place, clock, changed=changed)


async def _record(log: str, clock: Clock, call: Call) -> None:
    async with open_manager(log, clock=clock) as manager:
        await call(manager)


def _print(out: Out, ledger: Ledger, place: Place, clock: Clock, *, changed: bool) -> None:
    if out.as_json:
        view = ledger.port(place.pool, place.port, node=place.node)
        out.json({"changed": changed, "node": place.node or None, "pool": place.pool, **port_json(view)})
        return
    sentence = explain(ledger, place.pool, place.port, node=place.node, now_ns=log_now(ledger, clock))
    out.line(sentence if changed else f"nothing to do: {sentence}", wrap=True)
