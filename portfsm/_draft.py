"""The events of one decision while it is being made.

Rule: a draft numbers and stamps what is added and writes down nothing else; which events a command leads to is
`_decide`'s business. The shapes of the events that several commands share, the end of a lease say, are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portfsm._pool import BLOCKED
from portfsm.events import Event
from portfsm.states import EventKind

if TYPE_CHECKING:
    from portfsm._pool import Pool

__all__ = ["Draft"]

_RELEASED, _FREED = EventKind.RELEASED, EventKind.FREED
"""Reading a member off its enum costs more than building an event."""


class Draft(list[Event]):
    """The events of one decision, numbered and stamped as they are added. A list, because one is made per call."""

    __slots__ = ("seq", "ts")
    seq: int
    ts: int

    def add(self, kind: EventKind, **fields: Any) -> None:
        """Add an event that concerns no port."""
        self.seq += 1
        self.append(Event(self.seq, self.ts, kind, **fields))

    def on(self, pool: Pool, offset: int, kind: EventKind, **fields: Any) -> None:
        """Add an event on one port."""
        self.seq += 1
        self.append(Event(self.seq, self.ts, kind, pool.node, pool.name, pool.base + offset, **fields))

    def end(self, pool: Pool, offset: int, cause: str, *, evidence: str = "") -> None:
        """End the lease of an ALLOCATED port; with nothing to wait for, free it in the same batch."""
        ts, until = self.ts, pool.until[offset]
        # Nobody ever knew of a cancelled lease, so only an earlier holder's hold can still matter; and that one always does.
        full = ts + pool.hold_ns if cause != "cancelled" else ts
        if full > until:  # noqa: PLR1730  (max() costs a call)
            until = full
        self.seq = seq = self.seq + 1
        node, name, port = pool.node, pool.name, pool.base + offset
        owner, service, token, hold_ms = pool.owner[offset], pool.service[offset], pool.token[offset], -((ts - until) // 1_000_000)
        self.append(Event(seq, ts, _RELEASED, node, name, port, owner, service, token, hold_ms, until, cause))
        if evidence and not pool.spec.floor_s:
            self.on(pool, offset, _FREED, cause="evidence", reason=evidence)
        elif until <= ts and not (pool.proxies and self._is_owed(pool, offset, cause)):
            self.seq = seq = seq + 1
            self.append(Event(seq, ts, _FREED, node, name, port, "", "", 0, 0, 0, "elapsed"))

    def _is_owed(self, pool: Pool, offset: int, cause: str) -> bool:
        """Whether a proxy must still let go: of a lease somebody saw, or of an earlier one that nobody answered for."""
        return pool.kept and (cause != "cancelled" or pool.until[offset] > 0)

    def free(self, pool: Pool, offset: int) -> None:
        """The hold is over."""
        self.on(pool, offset, _FREED, cause="elapsed", reason=f"without evidence of {', '.join(pool.proxies)}" if pool.proxies else "")

    def unblock(self, pool: Pool, offset: int, cause: str, reason: str = "", *, free: bool = True) -> None:
        """End a block: a full hold follows, and in a pool without holds the port is free in the same batch."""
        until = max(self.ts + pool.hold_ns, pool.note(offset).held_until)
        hold_ms = -((self.ts - until) // 1_000_000)
        self.on(pool, offset, EventKind.UNBLOCKED, hold_ms=hold_ms, until=until, cause=cause, reason=reason)
        if until <= self.ts and free and not pool.kept:
            self.free(pool, offset)

    def notice(self, pool: Pool, offset: int) -> None:
        """Record that the end of a hold or of a block has come."""
        if pool.state[offset] == BLOCKED:
            self.unblock(pool, offset, "elapsed")
        else:
            self.free(pool, offset)
