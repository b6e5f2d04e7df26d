"""When too much of a pool is held back, and what its operator has said is to happen then.

Rule: nothing here ends a hold before its floor, nor one that a proxy, an operator or a reboot has a say in; what it ends early is
recorded as such, and replay allows it only where the pool's recorded policy did.
"""

from __future__ import annotations

from itertools import repeat
from operator import ge
from typing import TYPE_CHECKING

from portfsm._blocks import both
from portfsm._index import index_of
from portfsm._pool import QUARANTINED
from portfsm.states import EventKind

if TYPE_CHECKING:
    from portfsm._draft import Draft
    from portfsm._index import Index
    from portfsm._pool import Pool

__all__ = ["cut_off", "free_earliest", "is_pressed", "may_end_early", "next_relief", "patience_s", "pressure_fault", "relieves"]

_IS_QUARANTINED = bytes(each == QUARANTINED for each in range(256))


def is_pressed(pool: Pool) -> bool:
    """Whether more than the allowed share of the pool is QUARANTINED."""
    return pool.statistics().quarantined > pool.spec.held_max * pool.spec.size


def _may_relieve(pool: Pool) -> bool:
    """Whether this pool frees ports early at all: not where proxies say when they have let go."""
    return pool.spec.on_pressure == "free-earliest" and not pool.proxies


def relieves(pool: Pool) -> bool:
    """Whether this pool may free ports early now."""
    return _may_relieve(pool) and is_pressed(pool)


def free_earliest(pool: Pool, index: Index, draft: Draft) -> int:
    """Free the port whose hold ends first and whose floor is over, where the policy says so; its offset, or -1."""
    if not relieves(pool):
        return -1
    offset = index.by_relief(pool, draft.ts).earliest(pool, draft.ts)
    if offset >= 0:
        cut_off(pool, offset, draft, why="none was free")
    return offset


def cut_off(pool: Pool, offset: int, draft: Draft, *, why: str) -> None:
    """Free a quarantined port before its hold is over, and record what made it so."""
    counts, left_s = pool.statistics(), (pool.until[offset] - draft.ts) / 1e9
    reason = (
        f"{counts.quarantined} of {counts.size} ports were quarantined, more than held_max {pool.spec.held_max:g}, and {why}: "
        f"{left_s:.3f} s of the hold cut off, past the floor of {pool.spec.floor_s:g} s"
    )
    draft.on(pool, offset, EventKind.FREED, cause="pressure", reason=reason)


def may_end_early(pool: Pool, now_ns: int) -> bytes:
    """1 for each row whose hold may be cut off now, found by comparing whole columns; nothing where the policy, or the share, says none."""
    if not relieves(pool):
        return b""
    begun = bytes(map(ge, repeat(now_ns - pool.floor_ns), pool.since))
    line = bytearray(both(pool.state.translate(_IS_QUARANTINED), begun))
    for offset, note in pool.notes.items():
        if note.cause and line[offset]:
            line[offset] = pool.evidence_frees_at(offset) <= now_ns
    return bytes(line)


def pressure_fault(pool: Pool, offset: int, now_ns: int) -> str:
    """Why a QUARANTINED port may not be freed early for want of ports; empty when it may."""
    if not _may_relieve(pool):
        return "the pool's policy ends no hold early" if not pool.proxies else f"{', '.join(pool.proxies)} say when it ends"
    ready = pool.evidence_frees_at(offset)
    return f"its floor, or the hold that was asked for, runs until {ready}" if now_ns < ready else ""


def next_relief(pool: Pool, now_ns: int) -> int | None:
    """When the next port can be freed early that cannot be now: those who wait are woken for it."""
    if not relieves(pool):
        return None
    return index_of(pool).by_relief(pool, now_ns).next(pool, now_ns)


def patience_s(pool: Pool) -> float:
    """How long a call waits that would have been refused at once: a hold, under pressure, where the policy says so."""
    return pool.hold_ns / 1e9 if pool.spec.on_pressure == "wait" and is_pressed(pool) else 0.0
