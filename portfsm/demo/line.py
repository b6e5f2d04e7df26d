"""How the demo's processes ask each other: a JSON line there, a JSON line back."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream

ANSWER_LIMIT = 1 << 20


class Line:
    """Asks, one line at a time; callers take turns. Not to be used on after a question was cancelled."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._answers = BufferedByteReceiveStream(stream)
        self._turn = anyio.Lock()

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send the question, wait for its answer."""
        async with self._turn:
            await self._stream.send(msgspec.json.encode(question) + b"\n")
            answer: dict[str, Any] = msgspec.json.decode(await self._answers.receive_until(b"\n", ANSWER_LIMIT))
            return answer


@asynccontextmanager
async def open_line(port: int) -> AsyncIterator[Line]:
    """A line to whoever listens on a TCP port of this host."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield Line(stream)
