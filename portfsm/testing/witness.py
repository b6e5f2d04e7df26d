"""A proxy's word as a test scripts it."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import anyio
import attrs
from anyio.lowlevel import checkpoint

from portfsm.clocks import SystemClock
from portfsm.evidence import Evidence, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from portfsm.evidence import Witness
    from portfsm.protocols import Clock

__all__ = ["FakeWitness"]

_Said = Verdict | Evidence
Script = Callable[[str, int, int], _Said | Awaitable[_Said]]


class FakeWitness:
    """Answers from a script and keeps what it was asked.

    `answers` is a list of verdicts (or whole `Evidence`) given one a question, the last one again and again; or a function, plain or
    async, of (host, port, since). Without any it says UNKNOWN. An async one that never returns is a proxy that is silent.
    A verdict becomes evidence of the present `incarnation` and `generation` (both may be set; by default the
    generation is the highest `since` that it said CLEAR about, none otherwise), with the times of `clock`. What the script raises is
    raised: a witness must not, and a test may want to see what happens then.
    """

    def __init__(
        self,
        proxy: str = "fake",
        answers: Iterable[_Said] | Script = (),
        *,
        fallback_s: float | None = None,
        clock: Clock | None = None,
        incarnation: str = "fake-1",
        generation: int | None = None,
    ) -> None:
        self.proxy = proxy
        self.fallback_s = fallback_s
        self.incarnation = incarnation
        self.generation = generation
        self.asked: list[tuple[str, int, int]] = []
        """Each (host, port, since), in order."""
        self.rounds: list[int] = []
        """How many places each question had."""
        self.withdrawn: list[tuple[str, int, int]] = []
        self._cleared = 0
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._script: Script | None = None
        self._left: deque[_Said] = deque()
        self._heard = anyio.Event()
        self._triggers = 0
        self.say(answers)

    # ---- what a test does ---------------------------------------------------------------------------------

    def say(self, answers: _Said | Iterable[_Said] | Script) -> None:
        """Go on with another script; a single answer is given from now on."""
        self._script = answers if callable(answers) else None
        single = isinstance(answers, Verdict | Evidence)
        self._left = deque() if callable(answers) else deque([answers] if single else answers)  # type: ignore[list-item,arg-type]

    def trigger(self) -> None:
        """Let `changed` yield."""
        self._triggers += 1
        self._ring()

    async def wait_asked(self, count: int) -> None:
        """Return once `count` places have been asked about in all."""
        while len(self.asked) < count:
            await self._heard.wait()

    # ---- what the manager does ----------------------------------------------------------------------------

    async def check(self, host: str, port: int, since: int) -> Evidence:
        """The next answer."""
        return (await self.check_many([(host, port, since)]))[0]

    async def check_many(self, places: Sequence[tuple[str, int, int]]) -> tuple[Evidence, ...]:
        """The next answers."""
        asked_at = self._clock.boot_ns()
        self.rounds.append(len(places))
        self.asked += places
        self._ring()
        await checkpoint()
        return tuple([await self._answer(place, asked_at) for place in places])

    async def withdraw(self, host: str, port: int, since: int) -> None:
        """Kept in `withdrawn`."""
        self.withdrawn.append((host, port, since))
        await checkpoint()

    async def changed(self) -> AsyncIterator[None]:
        """Yields once for each `trigger`, also those from before it was listened to."""
        seen = 0
        while True:
            while self._triggers == seen:
                await self._heard.wait()
            seen += 1
            yield

    async def _answer(self, place: tuple[str, int, int], asked_at: int) -> Evidence:
        said: _Said | Awaitable[_Said]
        if self._script is not None:
            said = self._script(*place)
            if inspect.isawaitable(said):
                said = await said
        else:
            said = self._next()
        since = place[2]
        if isinstance(said, Evidence):
            return attrs.evolve(said, since=since)
        generation = self.generation
        if generation is None and said is Verdict.CLEAR:
            generation = self._cleared = max(self._cleared, since)  # one that went back would void what it said before
        return Evidence(self.proxy, self.incarnation, since, said, generation, "as scripted", asked_at, self._clock.boot_ns())

    def _next(self) -> _Said:
        if not self._left:
            return Verdict.UNKNOWN
        return self._left.popleft() if len(self._left) > 1 else self._left[0]

    def _ring(self) -> None:
        heard, self._heard = self._heard, anyio.Event()
        heard.set()


if TYPE_CHECKING:
    _: type[Witness] = FakeWitness
