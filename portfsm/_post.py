"""One witness at work: when its proxy is asked, what it is told, and what becomes of answers that are none.

A round is followed by a pause of 5 ms that doubles while nothing changes (0.25 ms a port where that is longer, so that many ports do not
keep a core busy). What it still holds it is told again after a second (1 ms a port where that is longer). A witness that raises, answers
for somebody else, or not within half a minute, has said nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from portfsm._log import warn
from portfsm.evidence import Evidence, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from portfsm._evidence import Case, Place
    from portfsm._warden import Warden
    from portfsm.evidence import Witness

__all__ = ["Post"]

_FIRST_PAUSE_NS = 5_000_000
_PAUSE_A_PORT_NS = 250_000
_TELL_AGAIN_NS = 1_000_000_000
_TELL_A_PORT_NS = 1_000_000
_ROUND_NS = 30_000_000_000
"""A witness answers within a bounded time of its own, and this is longer than any here takes."""


@attrs.define(eq=False)
class Post:
    """One witness at work."""

    warden: Warden
    witness: Witness
    woken: bool = False
    """A round is wanted at once."""
    stir: anyio.Event = attrs.field(factory=anyio.Event)
    """Set to have a pause ended, or made shorter."""
    pause_ns: int = _FIRST_PAUSE_NS
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    told: dict[Place, tuple[int, int]] = attrs.field(factory=dict)
    """Ports that the proxy was asked to take out of service, each with the `since` it was asked for, and until when that will do."""

    async def run(self) -> None:
        """Ask until cancelled."""
        with self.scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen)
                await self._ask_for_ever()

    async def _listen(self) -> None:
        try:
            async with _closing(self.witness.changed()) as news:
                async for _ in news:
                    self.ask_now()
                    await checkpoint()  # one that always yields must not keep all others out
        except Exception as error:  # noqa: BLE001  (a witness must not raise; one that does is polled)
            warn("witness_failed", proxy=self.witness.proxy, error=repr(error))

    def ask_now(self) -> None:
        """Something has changed."""
        self.woken = True
        self.stir.set()

    def hurry(self) -> None:
        """Somebody waits: the pauses start over. None is left out, or a caller that tries again and again would keep the proxy busy."""
        self.pause_ns = _FIRST_PAUSE_NS
        self.stir.set()

    async def _ask_for_ever(self) -> None:
        while True:
            self.woken = False
            cases = self.warden.cases.unclear(self.witness.proxy)
            if cases:
                await self._round(cases)
            await self._rest(cases)
            self.pause_ns = _FIRST_PAUSE_NS if self.woken else min(2 * self.pause_ns, self.warden.longest_pause_ns(cases))

    async def _rest(self, cases: list[Case]) -> None:
        began = self.warden.boot_ns()
        while not self.woken:
            self.stir, left = anyio.Event(), None
            if cases and (left := began + max(self.pause_ns, len(cases) * _PAUSE_A_PORT_NS) - self.warden.boot_ns()) <= 0:
                return
            await self.warden.pause(self.stir, left)

    async def _round(self, cases: list[Case]) -> None:
        async def ask() -> None:
            self._take(cases, await self._answers(cases))  # in the step in which they came: what a proxy was is over once it answers

        if not await self.warden.within(_ROUND_NS, ask):
            self._take(cases, f"gave no answer within {_ROUND_NS / 1e9:g} s")

    def _take(self, cases: list[Case], answers: Sequence[Evidence] | str) -> None:
        """What was answered, or why there is no answer."""
        if self.scope.cancel_called:
            return  # it has left: its last word is nobody's
        if isinstance(answers, str):
            warn("witness_failed", proxy=self.witness.proxy, error=answers)
            answers = [self._silence(case.since, answers) for case in cases]
        for case, answer in zip(cases, answers, strict=True):
            self.warden.cases.take_answer(case.place, answer)
            if answer.verdict is Verdict.UNKNOWN:
                self.told.pop(case.place, None)  # nor may it have heard what it was told
        by_time = self.witness.fallback_s is not None
        self.warden.conclude(case for case in cases if by_time or self._is_clear(case))

    async def _answers(self, cases: list[Case]) -> Sequence[Evidence] | str:
        """What the witness says, or why that is worth nothing: it must not raise, but silence is the safe answer."""
        hosts = {node: self.warden.host(node) for node in {case.place.node for case in cases}}
        questions = [(hosts[case.place.node], case.place.port, case.since) for case in cases]
        try:
            await self._take_out(cases, questions)
            answers = [*await self._ask(questions)]
        except Exception as error:  # noqa: BLE001  (as above)
            return repr(error)
        if len(answers) == len(cases) and all(map(self._is_own, answers)):
            return answers
        return f"gave no answers of its own to {len(cases)} questions: {answers!r:.200}"

    def _is_own(self, answer: object) -> bool:
        return isinstance(answer, Evidence) and answer.proxy == self.witness.proxy and isinstance(answer.verdict, Verdict)

    def _is_clear(self, case: Case) -> bool:
        answer = case.answers.get(self.witness.proxy)
        return answer is not None and answer.verdict is Verdict.CLEAR

    async def _ask(self, questions: list[tuple[str, int, int]]) -> Sequence[Evidence]:
        many: Any = getattr(self.witness, "check_many", None)
        if many is not None:
            answers: Sequence[Evidence] = await many(questions)
            return answers
        return [await self.witness.check(*question) for question in questions]

    async def _take_out(self, cases: list[Case], questions: list[tuple[str, int, int]]) -> None:
        withdraw: Any = getattr(self.witness, "withdraw", None)
        if withdraw is None:
            return
        now = self.warden.boot_ns()
        until = now + max(_TELL_AGAIN_NS, len(cases) * _TELL_A_PORT_NS)
        # Not once for all: a reload of an older file puts a port back.
        self.told = {place: said for place, said in self.told.items() if place in self.warden.cases.open and said[1] > now}
        untold = [pair for pair in zip(cases, questions, strict=True) if self.told.get(pair[0].place, (0, 0))[0] != pair[0].since]
        self.told.update((case.place, (case.since, until)) for case, _ in untold)
        many: Any = getattr(self.witness, "withdraw_many", None)
        if many is not None:
            await many([question for _, question in untold])
            return
        for case, question in untold:
            if self.warden.cases.open.get(case.place) is case:
                await withdraw(*question)

    def _silence(self, since: int, reason: str) -> Evidence:
        return Evidence(self.witness.proxy, "", since, Verdict.UNKNOWN, None, reason, 0, 0)


@asynccontextmanager
async def _closing(news: AsyncIterator[None]) -> AsyncIterator[AsyncIterator[None]]:
    """An iterator that is left in the middle is closed at once, if it is one that can be."""
    try:
        yield news
    finally:
        if isinstance(news, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await news.aclose()
