"""Reading a log for a command: its state at a moment, from the nearest snapshot on; the present on its own timeline."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from portfsm.audit import Replay
from portfsm.audit._states import reached
from portfsm.cli._out import Bar
from portfsm.clocks import Timeline
from portfsm.journals import past_of, read_journal

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm.audit import Moment
    from portfsm.protocols import Clock

__all__ = ["log_now", "read_all", "read_state", "signature"]

_SEGMENT = re.compile(r"[0-9]{20}\.jsonl")


def read_state(log: str, *, upto: Moment | None = None, replay: Replay | None = None) -> Replay:
    """The state of a log, now or as of `upto`. Raises what `read_journal` does, `InvalidValue` for a seq the log does not reach.

    Pass a `replay` to have what could be read when it raises.
    """
    found = replay or Replay()
    past = past_of(log)
    found.ledger = past.nearest(seq=upto.seq, ts=upto.ts) if upto is not None else past.nearest()
    for _ in found.through(Bar(log).watch_all(past.batches(found.ledger.seq)), upto=upto):
        pass
    if found.last is None and found.ledger.seq:  # the snapshot was the state
        found.last = next(past.events(found.ledger.seq - 1), None)
    found.opened = found.opened or past.opening(found.ledger.epoch)
    if upto is not None:
        reached(found.ledger, upto)
    return found


def read_all(log: str) -> Replay:
    """The state of a log, every step of it gone anew. Raises what `read_journal` does."""
    found = Replay()
    found.run(Bar(log).watch(read_journal(log)))
    return found


def signature(log: str) -> object:
    """Changes when the log grows; for a log that is not in a directory, always."""
    if "://" in log:
        return object()
    with os.scandir(log) as entries:
        return sorted((entry.name, entry.stat().st_size) for entry in entries if _SEGMENT.fullmatch(entry.name))


def log_now(ledger: Ledger, clock: Clock) -> int:
    """The present in log time, as the next writer on this machine would stamp it."""
    return max(ledger.ts, Timeline(clock, opened=ledger.opened, last_ts=ledger.ts).now())
