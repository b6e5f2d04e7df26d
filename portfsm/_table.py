"""The machine: which event may happen to a port in which state, and what state follows.

Theory of operation
-------------------
A port is a number on a node inside a pool. Nothing about it is ever changed directly: somebody decides on
an *event*, the event is recorded, and the recorded event changes the port. So the table below is all there
is to know: a pair it does not list is impossible, whoever asks.

A lease begins with `allocated` (somebody asked) or `adopted` (somebody proved that it already uses the
port), and its token is that event's sequence number. The later events of the lease carry the token, so a
late command of a former holder is told apart from the present one's.

**Released is not free.** A proxy may go on routing to the port for a while, and whoever listens there would
answer for the former holder. `released` therefore leads to QUARANTINED, and only a recorded `freed` leads
from there to FREE. Time itself changes no state: that a hold is over is noticed by somebody, who then
records `freed`. Within the quarantine the port may go back to the owner or the service that held it last,
since what arrives there is meant for them.

`withdrawn` changes no state. It marks the moment from which proxies can be asked whether they still route to
the port, while the replica drains.

BLOCKED ports are taken out of use: something else sits on the number, or an operator said so. A block
never leads straight to FREE, since what happened to the port meanwhile is unknown: `unblocked` starts a full
hold. `adopted` may end a block, because a live owner on the port is better evidence than an old note.

`freed` outside the pool's present ranges retires the port: it stays FREE in this table, but belongs to the
pool no more and is never given again.

The table is data. `decide`, `apply`, replay, the README's table, the diagram and the tests read this one
mapping; h11's state module showed how well that wears.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from portfsm.states import PORT_KINDS, EventKind, PortState

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TRANSITIONS", "mermaid", "table"]

_FREE, _ALLOCATED, _QUARANTINED, _BLOCKED = PortState

TRANSITIONS: Mapping[tuple[PortState, EventKind], PortState] = MappingProxyType(
    {
        (_FREE, EventKind.ALLOCATED): _ALLOCATED,
        (_FREE, EventKind.ADOPTED): _ALLOCATED,
        (_FREE, EventKind.HELD): _QUARANTINED,
        (_FREE, EventKind.BLOCKED): _BLOCKED,
        (_ALLOCATED, EventKind.WITHDRAWN): _ALLOCATED,
        (_ALLOCATED, EventKind.RELEASED): _QUARANTINED,
        (_ALLOCATED, EventKind.BLOCKED): _BLOCKED,
        (_QUARANTINED, EventKind.ALLOCATED): _ALLOCATED,
        (_QUARANTINED, EventKind.ADOPTED): _ALLOCATED,
        (_QUARANTINED, EventKind.HELD): _QUARANTINED,
        (_QUARANTINED, EventKind.FREED): _FREE,
        (_QUARANTINED, EventKind.BLOCKED): _BLOCKED,
        (_BLOCKED, EventKind.ADOPTED): _ALLOCATED,
        (_BLOCKED, EventKind.UNBLOCKED): _QUARANTINED,
    }
)
"""The legal cells, 14 of 32. Further conditions on an event's details are checked where it is applied."""

_NOTES = {
    (_QUARANTINED, EventKind.ALLOCATED): " ¹",
    (_ALLOCATED, EventKind.WITHDRAWN): " ²",
}


def table() -> str:
    """The mapping as a Markdown table: a row a state, a column a kind, a dash where nothing is legal."""
    rows = [["", *PORT_KINDS], ["---"] * (len(PORT_KINDS) + 1)]
    rows += [[f"**{state.value}**", *(_cell(state, kind) for kind in PORT_KINDS)] for state in PortState]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(state: PortState, kind: EventKind) -> str:
    after = TRANSITIONS.get((state, kind))
    return after.value + _NOTES.get((state, kind), "") if after else "–"  # noqa: RUF001  (a dash, as in the contract's table)


def mermaid() -> str:
    """The mapping as a Mermaid state diagram."""
    arrows = [f"    {before.value} --> {after.value}: {kind}" for (before, kind), after in TRANSITIONS.items()]
    return "\n".join(["stateDiagram-v2", "    [*] --> FREE", *arrows])
