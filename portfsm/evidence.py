"""What a proxy can be asked about a port, and what it may answer. The rules that follow from answers are in `_evidence`.

A port is safe for another service when no process of any proxy can still open a connection to it for the old one.
An established connection does no harm (it cannot pass from the old replica to the new one), so the question is always
the same: can you still *connect* to this address because of something you were told before `since`?
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Evidence", "Verdict", "Witness"]


class Verdict(enum.Enum):
    """What an answer comes down to."""

    CLEAR = "CLEAR"
    """No process of this proxy can open a connection to the port for anything from before `since`."""
    HELD = "HELD"
    """At least one still can, or an answer could not be read."""
    UNKNOWN = "UNKNOWN"
    """Nobody answered, or things moved while they were asked."""


@attrs.frozen
class Evidence:
    """One proxy's answer about one port."""

    proxy: str
    incarnation: str
    """Names the running proxy: another one means that it was restarted and earlier answers are void. Empty when unknown."""
    since: int
    """The `seq` of the withdrawal or release that was asked about."""
    verdict: Verdict
    generation: int | None
    """The highest `seq` its configuration was made from, as it says itself; None when it does not say."""
    reason: str
    """Why, in a sentence for people; for CLEAR, what it rests on."""
    asked_at: int
    """When the question was put, nanoseconds of the boot clock."""
    answered_at: int


@runtime_checkable
class Witness(Protocol):
    """Something that can tell whether one proxy may still route to a port.

    A witness may also have three methods more. `check_many(places)` takes (host, port, since) triples and returns their
    evidence in order: many ports in one question. `withdraw(host, port, since)` takes the port out of service in the
    proxy, `withdraw_many(places)` many at once; they never raise either. All are looked for, and done without where they are missing.
    """

    @property
    def proxy(self) -> str:
        """Stable name of one proxy instance."""
        ...

    @property
    def fallback_s(self) -> float | None:
        """This proxy's own time bound, seconds after the release, after which silence may count as clear; None = never."""
        ...

    async def check(self, host: str, port: int, since: int) -> Evidence:
        """Ask. Never raises, and answers within a bounded time: what goes wrong is UNKNOWN with the reason."""
        ...

    def changed(self) -> AsyncIterator[None]:
        """Yields when asking again may pay; may never yield. Polling with back-off is the fallback."""
        ...
