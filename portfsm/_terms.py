"""Leases with a ttl: when each one ends unless it is renewed, and ending it.

Rule: the log knows how long a lease lasts after each renewal, and this record knows when that is over. Renewals are no events, so
a controller that comes back has not heard the last of them and gives every such lease its full ttl anew.
"""

from __future__ import annotations

from contextlib import suppress
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

import attrs

from portfsm import commands
from portfsm._pool import ALLOCATED
from portfsm.errors import CommandRejected

if TYPE_CHECKING:
    from portfsm._engine import Engine
    from portfsm.values import Lease

__all__ = ["Terms"]

AT_A_TIME = 128
"""How many leases are ended in one go, so that a thousand ends at once stall nobody."""

_SLACK = 1024


class Terms:
    """The ends of all leases with a ttl, in log time (UTC ns). True while there are any."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._leases: dict[int, Lease] = {}
        """token -> the lease, with its present end."""
        self._heap: list[tuple[int, int]] = []
        """(an end that once was right, token), one entry a lease: a renewal moves the end and leaves the heap as it is."""
        self._tidy_at = _SLACK

    def __len__(self) -> int:
        return len(self._heap)

    def restore(self) -> None:
        """After an opening every ttl starts anew."""
        for pool in self._engine.ahead.pools.values():
            for offset, note in pool.notes.items():
                if note.ttl_ns and pool.state[offset] == ALLOCATED:
                    self.begin(pool.lease(offset))

    # ------------------------------------------------------------------ beginning and renewing

    def begin(self, lease: Lease) -> Lease:
        """A lease with a ttl lasts its ttl from now."""
        engine, known = self._engine, lease.token in self._leases
        end = engine.now() + self._ttl_ns(lease)
        lease = self._leases[lease.token] = attrs.evolve(lease, expires_ns=end)
        if not known:
            heappush(self._heap, (end, lease.token))
            engine.wake_by(engine.boot_at(end))
            if len(self._heap) > self._tidy_at:
                self._tidy()
        return lease

    def renew(self, lease: Lease) -> Lease:
        """The same from its owner. Raises `StaleLease` when it has ended; one without a ttl stays as it is."""
        self._engine.submit(commands.Renew(lease))
        return self.begin(lease) if self._ttl_ns(lease) else lease

    def shown(self, lease: Lease) -> Lease:
        """The lease with its present end, if it has one."""
        return self._leases.get(lease.token, lease)

    def _ttl_ns(self, lease: Lease) -> int:
        """How long `lease` lasts after each renewal; 0 for ever, and 0 when it has ended."""
        pool = self._engine.ahead.pool(lease.pool, lease.node)
        offset = pool.row(lease.port)
        return pool.ttl_ns(offset) if offset >= 0 and pool.token[offset] == lease.token and pool.state[offset] == ALLOCATED else 0

    def _tidy(self) -> None:
        """Forget leases that were released before their time, which otherwise stay until it comes."""
        self._leases = {token: lease for token, lease in self._leases.items() if self._ttl_ns(lease)}
        self._heap = [(lease.expires_ns or 0, token) for token, lease in self._leases.items()]
        heapify(self._heap)
        self._tidy_at = _SLACK + 2 * len(self._heap)

    # ------------------------------------------------------------------ ending

    def next_wake(self) -> int | None:
        """Boot clock ns when the next lease ends."""
        end = self._next_end()
        return None if end is None else self._engine.boot_at(end)

    def _next_end(self) -> int | None:
        heap = self._heap
        while heap:
            end, token = heap[0]
            present = self._leases[token].expires_ns or 0
            if present <= end:
                return end
            heapreplace(heap, (present, token))
        return None

    def expire(self) -> None:
        """End leases whose time is up, some at a time. One whose callers have yet to hear of it begins anew.

        Those who wait for a port are served by the timer, which wakes at the same moment.
        """
        engine = self._engine
        engine.check_open()
        for lease in self._over(engine.now()):
            if lease.token in engine.grants:
                self.begin(lease)
                continue
            with suppress(CommandRejected):  # it ended otherwise, and the port has had another since
                engine.record(commands.Release(lease, cause="expired"))

    def _over(self, now_ns: int) -> list[Lease]:
        found: list[Lease] = []
        while len(found) < AT_A_TIME and (end := self._next_end()) is not None and end <= now_ns:
            found.append(self._leases.pop(heappop(self._heap)[1]))
        return found
