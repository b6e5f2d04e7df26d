"""A client's connection: bytes in and out on either event loop, and whether it is still there."""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import socket

__all__ = ["Connection"]

_CHUNK = 65_536
_LOOK_S = 0.2


class Connection:
    """A connected Unix socket, which is closed by whoever made it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    async def receive(self, max_bytes: int = _CHUNK, /) -> bytes:
        """What has come, at least one byte. Raises `anyio.EndOfStream`, `OSError`."""
        while True:
            await anyio.wait_readable(self._sock)
            with suppress(BlockingIOError):
                if data := self._sock.recv(max_bytes):
                    return data
                raise anyio.EndOfStream

    async def send(self, item: bytes, /) -> None:
        """All of it. Raises `OSError` when nobody is there to read it."""
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._sock)

    async def hung_up(self) -> None:
        """Return when the client has. Who only says that nothing more will come (`nc -N`) is still there to read."""
        with suppress(anyio.EndOfStream, OSError):
            while True:
                await self.receive()  # one request was read; what follows is for nobody
        poll = select.poll()
        poll.register(self._sock, 0)
        while not poll.poll(0):  # noqa: ASYNC110  (no event tells the one end from the other)
            await anyio.sleep(_LOOK_S)
