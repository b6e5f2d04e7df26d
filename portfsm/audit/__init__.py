"""Questions about a log: who had this port then, why is it not free, what was different an hour ago.

Pure: events come in, frozen values go out, in one pass. Where the events come from is the caller's choice:

    from portfsm import audit, read_journal

    found = list(audit.spans(read_journal("ports-log")))      # every port's life, as spans of states
    audit.held_by(found, service="checkout")                  # the life of a service, or of an owner
    audit.distances(audit.reuses(found))                      # how long after one service the next had the same port

`spans` is the one pass; what takes spans can share them. A question about one moment of a long log begins better from a
snapshot near it: `portfsm.journals.near` gives that state and the events from there on, and every question takes such a state as `since`.

Rule of this package: no file, no clock, no thread, no loop.
"""

from __future__ import annotations

from portfsm.audit._asking import around, held_by, life, longest, who
from portfsm.audit._lives import Lives, Place, Span, spans
from portfsm.audit._moments import Moment
from portfsm.audit._reuse import Conflict, Distance, EarlyFree, Leak, Reuse, conflicts, distances, early_frees, leaks, reuses
from portfsm.audit._selection import Selection
from portfsm.audit._states import Difference, diff, state_at
from portfsm.audit._steps import Replay, Step
from portfsm.audit._strain import Exhaustion, exhaustions

__all__ = [
    "Conflict",
    "Difference",
    "Distance",
    "EarlyFree",
    "Exhaustion",
    "Leak",
    "Lives",
    "Moment",
    "Place",
    "Replay",
    "Reuse",
    "Selection",
    "Span",
    "Step",
    "around",
    "conflicts",
    "diff",
    "distances",
    "early_frees",
    "exhaustions",
    "held_by",
    "leaks",
    "life",
    "longest",
    "reuses",
    "spans",
    "state_at",
    "who",
]
