"""`portfsm serve`: ports for other processes. The server is `portfsm.contrib.portserver`, docs/serve.md says what it speaks."""

from __future__ import annotations

import resource
import signal
from contextlib import suppress
from errno import ENOENT
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import click

from portfsm._log import warn
from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.cli._reading import read_state
from portfsm.cli._text import neutral
from portfsm.errors import HistoryLost, JournalUnreadable, UnknownPool
from portfsm.manager import open_manager
from portfsm.specs import PoolSpec, check_overlaps, check_text, normalise_ports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from portfsm.manager import PortManager
    from portfsm.protocols import Clock
    from portfsm.specs import Ports

__all__ = ["serve"]


@attrs.frozen
class _Wanted:
    """What the command line asks for."""

    log: str
    socket: str
    pools: dict[str, Ports | None]
    """Ranges by name, None for those that the log is to know. The first is portpicker's."""
    hold_s: float | None
    node: str
    role: Literal["lead", "lead-or-wait"]

    def spec(self, name: str, known: Mapping[str, PoolSpec]) -> PoolSpec:
        """The pool as it is to be: what is not asked for stays as it is."""
        asked = {"ports": self.pools.get(name), "hold_s": self.hold_s}
        changes: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
        return attrs.evolve(known[name], **changes) if name in known else PoolSpec(name, **changes)


@options.command(
    "portfsm serve ports-log --socket /run/user/1000/ports.sock --pool tests=20000-20999",
    "PORTSERVER_ADDRESS=/run/user/1000/ports.sock python -m portpicker $$",
    """curl --unix-socket /run/user/1000/ports.sock http://ports/v1/allocate -d '{"pool": "tests", "owner": "replica-1"}'""",
)
@options.log
@click.option(
    "--socket", required=True, type=click.Path(), metavar="PATH", help="Where to listen: a Unix socket, made for this user alone."
)
@click.option(
    "--pool",
    "pools",
    metavar="NAME[=RANGES]",
    multiple=True,
    help="A pool to serve from, made or changed when RANGES are given. The first is portpicker's.",
)
@click.option(
    "--hold", "hold_s", type=options.SECONDS, metavar="LENGTH", help="How long these pools hold a released port: 10s unless the log says."
)
@click.option("--node", metavar="NAME", default="", help="What the log calls this machine. Needed where several share a log.")
@click.option(
    "--role",
    type=click.Choice(["lead", "lead-or-wait"]),
    default="lead",
    show_default=True,
    help="What to do while another has the log open.",
)
@options.as_json
@click.pass_context
def serve(ctx: click.Context, /, log: str, pools: tuple[str, ...], as_json: bool, **given: Any) -> None:  # noqa: FBT001
    """Hand out ports to other processes of this user.

    A client that speaks portpicker's protocol (PORTSERVER_ADDRESS) has its port until its process dies. Over HTTP, on the same
    socket, the calls are those of the manager: allocate, release, renew, explain, status. LOG is made if it is missing and a
    pool is given with RANGES. It ends at SIGTERM or Ctrl-C; leases stay, and the next one takes them over.
    """
    import anyio

    from portfsm.contrib._doorway import check_place
    from portfsm.contrib._unless import unless
    from portfsm.witnesses._http import import_h11

    check_text("node", given["node"])
    wanted = _checked(_Wanted(log=log, pools=_pools(pools), **given))
    check_place(wanted.socket, served=wanted.role == "lead-or-wait")
    try:
        import_h11()
    except ModuleNotFoundError as error:
        raise click.UsageError(str(error)) from error
    _raise_file_limit()
    anyio.run(unless, _told_to_end, partial(_serve, wanted, options.clock_of(ctx), Out(as_json=as_json)))


