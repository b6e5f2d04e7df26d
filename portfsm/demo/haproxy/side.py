"""One side of the comparison: its processes, and what a watcher sees of it."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import msgspec

from portfsm.demo import keeper, node
from portfsm.demo.clients import Counts
from portfsm.demo.haproxy.plan import POOL_SIZE, SERVICES, WITH, Plan
from portfsm.demo.plan import DemoError, find_ports

if TYPE_CHECKING:
    from portfsm.demo.processes import Crew, Member

SOCKET_LIMIT = 90
"""The path of a Unix socket has 107 bytes, and HAProxy appends to it."""
NUMBERS = ("seq", "started", "reloads", "leased", "quarantined", "free", "cleared_ms")


@attrs.define
class Gauges:
    """What a watcher sees of a side at a moment."""

    name: str
    seq: int = 0
    started: int = 0
    per_s: float = 0.0
    """Starts per second of the churn so far."""
    reloads: int = 0
    leased: int = 0
    quarantined: int = 0
    free: int = 0
    cleared_ms: float = 0.0
    """Median from withdrawal to evidence; 0 where there is none."""
    counts: Counts = attrs.field(factory=Counts)
    wrong_by_second: list[int] = attrs.field(factory=list)


@attrs.define(eq=False)
class Side:
    """Made by `set_up`; then `begin` and `end`."""

    plan: Plan
    crew: Crew
    binary: str
    gauges: Gauges
    members: dict[str, Member] = attrs.field(factory=dict)
    configured: anyio.Event = attrs.field(factory=anyio.Event)
    serving: anyio.Event = attrs.field(factory=anyio.Event)
    asking: anyio.Event = attrs.field(factory=anyio.Event)
    began_s: float | None = None
    started_before: int = 0

    async def begin(self) -> None:
        """Start the controller; when it has written the configuration, HAProxy; when replicas serve, the clients."""
        command = [sys.executable, "-m", "portfsm.demo.haproxy.controller", msgspec.json.encode(self.plan).decode()]
        self.members["controller"] = await self.crew.start("controller", command, stderr=self.plan.stderr, on_line=self._hear_controller)
        await self.configured.wait()
        files = [word for name in ("own.cfg", "ports.cfg") for word in ("-f", str(self.plan.config / name))]
        program = [self.binary, "-W", "-S", f"{self.plan.socket},level,admin", *files]
        script = [sys.executable, "-I", "-S", str(keeper.__file__), str(self.crew.leash), *program]
        self.members["HAProxy"] = await self.crew.start("HAProxy", script, stderr=self.plan.stderr)
        await self.serving.wait()
        command = [sys.executable, "-m", "portfsm.demo.haproxy.clients", str(self.plan.front), str(self.plan.leash), *SERVICES]
        self.members["clients"] = await self.crew.start("clients", command, stderr=self.plan.stderr, on_line=self._hear_clients)
        await self.asking.wait()  # on a busy machine it takes them seconds to come

    def tick(self, now_s: float) -> None:
        """Reckon what depends on the time."""
        if self.began_s is None:
            self.began_s, self.started_before = now_s, self.gauges.started
        past_s = now_s - self.began_s
        gauges, seconds = self.gauges, int(past_s)
        if past_s > 0:
            gauges.per_s = round((gauges.started - self.started_before) / past_s, 2)
        while len(gauges.wrong_by_second) <= seconds:
            gauges.wrong_by_second.append(0)
        gauges.wrong_by_second[-1] = gauges.counts.wrong - sum(gauges.wrong_by_second[:-1])

    async def end(self) -> None:
        """Stop the clients, then the controller, then HAProxy."""
        for name in ("clients", "controller", "HAProxy"):
            await self.members[name].end(signal.SIGTERM)

    def _hear_controller(self, line: dict[str, Any]) -> None:
        match line:
            case {"said": "configured"}:
                self.configured.set()
            case {"said": "serving"}:
                self.serving.set()
            case {"said": "counts"}:
                for name in NUMBERS:
                    setattr(self.gauges, name, line[name])

    def _hear_clients(self, line: dict[str, Any]) -> None:
        self.gauges.counts = msgspec.convert(line, Counts)
        if self.gauges.counts.right:
            self.asking.set()


async def set_up(crew: Crew, *, name: str, directory: Path, sockets: str, binary: str, avoid: range = range(0)) -> tuple[Side, range]:
    """Choose ports and start the node; also return the ports. HAProxy's socket goes into the directory `sockets`."""
    path = str(Path(sockets, name))
    if len(path) > SOCKET_LIMIT:
        raise DemoError(f"{path} is too long for a socket: set TMPDIR to a shorter directory")
    ports = find_ports(POOL_SIZE + 1, avoid=avoid)
    orders = socket.create_server(("127.0.0.1", 0))
    plan = Plan(
        name=name, directory=str(directory), ports=f"{ports.start}-{ports.stop - 2}", front=ports[-1], socket=path,
        evidence=name == WITH, leash=crew.leash, node=orders.getsockname()[1],
    )  # fmt: skip
    with orders:
        script = [sys.executable, "-I", "-S", str(node.__file__), str(orders.fileno()), str(crew.leash)]
        await crew.start("node", script, stderr=plan.stderr, fds=(orders.fileno(),))
    return Side(plan, crew, binary, Gauges(name)), ports
