"""Evidence about a proxy on another node, from the agent that runs there (`portfsm agent`).

The agent asks the proxy once the question has arrived, and this end notes the time before it sends and after it has the answer: so
no answer is older than its question. What does not answer, or answers anything else than agreed, is UNKNOWN.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import msgspec

from portfsm.evidence import Evidence, Verdict
from portfsm.witnesses._asking import Finding, Named, NoAnswerError, Place
from portfsm.witnesses._http import Requester
from portfsm.witnesses._wire import ANSWER_BYTES, CHECK, PLACES, WITHDRAW, Answers, Question, check_token

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

    from portfsm.evidence import Witness

__all__ = ["RemoteWitness"]

_DEADLINE_S = 8.0
"""Longer than the agent waits for its proxy."""


class RemoteWitness(Named):
    """Asks the agent at `url` about the proxy that it calls `proxy`.

    `token` is the content of the agent's token file. `verify` is what an https certificate is checked against: a context, a
    file of CAs, or None for those that the system trusts. Over plain http the token and the answers can be read and
    forged by whoever sits between: use it on a network of your own only.
    """

    def __init__(
        self,
        url: str,
        *,
        proxy: str,
        token: str,
        fallback_s: float | None = None,
        verify: ssl.SSLContext | str | None = None,
        deadline_s: float = _DEADLINE_S,
    ) -> None:
        super().__init__(proxy, fallback_s, deadline_s=deadline_s)
        self._headers = (("authorization", f"Bearer {check_token(token)}"),)
        self._requester = Requester(url, verify=verify)

    async def check_many(self, places: Sequence[Place]) -> tuple[Evidence, ...]:
        """Ask the agent, which asks the proxy, in as few questions as it takes."""
        found: tuple[Evidence, ...] = ()
        for start in range(0, len(places), PLACES):
            part = places[start : start + PLACES]
            found += await self._answer(part, partial(self._look, part))
        return found

    async def withdraw(self, host: str, port: int, since: int) -> None:
        """Have the agent take the port out of service in the proxy, where it can. What goes wrong shows in the next answer."""
        await self.withdraw_many([(host, port, since)])

    async def withdraw_many(self, places: Sequence[Place]) -> None:
        """The same for many (host, port, since), in as few requests as it takes."""
        for start in range(0, len(places), PLACES):
            part = places[start : start + PLACES]
            await self._answer(part, partial(self._take_out, part))

    async def changed(self) -> AsyncIterator[None]:
        """Never yields: the agent calls nobody."""
        await anyio.sleep_forever()
        yield

    async def _look(self, places: Sequence[Place]) -> list[Finding]:
        answers = await self._ask(CHECK, places)
        if len(answers.answers) != len(places):
            raise NoAnswerError(f"{self._requester.shown} gave {len(answers.answers)} answers to {len(places)} questions")
        return [Finding(Verdict(each.verdict), each.reason, each.generation, each.incarnation) for each in answers.answers]

    async def _take_out(self, places: Sequence[Place]) -> list[Finding]:
        await self._ask(WITHDRAW, places)
        return [Finding(Verdict.UNKNOWN, "")] * len(places)

    async def _ask(self, path: str, places: Sequence[Place]) -> Answers:
        question = msgspec.json.encode(Question(self._proxy, [*places]))
        body = await self._requester.fetch(path, limit=ANSWER_BYTES, body=question, headers=self._headers)
        try:
            return msgspec.json.decode(body, type=Answers)
        except ValueError as error:  # also the UnicodeDecodeError that msgspec lets through
            raise NoAnswerError(f"{self._requester.shown} is no agent of this version: {error}") from error


if TYPE_CHECKING:
    _: type[Witness] = RemoteWitness
