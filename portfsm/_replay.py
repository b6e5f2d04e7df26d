"""A log read back into a ledger. Takes no clock, no randomness, no I/O beyond the events it is given."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from portfsm._ledger import Ledger
from portfsm.errors import IllegalTransition, JournalCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm.events import Event

__all__ = ["replay"]


def replay(events: Iterable[Event], *, until: int | None = None, onto: Ledger | None = None) -> Ledger:
    """The state that `events` lead to; with `until`, as of that seq (inclusive).

    `onto` continues a ledger, such as one loaded from a snapshot. An event that does not fit means that the log
    is damaged or was written by faulty software: `JournalCorrupt`, naming its seq.
    """
    ledger = Ledger() if onto is None else onto
    if until is not None:
        events = takewhile(lambda event: event.seq <= until, events)
    try:
        ledger.fold(events)
    except IllegalTransition as error:
        raise JournalCorrupt(
            f"event {error.seq} contradicts the log before it: {error} Run `portfsm verify` on the log.",
            path=None, segment=None, offset=None, seq=error.seq,
        ) from error  # fmt: skip
    return ledger