def _pools(given: tuple[str, ...]) -> dict[str, Ports | None]:
    found: dict[str, Ports | None] = {}
    for text in given:
        name, _, ranges = text.partition("=")
        if name in found:
            raise click.UsageError(
                f"--pool {neutral(name)} is given twice: write all its ranges in one, as in {neutral(name)}=20000-20999,21500"
            )
        found[name] = normalise_ports(ranges) if "=" in text else None  # type: ignore[assignment]
    return found


def _checked(wanted: _Wanted) -> _Wanted:
    """With at least one pool. What is wrong is found before anything is made or recorded, as far as it can be."""
    made = [wanted.spec(name, {}) for name, ports in wanted.pools.items() if ports is not None]
    check_overlaps(made)
    if len(made) == len(wanted.pools) > 0:
        return wanted
    known = _known(wanted.log)
    for name, ports in wanted.pools.items():
        if ports is None and name not in known:
            raise _unknown(name, known)
    if wanted.pools or len(known) == 1:
        return attrs.evolve(wanted, pools=wanted.pools or dict.fromkeys(known))
    listed = f"name one of {', '.join(sorted(known))}" if known else "the log knows none: write --pool NAME=RANGES"
    raise click.UsageError(f"which pool is to be served? {listed}")


def _known(log: str) -> Mapping[str, PoolSpec]:
    """The pools of a log that is there."""
    try:
        return read_state(log).ledger.specs
    except JournalUnreadable as error:
        if error.errno != ENOENT:
            raise
        raise click.UsageError(f"{neutral(log)}: no log is there yet: --pool NAME=RANGES makes one") from error


def _unknown(name: str, known: Mapping[str, PoolSpec]) -> UnknownPool:
    advice = f"name one of {', '.join(sorted(known))}, or " if known else ""
    return UnknownPool(
        f"the log knows no pool {name!r}: {advice}write --pool {name}=RANGES to make it", pool=name, known=tuple(sorted(known))
    )


def _raise_file_limit() -> None:
    """A connection and a process that holds a port each take a descriptor."""
    with suppress(OSError, ValueError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _told_to_end() -> None:
    import anyio

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            return


async def _serve(wanted: _Wanted, clock: Clock, out: Out) -> None:
    history: Literal["kept", "lost"] = "kept"
    while True:
        try:
            return await _serve_log(wanted, clock, out, history)
        except HistoryLost as error:
            # Not left to whoever starts the next one, which would not know.
            warn("history_lost", error=str(error), effect="serving goes on; every port that nobody proves is held for a full hold")
            wanted, history = attrs.evolve(wanted, role="lead-or-wait"), "lost"


async def _serve_log(wanted: _Wanted, clock: Clock, out: Out, history: Literal["kept", "lost"]) -> None:
    from portfsm.contrib.portserver import PortServer, unix_socket

    async with open_manager(wanted.log, clock=clock, role=wanted.role, history=history) as manager:
        await _define(manager, wanted)
        first = next(iter(wanted.pools))
        server = PortServer(manager, pool=first, node=wanted.node)
        with unix_socket(wanted.socket) as listener:
            _announce(out, wanted, manager, first)
            await server.serve(listener)


async def _define(manager: PortManager, wanted: _Wanted) -> None:
    for name, ports in wanted.pools.items():
        if ports is None and name not in manager.pools:
            raise _unknown(name, manager.pools)
    for name in wanted.pools:
        await manager.define(wanted.spec(name, manager.pools))


def _announce(out: Out, wanted: _Wanted, manager: PortManager, first: str) -> None:
    path = str(Path(wanted.socket).absolute())
    if out.as_json:
        pools = [{"pool": name, "ports": manager.pools[name].ranges, "hold_s": manager.pools[name].hold_s} for name in wanted.pools]
        out.json({"socket": path, "node": wanted.node or None, "pools": pools})
    else:
        served = ", ".join(f"{name} ({manager.pools[name].ranges})" for name in wanted.pools)
        out.line(f"{path} serves {served}; PORTSERVER_ADDRESS={path} gets ports of {first}")
    out.flush()
