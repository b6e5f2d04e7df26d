"""How a port is blocked: what is kept of the finding, and for how long.

Rule: an operator's word is taken as it is. A finding (somebody sits on the port) that comes back when its time is over doubles that
time, up to a day: a stranger's server is asked about less and less often, and a passing trouble passes. The count is in the
events, so replay only copies it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from portfsm._lost import recall
from portfsm._pool import ALLOCATED
from portfsm.states import EventKind

if TYPE_CHECKING:
    from portfsm import commands
    from portfsm._draft import Draft
    from portfsm._pool import Pool

__all__ = ["LONGEST_S", "block"]

LONGEST_S = 86_400.0
"""No block doubles beyond a day."""

_DOUBLINGS = 40
"""Of the shortest block, a microsecond, to beyond a day."""


def block(pool: Pool, offset: int, draft: Draft, command: commands.Block | commands.Release, *, reason: str, cause: str) -> None:
    """Take a port that is not BLOCKED out of use, and end its lease if there is one. What the system said goes before any other cause."""
    holder: dict[str, Any] = {}
    if pool.code(pool.base + offset) == ALLOCATED:
        holder = {"owner": pool.owner[offset], "service": pool.service[offset], "token": pool.token[offset]}
    if command.errno:
        cause = "address-in-use"
    recall(pool, offset, draft)
    times = _times(pool, offset, command.for_s, cause)
    until = 0 if command.for_s is None else draft.ts + math.ceil(_length_s(command.for_s, times) * 1e9)
    data = {key: value for key, value in (("errno", command.errno), ("times", times)) if value} or None
    draft.on(pool, offset, EventKind.BLOCKED, **holder, until=until, cause=cause, reason=reason, data=data)


def _times(pool: Pool, offset: int, for_s: float | None, cause: str) -> int:
    """How often the port is now blocked for this cause since its last good lease; 0 where that is not counted."""
    if for_s is None or cause == "operator":
        return 0
    note = pool.note(offset)
    return note.times + 1 if note.blocked_as == cause else 1


def _length_s(for_s: float, times: int) -> float:
    return max(for_s, min(for_s * 2.0 ** min(max(times - 1, 0), _DOUBLINGS), LONGEST_S))
