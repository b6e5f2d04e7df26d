"""How a witness of this package answers: always, in bounded time, and what goes wrong is UNKNOWN with the reason.

A look at the proxy gives one `Finding` a place. It may raise `NoAnswerError` (nobody answered: UNKNOWN for all places) or
anything else, which counts the same. Cancellation passes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm.clocks import SystemClock
from portfsm.evidence import Evidence, Verdict
from portfsm.specs import check_seconds, check_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from portfsm.protocols import Clock

__all__ = ["DEADLINE_S", "REASON_LIMIT", "Finding", "Named", "NoAnswerError", "Place"]

Place = tuple[str, int, int]
"""Host, port, since."""

DEADLINE_S = 2.0
"""How long a look may take. A local proxy answers within milliseconds; one that does not is asked again later."""
REASON_LIMIT = 300


class NoAnswerError(Exception):
    """The proxy could not be asked, or what it said is not an answer; the text is for people."""


@attrs.frozen
class Finding:
    """What a look showed of one place."""

    verdict: Verdict
    reason: str
    generation: int | None = None
    incarnation: str = ""


class Named(ABC):
    """What every witness here has: the name of its proxy, a time bound, a deadline, a clock, and `check` by way of `check_many`."""

    def __init__(self, proxy: str, fallback_s: float | None, *, deadline_s: float = DEADLINE_S, clock: Clock | None = None) -> None:
        """Raises `InvalidValue`."""
        self._proxy = check_text("proxy", proxy, required=True)
        self._fallback_s = None if fallback_s is None else check_seconds("fallback_s", fallback_s)
        self._deadline_s = check_seconds("deadline_s", deadline_s)
        self._clock = clock or SystemClock()

    @property
    def proxy(self) -> str:
        """Stable name of one proxy instance."""
        return self._proxy

    @property
    def fallback_s(self) -> float | None:
        """Seconds after the release from which its silence may count as clear; None = never."""
        return self._fallback_s

    async def check(self, host: str, port: int, since: int) -> Evidence:
        """Ask about one port. Never raises."""
        return (await self.check_many([(host, port, since)]))[0]

    @abstractmethod
    async def check_many(self, places: Sequence[Place]) -> Sequence[Evidence]:
        """Evidence for each (host, port, since), in order. Never raises."""

    async def _answer(self, places: Sequence[Place], look: Callable[[], Awaitable[Sequence[Finding]]]) -> tuple[Evidence, ...]:
        """The evidence of one look, in the order of `places`. Never raises but when cancelled."""
        asked_at = self._clock.boot_ns()
        try:
            with anyio.fail_after(self._deadline_s):
                findings = await look()
        except TimeoutError:
            findings = _unknown(places, f"no answer within {self._deadline_s:g} s")
        except NoAnswerError as error:
            findings = _unknown(places, str(error))
        except Exception as error:  # noqa: BLE001  (a witness never raises: whoever asks holds the port, and shows the reason)
            findings = _unknown(places, f"{type(error).__name__}: {error}")
        times = asked_at, self._clock.boot_ns()
        return tuple(
            Evidence(self._proxy, found.incarnation, since, found.verdict, found.generation, found.reason[:REASON_LIMIT], *times)
            for (_, _, since), found in zip(places, findings, strict=True)
        )


def _unknown(places: Sequence[Place], reason: str) -> list[Finding]:
    return [Finding(Verdict.UNKNOWN, reason)] * len(places)
