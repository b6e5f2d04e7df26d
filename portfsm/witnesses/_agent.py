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
from portfsm.witnesses._serving import Asked, Exchange, RefusedError, departures
from portfsm.witnesses._wire import CHECK, QUESTION_BYTES, WITHDRAW, Answer, Answers, Failure, Question, check_token, same_token

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence

    from anyio.abc import ByteStream, Listener

    from portfsm.evidence import Evidence, Witness
    from portfsm.witnesses._asking import Place

__all__ = ["Agent", "Limits", "over_tls"]


@attrs.frozen
class Limits:
    """What one stranger may cost."""

    connections: int = 64
    read_s: float = 5.0
    """How long a request may take to arrive, handshake excluded."""
    answer_s: float = 7.0
    """Less than a remote witness waits: it learns that the proxy was silent, not the agent."""


_LIMITS = Limits()


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
        self._departures = departures()
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
            await self._answer(Exchange(stream, body_bytes=QUESTION_BYTES, each_s=self._limits.read_s))
        except self._departures:
            pass
        finally:
            self._free += 1
            await anyio.aclose_forcefully(stream)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            asked = await exchange.read(self._admit)
            status, body = 200, msgspec.json.encode(await self._answers(asked))
        except RefusedError as error:
            status, body = error.status, msgspec.json.encode(Failure(str(error)))
        await exchange.answer(status, body)

    def _admit(self, request: Any) -> None:
        """Refuse who does not know the token before all else."""
        given = [value for name, value in request.headers if name == b"authorization"]
        if len(given) != 1 or not same_token(given[0], self._token):
            raise RefusedError(401, "the token is missing or another: give RemoteWitness the content of the agent's token file")
        if request.target not in (CHECK.encode(), WITHDRAW.encode()):
            raise RefusedError(404, f"there is {CHECK} and {WITHDRAW}")
        if request.method != b"POST":
            raise RefusedError(405, "questions are put by POST")

    async def _answers(self, asked: Asked) -> Answers:
        question = _question(asked.body)
        witness = self._witnesses.get(question.proxy)
        if witness is None:
            raise RefusedError(404, f"no proxy of that name here; there is {', '.join(sorted(self._witnesses))}")
        ask = _check if asked.target == CHECK else _withdraw
        with anyio.move_on_after(self._limits.answer_s):
            async with self._turns[witness.proxy]:
                return Answers(await ask(witness, question.places))
        raise RefusedError(504, f"the proxy gave no answer within {self._limits.answer_s:g} s")


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
        raise RefusedError(400, f"not a question: {error}") from error
