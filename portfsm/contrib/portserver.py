"""A port server for other processes: the ports of one manager, over a Unix socket, to processes of the same user.

Two ways to ask, on one socket. The protocol of portpicker: a client sends its pid as text, is told a port, and has it until that process
dies. And HTTP, with the calls of the manager (`portfsm.contrib._port_wire`). What starts with a letter is HTTP.

    async with open_manager("ports-log", pools=[PoolSpec("http", ports="30000-30999")]) as manager:
        with unix_socket("/run/me/ports.sock") as listener:
            await PortServer(manager, pool="http").serve(listener)

Rule: who connects is known before anything is read, and is this user or root. A client costs one connection for a bounded time; one that
goes away while it waits is waited for no longer. Needs the extra `agent` (h11). `portfsm serve` is this as a command; docs/serve.md has
examples.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm._log import warn
from portfsm.clocks import SystemClock
from portfsm.contrib import _port_wire as wire
from portfsm.contrib._connection import Connection
from portfsm.contrib._doorway import SocketRefused, unix_socket
from portfsm.contrib._peers import asked_for, peer_of
from portfsm.contrib._port_desk import Desk
from portfsm.contrib._port_http import Calls
from portfsm.contrib._tenants import Tenants
from portfsm.contrib._unless import unless
from portfsm.errors import ManagerClosed, PortfsmError, UnknownPool
from portfsm.specs import check_text
from portfsm.witnesses._serving import Exchange, RefusedError, departures

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from portfsm.contrib._peers import Peer
    from portfsm.manager import PortManager
    from portfsm.values import Lease

__all__ = ["Limits", "PortServer", "SocketRefused", "unix_socket"]

_ROOT = 0
_PAUSE_S = 0.1
_LINGER_S = 0.5
_LINGERING = 16
_NUMBER_BYTES = 32
_FOREIGN = wire.encode({"error": "this port server serves its own user and root alone: start one of your own (portfsm serve)"})
_TURNED_AWAY = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
) % (len(_FOREIGN), _FOREIGN)  # fmt: skip


@attrs.frozen
class Limits:
    """What all clients together may cost."""

    connections: int = 256
    """Those beyond wait in the system's queue."""
    waiting: int = 192
    """How many of them may wait for a port over HTTP."""
    each_s: float = 5.0
    """How long a request may take to arrive, and an answer to be taken."""


_LIMITS = Limits()


