"""One HTTP request on a connection, and its answer: what the servers of this package have in common.

Rule: nobody who connects costs more than a bounded head, a bounded body and a bounded time. A connection carries one request and is
closed after the answer, which is JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import anyio
import attrs

from portfsm.witnesses._http import import_h11

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Asked", "Exchange", "RefusedError", "Stream", "departures"]

_CHUNK = 65_536
_HEAD_BYTES = 16_384
_JSON = ("content-type", "application/json")


class Stream(Protocol):
    """As much of a connection as an exchange needs; every stream of anyio has it."""

    async def receive(self, max_bytes: int = _CHUNK, /) -> bytes:
        """What has come, at least one byte. Raises `anyio.EndOfStream`."""
        ...

    async def send(self, item: bytes, /) -> None:
        """All of it."""
        ...


class RefusedError(Exception):
    """The request gets this status and this sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@attrs.frozen
class Asked:
    """A whole request."""

    method: str
    target: str
    body: bytes


class Exchange:
    """One request and its answer. `received` is what was read from the stream before; `each_s` bounds reading and answering."""

    def __init__(self, stream: Stream, *, body_bytes: int, each_s: float, received: bytes = b"") -> None:
        self._h11 = import_h11()
        self._stream, self._body_bytes, self._each_s = stream, body_bytes, each_s
        self._connection = self._h11.Connection(self._h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        if received:
            self._connection.receive_data(received)

    async def read(self, admit: Callable[[Any], None] = lambda _: None) -> Asked:
        """The request. `admit` sees its head before the body is read, and may refuse it.

        Raises `RefusedError` for what is to be answered by a status, `TimeoutError` when it takes too long.
        """
        try:
            with anyio.fail_after(self._each_s):
                return await self._read(admit)
        except self._h11.RemoteProtocolError as error:
            raise RefusedError(error.error_status_hint, "this is not a request") from error

    async def _read(self, admit: Callable[[Any], None]) -> Asked:
        connection, head, body = self._connection, None, bytearray()
        while True:
            event = connection.next_event()
            if event is self._h11.NEED_DATA:
                await self._encourage()
                connection.receive_data(await self._stream.receive(_CHUNK))
            elif isinstance(event, self._h11.Request):
                head = event
                admit(head)
            elif isinstance(event, self._h11.Data):
                body += event.data
                if len(body) > self._body_bytes:
                    raise RefusedError(413, f"a request has at most {self._body_bytes} bytes")
            elif isinstance(event, self._h11.EndOfMessage) and head is not None:
                return Asked(head.method.decode("ascii"), head.target.decode("ascii"), bytes(body))
            else:
                raise anyio.EndOfStream

    async def _encourage(self) -> None:
        """Some clients send a body only when told to."""
        if self._connection.they_are_waiting_for_100_continue:
            await self._stream.send(self._connection.send(self._h11.InformationalResponse(status_code=100, headers=[])))

    async def answer(self, status: int, body: bytes) -> None:
        """Say it, and no more. Raises `TimeoutError`, or one of `departures`, when the client does not take it."""
        headers = [_JSON, ("content-length", str(len(body))), ("connection", "close"), ("cache-control", "no-store")]
        send = self._connection.send
        head = send(self._h11.Response(status_code=status, headers=headers))
        with anyio.fail_after(self._each_s):
            await self._stream.send(head + send(self._h11.Data(body)) + send(self._h11.EndOfMessage()))


def departures() -> tuple[type[Exception], ...]:
    """What is raised when whoever asked has gone, or is too slow."""
    # TimeoutError is an OSError.
    return OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, import_h11().LocalProtocolError
