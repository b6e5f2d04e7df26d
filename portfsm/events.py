"""One recorded fact. The same flat record is decided, stored, watched, logged and replayed.

A msgspec Struct, because it decodes three to five times faster than an attrs class (`docs/performance.md`);
everything else users hold is attrs. Field order is the key order on disk; a field at its default is
left out there. Checksum (`c`), batch position (`b`) and record version (`v`) belong to the line format, not
to the fact, and are not fields (see `_codec`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from portfsm.states import EventKind  # noqa: TC001  (msgspec resolves the annotation when it decodes)

__all__ = ["Event"]


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A fact in the log. Frozen; equal by value."""

    seq: int
    """Position in the log, gapless from 1."""
    ts: int
    """When, in UTC nanoseconds on the log's own steady timeline; never goes back."""
    kind: EventKind
    node: str = ""
    pool: str = ""
    port: int = 0
    """1..65535; 0 for events that concern no port."""
    owner: str = ""
    service: str = ""
    token: int = 0
    """The lease this event begins, ends or follows: the `seq` of the event that began it."""
    hold_ms: int = 0
    """Length of the hold this event starts, rounded up to a millisecond."""
    until: int = 0
    """End of the hold or block, or of a lease that nobody renews, in UTC nanoseconds; 0 when there is none."""
    cause: str = ""
    """Why, in one fixed word (`released`, `elapsed`, `operator`, ...)."""
    reason: str = ""
    """Why, in free text for people."""
    data: dict[str, Any] | None = None
    """What `opened`, `pool_defined` and `proxy_joined` carry; for an `allocated` of a group its `index` where that is not 0; for
    `blocked` the `errno`, and how many `times` in a row."""
