"""The agent: answers questions about the proxies of its node, to those who know the token.

One request a connection; few connections at once, each with little time and little room, so that a stranger who connects costs next to
nothing. The token is compared before the body is read, in constant time, and is never repeated: not in an answer, not
in a log. A witness that breaks its promise and raises is UNKNOWN here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import attrs
import msgspec
from anyio.streams.tls import TLSListener

from portfsm.evidence import Verdict
from portfsm.witnesses._http import import_h11
from portfsm.witnesses._wire import CHECK, QUESTION_BYTES, WITHDRAW, Answer, Answers, Failure, Question, check_token, same_token

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence

    from anyio.abc import ByteStream, Listener

    from portfsm.evidence import Evidence, Witness
    from portfsm.witnesses._asking import Place

__all__ = ["Agent", "Limits", "over_tls"]

_CHUNK = 65_536
_HEAD_BYTES = 16_384
_JSON = ("content-type", "application/json")


@attrs.frozen
class Limits:
    """What one stranger may cost."""

    connections: int = 64
    read_s: float = 5.0
    """How long a request may take to arrive, handshake excluded."""
    answer_s: float = 7.0
    """Less than a remote witness waits: it learns that the proxy was silent, not the agent."""


_LIMITS = Limits()


class _RefusedError(Exception):
    """The request gets this status and this sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@attrs.frozen
class _Request:
    path: str
    question: Question


class _QuietListener(TLSListener):
    """Strangers who speak no TLS are not worth a traceback each."""

    @staticmethod
    async def handle_handshake_error(exc: BaseException, stream: Any) -> None:
        """Let go of the stream."""
        await anyio.aclose_forcefully(stream)
        if not isinstance(exc, Exception):
            raise exc


def over_tls(listener: Listener[Any], context: ssl.SSLContext) -> Listener[Any]:
    """The same listener, spoken to over TLS."""
    return _QuietListener(listener, context, standard_compatible=False, handshake_timeout=_LIMITS.read_s)


class Agent:
    """Answers for `witnesses`, each under its name."""

    def __init__(self, witnesses: Iterable[Witness], *, token: str, limits: Limits = _LIMITS) -> None:
        self._h11 = import_h11()
        self._witnesses = {witness.proxy: witness for witness in witnesses}
        self._token = check_token(token)
        self._limits, self._free = limits, limits.connections
        # Proxies take few connections to their sockets: one question at a time.
        self._turns = {name: anyio.Lock() for name in self._witnesses}

    async def serve(self, listener: Listener[Any]) -> None:
        """Answer on `listener` until cancelled."""
        await listener.serve(self._connected)

    async def _connected(self, stream: ByteStream) -> None:
        if self._free == 0:
            await anyio.aclose_forcefully(stream)
            return
        self._free -= 1
        try:
            await self._answer(stream)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, self._h11.LocalProtocolError):
            pass  # who asked has gone
        finally:
            self._free += 1
            await anyio.aclose_forcefully(stream)

    async def _answer(self, stream: ByteStream) -> None:
        connection = self._h11.Connection(self._h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        status, body = 200, b""
        try:
            with anyio.fail_after(self._limits.read_s):
                request = await self._read(connection, stream)
            body = msgspec.json.encode(await self._answers(request))
        except TimeoutError:
            return
        except _RefusedError as error:
            status, body = error.status, msgspec.json.encode(Failure(str(error)))
        except self._h11.RemoteProtocolError as error:
            status, body = error.error_status_hint, msgspec.json.encode(Failure("this is not a request"))
        with anyio.move_on_after(self._limits.read_s):
            await self._send(connection, stream, status, body)

    async def _send(self, connection: Any, stream: ByteStream, status: int, body: bytes) -> None:
        headers = [_JSON, ("content-length", str(len(body))), ("connection", "close"), ("cache-control", "no-store")]
        head = connection.send(self._h11.Response(status_code=status, headers=headers))
        await stream.send(head + connection.send(self._h11.Data(body)) + connection.send(self._h11.EndOfMessage()))

    async def _read(self, connection: Any, stream: ByteStream) -> _Request:
        request: Any = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is self._h11.NEED_DATA:
                connection.receive_data(await stream.receive(_CHUNK))
            elif isinstance(event, self._h11.Request):
                request = event
                self._admit(event)
            elif isinstance(event, self._h11.Data):
                body += event.data
                if len(body) > QUESTION_BYTES:
                    raise _RefusedError(413, f"a question has at most {QUESTION_BYTES} bytes")
            elif isinstance(event, self._h11.EndOfMessage):
                return _Request(request.target.decode("ascii"), _question(bytes(body)))
            else:
                raise anyio.EndOfStream

    def _admit(self, request: Any) -> None:
        """Refuse who does not know the token before all else."""
        given = [value for name, value in request.headers if name == b"authorization"]
        if len(given) != 1 or not same_token(given[0], self._token):
            raise _RefusedError(401, "the token is missing or another: give RemoteWitness the content of the agent's token file")
        if request.target not in (CHECK.encode(), WITHDRAW.encode()):
            raise _RefusedError(404, f"there is {CHECK} and {WITHDRAW}")
        if request.method != b"POST":
            raise _RefusedError(405, "questions are put by POST")

    async def _answers(self, request: _Request) -> Answers:
        witness = self._witnesses.get(request.question.proxy)
        if witness is None:
            raise _RefusedError(404, f"no proxy of that name here; there is {', '.join(sorted(self._witnesses))}")
        ask = _check if request.path == CHECK else _withdraw
        with anyio.move_on_after(self._limits.answer_s):
            async with self._turns[witness.proxy]:
                return Answers(await ask(witness, request.question.places))
        raise _RefusedError(504, f"the proxy gave no answer within {self._limits.answer_s:g} s")


async def _check(witness: Witness, places: Sequence[Place]) -> list[Answer]:
    try:
        check_many = getattr(witness, "check_many", None)
        found = await check_many(places) if check_many else [await witness.check(*place) for place in places]
    except Exception as error:  # noqa: BLE001  (one witness must not take the agent down)
        return [Answer("", Verdict.UNKNOWN.value, None, f"{type(error).__name__}: {error}"[:300])] * len(places)
    return [_as_answer(each) for each in found]


async def _withdraw(witness: Witness, places: Sequence[Place]) -> list[Answer]:
    if withdraw_many := getattr(witness, "withdraw_many", None):
        await withdraw_many(places)
    elif withdraw := getattr(witness, "withdraw", None):
        for place in places:
            await withdraw(*place)
    return []


def _as_answer(evidence: Evidence) -> Answer:
    return Answer(evidence.incarnation, evidence.verdict.value, evidence.generation, evidence.reason[:1024])


def _question(body: bytes) -> Question:
    try:
        return msgspec.json.decode(body, type=Question)
    except ValueError as error:  # also the UnicodeDecodeError that msgspec lets through
        raise _RefusedError(400, f"not a question: {error}") from error
