"""Finding a port fast: who holds which, what is due, what was released last, what lay idle longest.

All of it is derived from the rows of one pool and can be thrown away at any time; replay does without. The
heaps are lazy: a port that moved on leaves its entry behind, and an entry counts only while the row still
says what it said. An entry is one integer, `time << 16 | offset`, so that comparing is one comparison.
"""

from __future__ import annotations

from collections import Counter
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import TYPE_CHECKING

from portfsm._lost import asked_next
from portfsm._orders import ByRelease, ByRelief, ordered
from portfsm._pool import ALLOCATED, BLOCKED, FREE, QUARANTINED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm._pool import Lost, Pool

__all__ = ["Index", "index_of"]

_OFFSET = 0xFFFF
_SLACK = 1024


class Index:
    """The derived structures of one pool."""

    __slots__ = (
        "_by_release", "_by_relief", "asked", "band", "by_owner", "by_service", "due", "hint", "holders", "idle", "leases", "members",
        "pushes",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self.holders: dict[str, int] = {}
        """owner -> offset of the port it holds; the first of them where it holds several."""
        self.members: dict[str, dict[int, int]] = {}
        """owner -> index -> offset of its further ports, from index 1 on; there are none but of groups."""
        self.due: list[int] = []
        """Heap of the ends of holds and blocks."""
        self.idle: list[int] | None = [] if pool.spec.order == "longest-idle" else None
        """Heap of FREE rows by the time they became so, for `order="longest-idle"` alone; those of the static band are left out."""
        self.band = pool.nth(pool.spec.static) if pool.spec.static else 0
        self.by_owner: dict[str, list[int]] = {}
        self.by_service: dict[str, list[int]] = {}
        """name -> heap of QUARANTINED offsets inside the ranges that it held last, latest release first (negated times)."""
        self.leases: Counter[str] = Counter()
        """service -> how many ports it holds, where the pool has quotas; else nothing."""
        self.hint = 0
        """No offset below this one is FREE."""
        self.asked: tuple[ByRelease | ByRelief, ...] = ()
        """The orders that somebody has asked for, to be kept in step."""
        self._by_release: ByRelease | None = None
        self._by_relief: ByRelief | None = None
        self.pushes = 0
        for offset in pool.offsets():
            self._enter(pool, offset)
        if self.idle is not None:
            self.idle.extend(pool.since[offset] << 16 | offset for offset in pool.offsets(states=bytes((FREE,))) if offset >= self.band)
            heapify(self.idle)
        self.pushes = 0

    def _enter(self, pool: Pool, offset: int) -> None:
        code = pool.state[offset]
        if code == ALLOCATED:
            self._begin(pool, offset)
            if pool.spec.quotas:
                self.leases[pool.service[offset]] += 1
            return
        until = pool.until[offset]
        if until and (code == BLOCKED or not pool.kept):
            heappush(self.due, until << 16 | offset)
            self.pushes += 1
        if code == QUARANTINED and offset not in pool.outside:
            entry = -(pool.since[offset] << 16 | offset)
            if owner := pool.owner[offset]:
                heappush(self.by_owner.setdefault(owner, []), entry)
            if service := pool.service[offset]:
                heappush(self.by_service.setdefault(service, []), entry)

    def _begin(self, pool: Pool, offset: int) -> None:
        if index := pool.note(offset).nth:
            self.members.setdefault(pool.owner[offset], {})[index] = offset
        else:
            self.holders[pool.owner[offset]] = offset

    def _end(self, owner: str, offset: int) -> None:
        if self.holders.get(owner) == offset:
            del self.holders[owner]
            return
        held = self.members.get(owner, {})
        held.pop(next((index for index, other in held.items() if other == offset), 0), None)
        if not held:
            self.members.pop(owner, None)

    def held(self, owner: str) -> dict[int, int]:
        """The offsets that `owner` holds here, by index."""
        first = {0: self.holders[owner]} if owner in self.holders else {}
        return first | dict(sorted(self.members.get(owner, {}).items()))

    def touched(self, pool: Pool, offset: int, before: int, owner: str, service: str) -> None:  # noqa: C901, PLR0912  (a call costs)
        """A row changed: `before`, `owner` and `service` are what it said until now."""
        code = pool.state[offset]
        if before == ALLOCATED and code != ALLOCATED:
            self._end(owner, offset) if self.members else self.holders.pop(owner, None)
            if pool.spec.quotas:
                self.leases[service] -= 1
        if code == ALLOCATED:
            if pool.notes:
                self._begin(pool, offset)
            else:
                self.holders[pool.owner[offset]] = offset
            if before != ALLOCATED and pool.spec.quotas:
                self.leases[pool.service[offset]] += 1
        elif code == FREE:
            if offset < self.hint:  # noqa: PLR1730  (min() costs a call)
                self.hint = offset
            if self.idle is not None and offset >= self.band:
                heappush(self.idle, pool.since[offset] << 16 | offset)
                self.pushes += 1
        else:
            self._enter(pool, offset)
        if before == FREE:
            if self.idle is not None:
                self._trim_idle(pool)
        elif before != ALLOCATED:
            self._trim(pool, owner, service)
        if self.asked:
            for order in self.asked:
                order.touched(pool, offset)
                self.pushes += 1
        if self.pushes > len(pool.state) + _SLACK:
            pool.index = None

    def by_release(self, pool: Pool, after_ns: int) -> ByRelease:
        """The quarantined ports by release, at least those after `after_ns`."""
        order = self._by_release
        if order is None or after_ns < order.asked_ns:
            order = self._by_release = ByRelease(pool)
            self.asked = tuple(each for each in (order, self._by_relief) if each is not None)
        return order

    def by_relief(self, pool: Pool, now_ns: int) -> ByRelief:
        """The quarantined ports by when pressure may free them, as of `now_ns`."""
        order = self._by_relief
        if order is None or now_ns < order.asked_ns:
            order = self._by_relief = ByRelief(pool)
            self.asked = tuple(each for each in (self._by_release, order) if each is not None)
        return order

    def extended(self, pool: Pool, first: int) -> None:
        """Rows from `first` on came to be, never used."""
        if self.idle is not None:
            for offset in range(max(first, self.band), len(pool.state)):
                if pool.state[offset] == FREE:
                    heappush(self.idle, offset)

    def _trim_idle(self, pool: Pool) -> None:
        heap = self.idle
        while heap and (pool.state[heap[0] & _OFFSET] != FREE or pool.since[heap[0] & _OFFSET] != heap[0] >> 16):
            heappop(heap)

    def _trim(self, pool: Pool, owner: str, service: str) -> None:
        """Drop entries that no longer count from the tops of the heaps that a port has left."""
        while self.due and not _is_due(pool, self.due[0]):
            heappop(self.due)
        for name, heaps, column in ((owner, self.by_owner, pool.owner), (service, self.by_service, pool.service)):
            heap = heaps.get(name)
            while heap and not _is_last(pool, heap[0], name, column):
                heappop(heap)
            if heap is not None and not heap:
                del heaps[name]

    def held_last(self, pool: Pool, owner: str, service: str, now_ns: int) -> int:
        """The QUARANTINED offset that `owner`, else `service`, released last and that these may have back; -1 for none."""
        for name, heaps, column in ((owner, self.by_owner, pool.owner), (service, self.by_service, pool.service)):
            heap = heaps.get(name)
            if not heap:
                continue
            for entry in chain(heap[:1], ordered(heap)) if len(heap) > 1 else heap:  # mostly the first will do
                if _is_last(pool, entry, name, column) and not pool.is_stranger(-entry & _OFFSET, owner, service, now_ns):
                    return -entry & _OFFSET
        return -1

    def longest_idle(self, pool: Pool) -> int:
        """The FREE row that became so first, never used ones before all; -1 for none."""
        heap = self.idle or ()
        self._trim_idle(pool)
        return heap[0] & _OFFSET if heap else -1

    def due_by(self, pool: Pool, now_ns: int, limit: int) -> list[int]:
        """At most `limit` offsets whose hold or block has ended by `now_ns`, earliest end first."""
        heap = self.due
        if not heap or heap[0] >> 16 > now_ns:
            return []
        found: list[int] = []
        last = -1
        for entry in ordered(heap):  # so that the answer depends on the rows and not on the heap's shape
            if entry >> 16 > now_ns or len(found) == limit:
                break
            if entry != last and _is_due(pool, entry):
                found.append(entry & _OFFSET)
                last = entry
        return found

    def ends(self, pool: Pool) -> Iterator[tuple[int, int]]:
        """The ends of holds and blocks that time brings (UTC ns), each with its offset, the earliest first."""
        return ((entry >> 16, entry & _OFFSET) for entry in ordered(self.due) if _is_due(pool, entry))

    def next_due(self, pool: Pool) -> int | None:
        """The earliest end of a hold or block still running or unnoticed, UTC ns."""
        if pool.lost is not None:
            return self._next_lost(pool, pool.lost)
        while self.due and not _is_due(pool, self.due[0]):
            heappop(self.due)
        return self.due[0] >> 16 if self.due else None

    def _next_lost(self, pool: Pool, lost: Lost) -> int | None:
        """The same where history was lost: that of the whole pool ends, too, or proxies are to be asked about more of its ports."""
        ends = [entry >> 16 for entry in self.due if _is_due(pool, entry)]
        if not pool.kept:
            ends.append(lost.until)
        elif any(True for _ in asked_next(pool)):
            ends.append(lost.since)
        return min(ends, default=None)


def _is_due(pool: Pool, entry: int) -> bool:
    offset = entry & _OFFSET
    if pool.until[offset] != entry >> 16:
        return False
    code = pool.state[offset]
    return code == BLOCKED or (code == QUARANTINED and not pool.kept)


def _is_last(pool: Pool, entry: int, name: str, column: list[str]) -> bool:
    since, offset = -entry >> 16, -entry & _OFFSET
    return pool.state[offset] == QUARANTINED and pool.since[offset] == since and column[offset] == name


def index_of(pool: Pool) -> Index:
    """The pool's index, built when there is none."""
    index = pool.index
    if index is None:
        index = pool.index = Index(pool)
    return index
