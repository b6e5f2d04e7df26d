"""The words of the machine: four states and the kinds of event. The rules between them are in `_table`."""

from __future__ import annotations

import enum

__all__ = ["PORT_KINDS", "EventKind", "PortState"]


class PortState(enum.Enum):
    """Where a port is in its life."""

    FREE = "FREE"
    """Nobody holds it and nothing may still be routed to it: it can be given to anyone."""
    ALLOCATED = "ALLOCATED"
    """One owner holds it under a lease."""
    QUARANTINED = "QUARANTINED"
    """Released, but a proxy may still route to it: only its last owner or service may have it back."""
    BLOCKED = "BLOCKED"
    """Taken out of use, by an operator or because something else sits on it."""


class EventKind(enum.StrEnum):
    """What an event records. The value is the word on disk and never changes."""

    ALLOCATED = "allocated"
    """A lease began by a request."""
    ADOPTED = "adopted"
    """A lease began by proof: a live owner already used the port."""
    WITHDRAWN = "withdrawn"
    """The proxies were told to stop routing here; the replica still drains."""
    RELEASED = "released"
    """The lease ended; the hold began."""
    HELD = "held"
    """A quarantine was lengthened, or a free port was taken out for a while."""
    FREED = "freed"
    """The hold ended."""
    BLOCKED = "blocked"
    """The port was taken out of use."""
    UNBLOCKED = "unblocked"
    """The block ended; a full hold began."""
    OPENED = "opened"
    """A writer opened the log (changes no port)."""
    POOL_DEFINED = "pool_defined"
    """A pool's ranges or policy were set (changes no port's state)."""
    PROXY_JOINED = "proxy_joined"
    """A proxy became one whose evidence is required (changes no port)."""
    PROXY_LEFT = "proxy_left"
    """A proxy's evidence is no longer required (changes no port)."""
    CLOSED = "closed"
    """The writer closed the log cleanly (changes no port)."""


PORT_KINDS = (
    EventKind.ALLOCATED,
    EventKind.ADOPTED,
    EventKind.WITHDRAWN,
    EventKind.RELEASED,
    EventKind.HELD,
    EventKind.FREED,
    EventKind.BLOCKED,
    EventKind.UNBLOCKED,
)
"""The eight kinds that concern a port, in the order of the table."""