class PortServer:
    """Serves `manager`. `pool` is where clients of portpicker get their ports from; `node` is what the log calls this machine.

    Made on the manager's event loop. Leases that processes hold since before, under an earlier server, are taken over: the dead lose theirs
    as soon as it serves. Raises `UnknownPool`.
    """

    def __init__(self, manager: PortManager, *, pool: str, node: str = "", limits: Limits = _LIMITS) -> None:
        if check_text("pool", pool) not in manager.pools:
            known = tuple(sorted(manager.pools))
            advice = f"define it, or name one of {', '.join(known)}" if known else "define it"
            raise UnknownPool(f"there is no pool {pool!r} to serve from: {advice}", pool=pool, known=known)
        self._manager, self._pool, self._node, self._limits = manager, pool, check_text("node", node), limits
        self._boot = SystemClock().boot_id().replace("-", "")[:8]
        self._desk = Desk(manager, node=node)
        self._calls = Calls(manager, self._desk, node=node, most_waiting=limits.waiting)
        self._tenants = Tenants(manager, node=node, boot=self._boot)
        self._slots = anyio.Semaphore(limits.connections)
        self._numbers = count(1)
        self._open: set[socket.socket] = set()
        self._lingering = 0
        self._departures = departures()

    async def serve(self, listener: socket.socket) -> None:
        """Serve on a listening Unix socket until cancelled. Raises what stopped the manager."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tenants.watch)
                tasks.start_soon(self._end_with_the_manager)
                while True:
                    await self._slots.acquire()
                    self._welcome(await self._accepted(listener), tasks)
        except BaseExceptionGroup as group:
            if (found := group.subgroup(PortfsmError)) is None:
                raise
            raise _first(found) from None
        finally:
            self._tenants.close()
            while self._open:  # those whose task was cancelled before it began
                self._open.pop().close()

    async def _end_with_the_manager(self) -> None:
        async for _ in self._manager.watch():
            pass
        raise ManagerClosed("the manager was left while the port server was serving: leave the server first")

    async def _accepted(self, listener: socket.socket) -> socket.socket:
        told = False
        while True:
            await anyio.wait_readable(listener)
            try:
                return listener.accept()[0]
            except (BlockingIOError, ConnectionError):
                continue
            except OSError as error:
                if not told:
                    warn("not_accepting", error=str(error), effect="clients wait; raise the limit of open files (ulimit -n)")
                told = True
                await anyio.sleep(_PAUSE_S)

    def _welcome(self, sock: socket.socket, tasks: TaskGroup) -> None:
        """Attend to our own user and to root; nothing has been read yet."""
        peer = peer_of(sock)
        self._open.add(sock)
        if peer.uid in (os.geteuid(), _ROOT):
            tasks.start_soon(self._attend, sock, peer)
        else:
            self._slots.release()
            tasks.start_soon(self._turn_away, sock)

    def _close(self, sock: socket.socket) -> None:
        self._open.discard(sock)
        sock.close()

    async def _turn_away(self, sock: socket.socket) -> None:
        """Tell a stranger why, and read nothing. A moment is left to some of them: who is hung up on while still sending hears nothing."""
        self._lingering += 1
        try:
            with suppress(OSError):
                sock.setblocking(False)
                sock.send(_TURNED_AWAY)
                if self._lingering <= _LINGERING:
                    with anyio.move_on_after(_LINGER_S):
                        await anyio.wait_readable(sock)
        finally:
            self._lingering -= 1
            self._close(sock)

    async def _attend(self, sock: socket.socket, peer: Peer) -> None:
        try:
            connection = Connection(sock)
            with anyio.fail_after(self._limits.each_s):
                first = await connection.receive()
            if first[:1].isalpha():
                exchange = Exchange(connection, body_bytes=wire.BODY_BYTES, each_s=self._limits.each_s, received=first)
                await self._calls.answer(exchange, connection)
            else:
                text = await self._rest(connection, first)
                await unless(connection.hung_up, partial(self._pick, connection, text, peer))
        except self._departures:
            pass
        except Exception as error:  # noqa: BLE001  (one client must not take the others' server down)
            warn("request_failed", error=repr(error), effect="a client was hung up on; please report it")
        finally:
            self._slots.release()
            self._close(sock)

    # ------------------------------------------------------------------ portpicker

    async def _rest(self, connection: Connection, text: bytes) -> bytes:
        """Up to the end of the line. Who sends none is not waited for: what comes in one piece is the whole."""
        with anyio.move_on_after(_PAUSE_S), suppress(anyio.EndOfStream):
            while b"\n" not in text and len(text) < _NUMBER_BYTES:
                text += await connection.receive(_NUMBER_BYTES)
        return text.partition(b"\n")[0].strip()

    async def _pick(self, connection: Connection, text: bytes, peer: Peer) -> None:
        """A port for a process. Clients take 0 for a refusal and read no further; the sentence is for people."""
        try:
            await self._pick_for(connection, text, peer)
        except (RefusedError, PortfsmError) as error:
            with anyio.fail_after(self._limits.each_s):
                await connection.send(f"0\nportfsm: {error}\n".encode())

    async def _pick_for(self, connection: Connection, text: bytes, peer: Peer) -> None:
        if not text.isdigit() or len(text) > 7 or not int(text):  # noqa: PLR2004  (no kernel has longer ones)
            raise RefusedError(400, "send the pid of the process that is to have a port, in digits, and a newline")
        process = asked_for(int(text), peer, boot=self._boot)
        owner = process.owner(f"{self._manager.epoch}.{next(self._numbers)}")

        async def ask() -> Sequence[Lease]:
            return [await self._manager.allocate(self._pool, owner=owner, node=self._node)]

        async with self._desk.giving([owner], ask) as leases:
            with anyio.fail_after(self._limits.each_s):
                await connection.send(b"%d\n" % leases[0].port)
            self._tenants.keep(process, leases[0])


def _first(group: BaseExceptionGroup[PortfsmError]) -> PortfsmError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
