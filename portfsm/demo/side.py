"""One side of the comparison: a controller, a node with its replicas, a proxy, clients; and the hand that kills.

Both sides run at the same time and do the same, but for the pool's hold. Each has a range of ports of its own, and on
one port of it a stranger already listens, as happens on real machines.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import msgspec

from portfsm.demo import node
from portfsm.demo.clients import Counts
from portfsm.demo.line import open_line
from portfsm.demo.plan import SERVICES, Plan, find_ports

if TYPE_CHECKING:
    from pathlib import Path

    from portfsm.demo.processes import Crew, Member

STRANGERS_PLACE = 2
"""Which of the pool's ports is taken by somebody else: the third, so that the controller soon runs into it."""
CASUALTIES = 2
"""How many replicas of a side die while nobody is in control."""


@attrs.define
class Gauges:
    """What a watcher sees of a side at a moment."""

    name: str
    hold_s: float
    controller: str = "starting"
    seq: int = 0
    replicas: int = 0
    moved: int = 0
    free: int = 0
    quarantined: int = 0
    blocked: int = 0
    counts: Counts = attrs.field(factory=Counts)


@attrs.define(eq=False)
class Side:
    """Made by `set_up`; then `begin`, `kill` and `start_controller`, `end`."""

    plan: Plan
    crew: Crew
    front: int
    """TCP port on which the proxy serves clients."""
    stranger: socket.socket
    blocked_port: int
    """The port the stranger sits on."""
    gauges: Gauges
    opened: list[dict[str, Any]] = attrs.field(factory=list)
    """What each controller said when it had opened the log."""
    start_s: float = 0.0
    """From the last start of a controller until it had taken over."""
    last_words: dict[str, Any] = attrs.field(factory=dict)
    """What the last controller said before it closed: seq and digest."""
    members: dict[str, Member] = attrs.field(factory=dict)
    taken_over: anyio.Event = attrs.field(factory=anyio.Event)
    serving: anyio.Event = attrs.field(factory=anyio.Event)
    moved_before: int = 0

    async def begin(self) -> None:
        """Start the controller, wait until all replicas serve and the proxy knows, let the clients loose."""
        await self.start_controller()
        await self.serving.wait()
        await anyio.sleep(self.plan.lag_s)
        command = [sys.executable, "-m", "portfsm.demo.clients", str(self.front), str(self.plan.leash), *SERVICES]
        self.members["clients"] = await self.crew.start("clients", command, stderr=self.plan.stderr, on_line=self._hear_clients)

    async def kill(self) -> None:
        """Kill the controller in the midst of its work; while it is gone, some replicas die too."""
        await self.members["controller"].end(signal.SIGKILL)
        async with open_line(self.plan.node) as line:
            replicas = (await line.ask({"do": "list"}))["replicas"]
        one_of_each = {replica["service"]: replica for replica in replicas}
        for replica in list(one_of_each.values())[:CASUALTIES]:
            os.kill(replica["pid"], signal.SIGKILL)
        self.gauges.controller = "killed (-9)"
        self.moved_before = self.gauges.moved

    async def start_controller(self) -> None:
        """Start a controller and wait until it has opened the log and taken over what it found."""
        began = time.monotonic()
        self.taken_over, self.serving = anyio.Event(), anyio.Event()
        command = [sys.executable, "-m", "portfsm.demo.controller", msgspec.json.encode(self.plan).decode()]
        self.members["controller"] = await self.crew.start("controller", command, stderr=self.plan.stderr, on_line=self._hear_controller)
        await self.taken_over.wait()
        self.start_s = time.monotonic() - began
        self.gauges.controller = f"up in {self.start_s:.2f} s"

    async def end(self) -> None:
        """Stop the clients, then the controller; replicas and their leases stay as they are."""
        await self.members["clients"].end(signal.SIGTERM)
        await self.members["controller"].end(signal.SIGTERM)
        self.stranger.close()

    def _hear_controller(self, line: dict[str, Any]) -> None:
        match line:
            case {"said": "opened"}:
                self.opened.append(line)
                self.taken_over.set()
            case {"said": "serving"}:
                self.serving.set()
            case {"said": "closing"}:
                self.last_words = line
            case {"said": "counts"}:
                for name in ("seq", "replicas", "free", "quarantined", "blocked"):
                    setattr(self.gauges, name, line[name])
                self.gauges.moved = self.moved_before + line["moved"]

    def _hear_clients(self, line: dict[str, Any]) -> None:
        self.gauges.counts = msgspec.convert(line, Counts)


async def set_up(crew: Crew, *, name: str, directory: Path, hold_s: float, lag_s: float, avoid: range = range(0)) -> tuple[Side, range]:
    """Choose ports, put the stranger on one, start the node and the proxy; also return the ports."""
    ports = find_ports(avoid=avoid)
    orders, control, front = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
    plan = Plan(
        name=name, directory=str(directory), ports=f"{ports.start}-{ports.stop - 1}", hold_s=hold_s, lag_s=lag_s,
        leash=crew.leash, node=orders.getsockname()[1], proxy=control.getsockname()[1],
    )  # fmt: skip
    stranger = socket.create_server(("127.0.0.1", ports[STRANGERS_PLACE]))
    side = Side(plan, crew, front.getsockname()[1], stranger, ports[STRANGERS_PLACE], Gauges(name, hold_s))
    # The sockets are opened here and handed down, so that nobody needs to wait until a process is ready to be called.
    with orders, control, front:
        script = [sys.executable, "-I", "-S", node.__file__, str(orders.fileno()), str(crew.leash)]
        await crew.start("node", script, stderr=plan.stderr, fds=(orders.fileno(),))
        command = [sys.executable, "-m", "portfsm.demo.proxy", str(front.fileno()), str(control.fileno()), str(crew.leash), str(lag_s)]
        await crew.start("proxy", command, stderr=plan.stderr, fds=(front.fileno(), control.fileno()))
    return side, ports
