"""Two orders of the quarantined ports that only a pool without a free one asks for: by release, and by when pressure may free them.

Rule: as all of the index they belong to, they are derived from the rows and can be thrown away. Neither is made before somebody asks,
so that a pool that never runs out pays nothing; from then on each change of a row is one step, and a refusal costs as much with
tens of thousands of quarantined ports as with ten.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from portfsm._pool import QUARANTINED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from portfsm._pool import Pool

__all__ = ["ByRelease", "ByRelief", "ordered"]

_OFFSET = 0xFFFF


def _is_held(pool: Pool, offset: int) -> bool:
    return pool.state[offset] == QUARANTINED and offset not in pool.outside


class ByRelease:
    """The quarantined ports that had an owner, the first released first: how many there were after a time, and when the first was."""

    def __init__(self, pool: Pool) -> None:
        held = [offset for offset in pool.offsets(states=bytes((QUARANTINED,))) if _is_held(pool, offset) and pool.owner[offset]]
        self._since = OrderedDict((offset, pool.since[offset]) for offset in sorted(held, key=pool.since.__getitem__))
        self.asked_ns = 0
        """The latest time that was asked about: what was released before it is forgotten."""

    def __contains__(self, offset: int) -> bool:
        return offset in self._since

    def touched(self, pool: Pool, offset: int) -> None:
        """A row changed."""
        since = pool.since[offset] if _is_held(pool, offset) and pool.owner[offset] else 0
        if since != self._since.get(offset, 0):
            self._since.pop(offset, None)
            if since > self.asked_ns:
                self._since[offset] = since

    def after(self, time_ns: int) -> tuple[int, int]:
        """How many were released after `time_ns` and are still held, and when the first of them was (0: none)."""
        self.asked_ns = time_ns
        while self._since and next(iter(self._since.values())) <= time_ns:
            self._since.popitem(last=False)
        return len(self._since), next(iter(self._since.values()), 0)


class ByRelief:
    """The quarantined ports by when pressure may cut off their hold: those it may now by the end of it, the others by that moment."""

    def __init__(self, pool: Pool) -> None:
        self._later = [_relief(pool, offset) for offset in pool.offsets(states=bytes((QUARANTINED,))) if _is_held(pool, offset)]
        heapify(self._later)
        self._now: list[int] = []
        self.asked_ns = 0
        """The latest time that was asked about."""

    def touched(self, pool: Pool, offset: int) -> None:
        """A row changed."""
        if _is_held(pool, offset):
            heappush(self._later, _relief(pool, offset))

    def earliest(self, pool: Pool, now_ns: int) -> int:
        """Of those that may be freed now the one whose hold ends first; -1 for none."""
        self._sort_in(pool, now_ns)
        return self._now[0] & _OFFSET if self._now else -1

    def ready(self, pool: Pool, now_ns: int) -> Iterator[int]:
        """All that may be freed now, in that order; one may come twice."""
        self._sort_in(pool, now_ns)
        return (entry & _OFFSET for entry in ordered(self._now) if self._is_ready(pool, entry))

    def next(self, pool: Pool, now_ns: int) -> int | None:
        """When the first of the others may be freed, UTC ns; None for never."""
        self._sort_in(pool, now_ns)
        return self._later[0] >> 16 if self._later else None

    def _sort_in(self, pool: Pool, now_ns: int) -> None:
        """Bring those whose moment has come over to the others, and drop the entries on top that no longer count."""
        self.asked_ns = now_ns
        later, ready = self._later, self._now
        while later and (later[0] >> 16 <= now_ns or not _counts(pool, later[0])):
            offset = later[0] & _OFFSET
            if _counts(pool, heappop(later)):
                heappush(ready, pool.until[offset] << 16 | offset)
        while ready and not self._is_ready(pool, ready[0]):
            heappop(ready)

    def _is_ready(self, pool: Pool, entry: int) -> bool:
        offset = entry & _OFFSET
        return _is_held(pool, offset) and pool.until[offset] == entry >> 16 and pool.evidence_frees_at(offset) <= self.asked_ns


def _relief(pool: Pool, offset: int) -> int:
    return pool.evidence_frees_at(offset) << 16 | offset


def _counts(pool: Pool, entry: int) -> bool:
    return _is_held(pool, entry & _OFFSET) and _relief(pool, entry & _OFFSET) == entry


def ordered(heap: Sequence[int]) -> Iterator[int]:
    """The entries of a heap from the least on, looking no further than is asked for."""
    front = [(heap[0], 0)] if heap else []
    while front:
        entry, place = heappop(front)
        yield entry
        for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
            heappush(front, (heap[child], child))
