"""A small reverse proxy that hears of changes late, as real ones do.

It routes by the Host header, which names a service, to one of the service's ports, and when a replica refuses
or hangs up, to the others in turn. Its table is a copy: each one the controller publishes comes into force `lag_s` seconds after
it arrived. In between it goes on routing to ports that have been released, and whoever listens there answers.

It is a process of its own, so it survives the controller, as a fleet of HAProxy or Envoy does.
"""

from __future__ import annotations

import socket
import sys
import time
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from portfsm.demo.processes import run_until_dismissed

if TYPE_CHECKING:
    from collections.abc import Collection

PATIENCE_S = 2.0
HEAD_LIMIT = 65_536
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


class Publication(msgspec.Struct):
    """One routing table and the log's position it was made from."""

    generation: int
    table: dict[str, list[int]]


class Routes:
    """The table as this proxy believes it. Time is an argument."""

    def __init__(self, *, lag_s: float) -> None:
        self._lag_s = lag_s
        self._table: dict[str, list[int]] = {}
        self._coming: deque[tuple[float, dict[str, list[int]]]] = deque()
        self._turns: Counter[str] = Counter()
        self._generation = 0

    def publish(self, publication: Publication, *, now: float) -> bool:
        """Take a table; it counts from `now + lag_s` on. One made from an older log position is refused."""
        if publication.generation < self._generation:
            return False
        self._generation = publication.generation
        self._coming.append((now + self._lag_s, publication.table))
        return True

    def choose(self, service: str, *, now: float, besides: Collection[int] = ()) -> int | None:
        """The next port of `service` in turn, by the table in force at `now`; None when it has no other."""
        while self._coming and self._coming[0][0] <= now:
            _, self._table = self._coming.popleft()
        ports = [port for port in self._table.get(service, ()) if port not in besides]
        if not ports:
            return None
        self._turns[service] += 1
        return ports[self._turns[service] % len(ports)]


async def route(routes: Routes, head: bytes) -> bytes:
    """The answer of one of the service's replicas, or 502."""
    service = host_of(head)
    tried: list[int] = []
    # Chosen and connected in one step, without a checkpoint between: so how late this proxy is, is its lag and
    # nothing else, however loaded the machine.
    while port := routes.choose(service, now=time.monotonic(), besides=tried):
        tried.append(port)
        if answer := await ask(port, head):
            return answer
    return BAD_GATEWAY


def host_of(head: bytes) -> str:
    """The Host header's value, empty when there is none."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"host":
            return value.strip().decode("latin-1")
    return ""


async def ask(port: int, request: bytes) -> bytes:
    """What listens on `port` says to `request`; empty when it refuses, hangs up half-way, or is silent."""
    answer = b""
    with socket.socket() as backend, anyio.move_on_after(PATIENCE_S):
        backend.setblocking(False)
        backend.connect_ex(("127.0.0.1", port))
        try:
            await anyio.wait_writable(backend)
            backend.sendall(request)  # far below a fresh socket's buffer
            while piece := await receive(backend):
                answer += piece
        except OSError:
            return b""
    return answer if is_complete(answer) else b""


async def receive(backend: socket.socket) -> bytes:
    """What is there to read next; empty at the end."""
    await anyio.wait_readable(backend)
    return backend.recv(HEAD_LIMIT)


def is_complete(answer: bytes) -> bool:
    """Whether all of the body that the head promises is there."""
    head, _, body = answer.partition(b"\r\n\r\n")
    _, _, length = head.partition(b"Content-Length: ")
    return bool(length) and len(body) == int(length.split(b"\r\n")[0])


async def serve_client(routes: Routes, client: anyio.abc.SocketStream) -> None:
    """Relay the requests of one kept-alive connection, one after the other."""
    reader = BufferedByteReceiveStream(client)
    async with client:
        try:
            while True:
                head = await reader.receive_until(b"\r\n\r\n", HEAD_LIMIT)
                await client.send(await route(routes, head + b"\r\n\r\n"))
        except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, anyio.EndOfStream):
            return


async def serve_controller(routes: Routes, controller: anyio.abc.SocketStream) -> None:
    """Take what a controller publishes and say when it arrived: the lag counts from there."""
    reader = BufferedByteReceiveStream(controller)
    async with controller:
        try:
            while True:
                line = await reader.receive_until(b"\n", HEAD_LIMIT)
                taken = routes.publish(msgspec.json.decode(line, type=Publication), now=time.monotonic())
                await controller.send(msgspec.json.encode({"taken": taken}) + b"\n")
        except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, anyio.EndOfStream):
            return  # killed; the next one will call, and until then the last table stands


async def main(front: int, control: int, leash: int, lag_s: float) -> None:
    """Serve clients on the socket `front` and controllers on `control`."""
    routes = Routes(lag_s=lag_s)

    async def work() -> None:
        clients = await anyio.abc.SocketListener.from_socket(front)
        controllers = await anyio.abc.SocketListener.from_socket(control)
        async with clients, controllers, anyio.create_task_group() as group:
            group.start_soon(clients.serve, partial(serve_client, routes))
            group.start_soon(controllers.serve, partial(serve_controller, routes))

    await run_until_dismissed(work, leash=leash)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
