"""Reading a log for a command: its events with a progress bar, its state at a moment, the present on its own timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm.audit import Replay
from portfsm.cli._out import Bar
from portfsm.clocks import Timeline
from portfsm.errors import InvalidValue
from portfsm.journals import read_journal

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm.audit import Moment
    from portfsm.protocols import Clock

__all__ = ["log_now", "read_state"]


def read_state(log: str, *, upto: Moment | None = None, replay: Replay | None = None) -> Replay:
    """The state of a log, now or as of `upto`. Raises what `read_journal` does, `InvalidValue` for a seq the log does not reach.

    Pass a `replay` to have what could be read when it raises.
    """
    found = replay or Replay()
    found.run(Bar(log).watch(read_journal(log)), upto=upto)
    if upto is not None and upto.seq is not None and upto.seq > found.ledger.seq:
        raise InvalidValue(f"the log ends at @{found.ledger.seq}, there is no @{upto.seq} yet", name="time", value=upto.seq)
    return found


def log_now(ledger: Ledger, clock: Clock) -> int:
    """The present in log time, as the next writer on this machine would stamp it."""
    return max(ledger.ts, Timeline(clock, opened=ledger.opened, last_ts=ledger.ts).now())
