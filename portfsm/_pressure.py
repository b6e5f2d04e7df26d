"""When too much of a pool is held back, and what its operator has said is to happen then.

Rule: nothing here ends a hold before its floor, nor one that a proxy, an operator or a reboot has a say in; what it ends early is
recorded as such, and replay allows it only where the pool's recorded policy did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._index import index_of
from portfsm.states import EventKind

if TYPE_CHECKING:
    from portfsm._draft import Draft
    from portfsm._index import Index
    from portfsm._pool import Pool

__all__ = ["free_earliest", "is_pressed", "next_relief", "patience_s", "pressure_fault"]


def is_pressed(pool: Pool) -> bool:
    """Whether more than the allowed share of the pool is QUARANTINED."""
    return pool.statistics().quarantined > pool.spec.held_max * pool.spec.size


def _relieves(pool: Pool) -> bool:
    """Whether this pool frees ports early at all: not where proxies say when they have let go."""
    return pool.spec.on_pressure == "free-earliest" and not pool.proxies


def free_earliest(pool: Pool, index: Index, draft: Draft) -> int:
    """Free the port whose hold ends first and whose floor is over, where the policy says so; its offset, or -1."""
    if not (_relieves(pool) and is_pressed(pool)):
        return -1
    offset = index.by_relief(pool, draft.ts).earliest(pool, draft.ts)
    if offset >= 0:
        draft.on(pool, offset, EventKind.FREED, cause="pressure", reason=_reason(pool, offset, draft.ts))
    return offset


def _reason(pool: Pool, offset: int, now_ns: int) -> str:
    counts, left_s = pool.statistics(), (pool.until[offset] - now_ns) / 1e9
    return (
        f"{counts.quarantined} of {counts.size} ports were quarantined, more than held_max {pool.spec.held_max:g}, and none was free: "
        f"{left_s:.3f} s of the hold cut off, past the floor of {pool.spec.floor_s:g} s"
    )


def pressure_fault(pool: Pool, offset: int, now_ns: int) -> str:
    """Why a QUARANTINED port may not be freed early for want of ports; empty when it may."""
    if not _relieves(pool):
        return "the pool's policy ends no hold early" if not pool.proxies else f"{', '.join(pool.proxies)} say when it ends"
    ready = pool.evidence_frees_at(offset)
    return f"its floor, or the hold that was asked for, runs until {ready}" if now_ns < ready else ""


def next_relief(pool: Pool, now_ns: int) -> int | None:
    """When the next port can be freed early that cannot be now: those who wait are woken for it."""
    if not (_relieves(pool) and is_pressed(pool)):
        return None
    return index_of(pool).by_relief(pool, now_ns).next(pool, now_ns)


def patience_s(pool: Pool) -> float:
    """How long a call waits that would have been refused at once: a hold, under pressure, where the policy says so."""
    return pool.hold_ns / 1e9 if pool.spec.on_pressure == "wait" and is_pressed(pool) else 0.0
