"""Servers on unix sockets that say anything, for who expects an HAProxy there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import anyio


class Client:
    """One client of a server below. anyio's own unix sockets may fail on asyncio when data and cancellation come together."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        sock.setblocking(False)

    async def receive(self) -> bytes:
        await anyio.wait_readable(self.sock)
        if not (chunk := self.sock.recv(65536)):
            raise anyio.EndOfStream
        return chunk

    async def send(self, data: bytes) -> None:
        while data:
            await anyio.wait_writable(self.sock)
            data = data[self.sock.send(data) :]


@contextlib.asynccontextmanager
async def server(path: Path, answer) -> AsyncIterator[None]:
    """A server that does `answer(client)` with every client."""

    async def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, anyio.EndOfStream):
            await answer(Client(sock))

    async def accept() -> None:
        while True:
            await anyio.wait_readable(listener)
            tasks.start_soon(serve, listener.accept()[0])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            yield
            tasks.cancel_scope.cancel()


def saying(*chunks: bytes, every_s: float = 0):
    async def answer(stream: Client) -> None:
        await stream.receive()
        for chunk in chunks:
            await stream.send(chunk)
            await anyio.sleep(every_s)

    return answer
