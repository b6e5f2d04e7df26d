"""How a witness of this package answers: always, in bounded time, and what goes wrong is UNKNOWN with the reason.

A look at the proxy gives one `Finding` a place. It may raise `NoAnswerError` (nobody answered: UNKNOWN for all places) or
anything else, which counts the same. Cancellation passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm.clocks import SystemClock
from portfsm.evidence import Evidence, Verdict
from portfsm.specs import check_seconds, check_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["DEADLINE_S", "REASON_LIMIT", "Finding", "NoAnswerError", "Place", "answer", "boot_ns", "check_fallback", "check_name"]

Place = tuple[str, int, int]
"""Host, port, since."""

DEADLINE_S = 2.0
"""How long a look may take. A local proxy answers within milliseconds; one that does not is asked again later."""
REASON_LIMIT = 300

_clock = SystemClock()
boot_ns = _clock.boot_ns


class NoAnswerError(Exception):
    """The proxy could not be asked, or what it said is not an answer; the text is for people."""


@attrs.frozen
class Finding:
    """What a look showed of one place."""

    verdict: Verdict
    reason: str
    generation: int | None = None
    incarnation: str = ""


async def answer(
    proxy: str, places: Sequence[Place], look: Callable[[], Awaitable[Sequence[Finding]]], *, deadline_s: float | None = None
) -> tuple[Evidence, ...]:
    """The evidence of one look, in the order of `places`. Never raises but when cancelled."""
    asked_at = boot_ns()
    deadline_s = DEADLINE_S if deadline_s is None else deadline_s
    try:
        with anyio.fail_after(deadline_s):
            findings = await look()
    except TimeoutError:
        findings = _unknown(places, f"no answer within {deadline_s:g} s")
    except NoAnswerError as error:
        findings = _unknown(places, str(error))
    except Exception as error:  # noqa: BLE001  (a witness never raises: whoever asks holds the port, and shows the reason)
        findings = _unknown(places, f"{type(error).__name__}: {error}")
    answered_at = boot_ns()
    return tuple(
        Evidence(proxy, found.incarnation, since, found.verdict, found.generation, found.reason[:REASON_LIMIT], asked_at, answered_at)
        for (_, _, since), found in zip(places, findings, strict=True)
    )


def _unknown(places: Sequence[Place], reason: str) -> list[Finding]:
    return [Finding(Verdict.UNKNOWN, reason)] * len(places)


def check_name(proxy: object) -> str:
    """The name of a proxy, as events carry it. Raises `InvalidValue`."""
    return check_text("proxy", proxy, required=True)


def check_fallback(fallback_s: object) -> float | None:
    """A bound in seconds, or None. Raises `InvalidValue`."""
    return None if fallback_s is None else check_seconds("fallback_s", fallback_s)
