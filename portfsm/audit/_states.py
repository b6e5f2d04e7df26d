"""The state at a moment, and what is different at another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from portfsm.audit._steps import Replay
from portfsm.errors import InvalidValue
from portfsm.states import PortState
from portfsm.values import PortView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm._ledger import Ledger
    from portfsm.audit._moments import Moment
    from portfsm.events import Event

__all__ = ["Difference", "diff", "state_at"]


def state_at(events: Iterable[Event], moment: Moment, *, since: Ledger | None = None) -> Ledger:
    """The state at a moment: everything recorded up to it has happened, what is recorded at it included.

    `since` is a ledger that the events follow on; it is taken along, not copied. Raises `JournalCorrupt`, and `InvalidValue` for a seq that
    the log does not reach.
    """
    replay = Replay(since)
    replay.run(events, upto=moment)
    return reached(replay.ledger, moment)


def reached(ledger: Ledger, moment: Moment) -> Ledger:
    """The ledger, if it is as of the moment. Raises `InvalidValue` for a seq beyond it."""
    if moment.seq is not None and moment.seq > ledger.seq:
        raise InvalidValue(f"the log ends at @{ledger.seq}, there is no @{moment.seq} yet", name="time", value=moment.seq)
    return ledger


@attrs.frozen
class Difference:
    """A port that was in one state, or one owner's, and is in another, or another's."""

    before: PortView
    after: PortView


def diff(before: Ledger, after: Ledger) -> tuple[Difference, ...]:
    """The ports of which state or owner differs between two states of one log, by node, pool and number."""
    held = {(view.node, view.pool, view.port) for ledger in (before, after) for view in ledger.ports()}
    pairs = (Difference(_view(before, *place), _view(after, *place)) for place in sorted(held))
    return tuple(pair for pair in pairs if _told(pair.before) != _told(pair.after))


def _told(view: PortView) -> tuple[PortState, str]:
    return view.state, view.owner


def _view(ledger: Ledger, node: str, pool: str, port: int) -> PortView:
    """The port, FREE where the pool does not exist yet or the port is none of it."""
    if pool in ledger.specs:
        return ledger.pool(pool, node).view(port)
    return PortView(node, pool, port, PortState.FREE, "", "", 0, None, None, "")
