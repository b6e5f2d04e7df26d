"""One bounded HTTP request on a connection of its own. Whatever goes wrong is `NoAnswerError`.

h11 reads and writes the protocol, anyio the socket, and nothing in between keeps a pool, follows redirects, unpacks what was
compressed or takes a proxy from the environment. (httpx leaves unfinished generators behind on trio when a body is cut short,
which is what a bound does.) h11 comes with the extra `agent`; it is imported when a witness that needs it is made.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import anyio

from portfsm.errors import InvalidValue
from portfsm.witnesses._asking import NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import ByteStream

__all__ = ["Requester", "import_h11"]

_CHUNK = 65_536
_OK = 200


class Requester:
    """Asks one server. `verify` is what its certificate is checked against: a context, a file of CAs, None for the system's."""

    def __init__(self, url: str, *, verify: ssl.SSLContext | str | None = None, name: str = "url") -> None:
        import_h11()
        parts = _parsed(url, name)
        self.shown = parts.geturl()
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc
        self._path = parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else "")
        self._context = _context(verify) if parts.scheme == "https" else None

    async def fetch(self, path: str = "", *, limit: int, body: bytes | None = None, headers: Sequence[tuple[str, str]] = ()) -> bytes:
        """The body of a 200, of at most `limit` bytes; a POST when it has a `body`. The time is the caller's to bound."""
        h11 = import_h11()
        head = [("host", self._authority), ("connection", "close"), *headers]
        if body is not None:
            head += [("content-type", "application/json"), ("content-length", str(len(body)))]
        request = h11.Request(method="GET" if body is None else "POST", target=self._path + path or "/", headers=head)
        try:
            async with await self._connect() as stream:
                connection = h11.Connection(h11.CLIENT)
                await stream.send(connection.send(request) + connection.send(h11.Data(body or b"")) + connection.send(h11.EndOfMessage()))
                return await self._answer(connection, stream, limit)
        except (OSError, anyio.BrokenResourceError, h11.ProtocolError) as error:
            raise NoAnswerError(f"{self.shown}: {error or type(error).__name__}") from error

    async def _connect(self) -> ByteStream:
        if self._context is None:
            return await anyio.connect_tcp(self._host, self._port)
        # Many servers end without the closing alert; what was cut short is seen from the length.
        return await anyio.connect_tcp(
            self._host, self._port, tls=True, ssl_context=self._context, tls_hostname=self._host, tls_standard_compatible=False
        )

    async def _answer(self, connection: Any, stream: ByteStream, limit: int) -> bytes:
        h11 = import_h11()
        body = bytearray()
        status = 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await _receive(stream))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    raise NoAnswerError(f"{self.shown} answered more than {limit} bytes")
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise NoAnswerError(f"{self.shown} hung up without an answer")
        if status != _OK:
            raise NoAnswerError(f"{self.shown} answered {status}: {bytes(body[:200]).decode('utf-8', 'replace').strip()}")
        return bytes(body)


def import_h11() -> Any:
    """The module h11. Raises `ModuleNotFoundError` that says what to install."""
    try:
        import h11  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('speaking HTTP needs h11: pip install "portfsm[agent]"', name=error.name) from error
    return h11


async def _receive(stream: ByteStream) -> bytes:
    try:
        return await stream.receive(_CHUNK)
    except anyio.EndOfStream:
        return b""


def _parsed(url: object, name: str) -> SplitResult:
    try:
        parts = urlsplit(url) if isinstance(url, str) and url.isascii() and url.isprintable() and " " not in url else None
        if parts is not None and parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and parts.port != 0:
            return parts
    except ValueError:
        pass
    # It may carry a password: it is not repeated.
    raise InvalidValue(f"{name} must be a URL like http://127.0.0.1:8377, without a password", name=name, value=None)


def _context(verify: ssl.SSLContext | str | None) -> ssl.SSLContext:
    return verify if isinstance(verify, ssl.SSLContext) else ssl.create_default_context(cafile=verify)
