"""The sentences of a refusal: what stands in the way, since when, until when, and what to do next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from portfsm._forecast import next_free_at, rate_of
from portfsm._pool import ALLOCATED, BLOCKED, STATES
from portfsm._pressure import next_relief
from portfsm.errors import (
    IllegalTransition,
    InvalidValue,
    OwnerConflict,
    PoolExhausted,
    PortOutOfRange,
    PortUnavailable,
    StaleLease,
)
from portfsm.states import PortState

if TYPE_CHECKING:
    from portfsm._pool import Pool
    from portfsm.states import EventKind
    from portfsm.values import Lease

__all__ = [
    "ended",
    "exhausted",
    "foreign_lease",
    "illegal",
    "out_of_range",
    "overtaken",
    "owner_conflict",
    "place",
    "stale",
    "stale_epoch",
    "ttl_conflict",
    "unavailable",
    "utc",
]


def utc(ns: int) -> str:
    """A time in UTC nanoseconds as RFC 3339 with microseconds."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % 1_000_000_000 // 1000:06d}Z"


def place(pool: Pool, port: int) -> str:
    """The port's full name for a sentence."""
    return f"port {port} of pool {pool.name!r}" + (f" on node {pool.node!r}" if pool.node else "")


def exhausted(pool: Pool, now_ns: int) -> PoolExhausted:
    """No port left: how many are where, when the next comes back, how many more the pool would need."""
    counts = pool.statistics()
    by_state = {state.value: getattr(counts, state.value.lower()) for state in PortState}
    ready = next_free_at(pool, now_ns)
    short_by = max(1, rate_of(pool, now_ns).short_by(counts.size, pool.spec.hold_s))
    kept = counts.quarantined if pool.kept else 0
    waits = f", {kept} of them for {', '.join(pool.proxies)} and for no time" if kept else ""
    return PoolExhausted(
        f"pool {pool.name!r} has no free port" + (f" on node {pool.node!r}" if pool.node else "")
        + f": {counts.allocated} allocated, {counts.quarantined} quarantined{waits}, {counts.blocked} blocked of {counts.size}"
        + f"; at this rate of releases it needs {short_by} more: {_advice(ready, next_relief(pool, now_ns), kept=kept)}",
        node=pool.node, pool=pool.name, counts=by_state, next_free_at=ready, short_by=short_by,
    )  # fmt: skip


def overtaken(pool: Pool, waiting: int) -> PoolExhausted:
    """There may be a port, but `waiting` others came first."""
    counts = pool.statistics()
    return PoolExhausted(
        f"others wait for pool {pool.name!r} and come first: pass wait_s= to queue up",
        node=pool.node, pool=pool.name, next_free_at=None, short_by=waiting,
        counts={state.value: getattr(counts, state.value.lower()) for state in PortState},
    )  # fmt: skip


def _advice(next_free_at: int | None, relief: int | None, *, kept: int) -> str:
    """What a caller does who got no port."""
    if relief:
        return f"under this pressure the next may be freed early at {utc(relief)}, when its floor is over: pass wait_s= to wait for it"
    if next_free_at:
        return f"the next hold ends at {utc(next_free_at)}, pass wait_s= to wait for it"
    return "pass wait_s= to wait for the proxies, or release some" if kept else "release some, or unblock some"


def unavailable(pool: Pool, port: int) -> PortUnavailable:
    """The port that was asked for by number is taken."""
    view = pool.view(port)
    since = f" since {utc(view.since)}" if view.since else ""
    until = f", until {utc(view.until)}" if view.until else ""
    holder = f" by {view.owner!r}" if view.owner else ""
    advice = {
        PortState.ALLOCATED: "ask for another number, or release that lease",
        PortState.QUARANTINED: "wait, or end the hold with free()",
    }.get(view.state, "end the block with unblock()")
    return PortUnavailable(
        f"{place(pool, port)} is {view.state.value}{since}{holder}{until}: {advice}",
        node=pool.node, pool=pool.name, port=port, state=view.state, owner=view.owner, until=view.until,
    )  # fmt: skip


def out_of_range(pool: Pool, port: int) -> PortOutOfRange:
    """The number was never, or is no longer, one of the pool's."""
    return PortOutOfRange(
        f"port {port} is outside pool {pool.name!r} ({pool.spec.ranges}): name one inside, or widen the pool's ports",
        node=pool.node, pool=pool.name, port=port, ranges=pool.spec.ranges,
    )  # fmt: skip


def owner_conflict(pool: Pool, offset: int, claimant: str, claimed: int | None) -> OwnerConflict:
    """Two claims that cannot both be true; nothing was written, both are named."""
    holder, port = pool.owner[offset], pool.base + offset
    conflict = "owner" if holder != claimant else "service" if claimed in (None, port) else "moved"
    text = {
        "owner": f"{place(pool, port)} is held by {holder!r}, and {claimant!r} claims it: find out which one listens there",
        "moved": f"{claimant!r} already holds {place(pool, port)} and claims port {claimed}: if it moved there, release the lease first",
        "service": f"{claimant!r} already holds {place(pool, port)} for service {pool.service[offset]!r}: "
        "release it first, or ask for the same",
    }[conflict]
    return OwnerConflict(
        text, node=pool.node, pool=pool.name, port=port, holder=holder, claimant=claimant, conflict=conflict, claimed=claimed
    )


def stale(pool: Pool, offset: int, lease: Lease) -> StaleLease:
    """A former holder's late command."""
    current = pool.token[offset]
    return StaleLease(
        f"lease {lease.token} of {lease.owner!r} on {place(pool, lease.port)} has ended and lease {current} came after it: "
        "drop the old lease, nothing was changed",
        node=pool.node, pool=pool.name, port=lease.port, token=lease.token, current=current,
    )  # fmt: skip


def ended(pool: Pool, offset: int, lease: Lease) -> StaleLease:
    """A renewal that comes too late: whoever sends it no longer has the port, whether or not somebody else has."""
    view = pool.view(lease.port)
    why = f" ({view.reason})" if view.state is PortState.QUARANTINED and view.reason else ""
    return StaleLease(
        f"lease {lease.token} of {lease.owner!r} on {place(pool, lease.port)} has ended{why} and the port is {view.state.value}: "
        "stop listening there, then allocate() again",
        node=pool.node, pool=pool.name, port=lease.port, token=lease.token, current=pool.token[offset],
    )  # fmt: skip


def ttl_conflict(pool: Pool, offset: int) -> OwnerConflict:
    """The owner asks for the lease that it has, with another ttl: how long a lease lasts is recorded once, when it begins."""
    owner, port, ttl_ns = pool.owner[offset], pool.base + offset, pool.ttl_ns(offset)
    has = f"a ttl of {ttl_ns / 1e9:g} s" if ttl_ns else "no ttl"
    same = f"ask with ttl_s={ttl_ns / 1e9:g}" if ttl_ns else "ask without ttl_s="
    return OwnerConflict(
        f"{owner!r} already holds {place(pool, port)} with {has}: {same}, or release it first",
        node=pool.node, pool=pool.name, port=port, holder=owner, claimant=owner, conflict="ttl", claimed=None,
    )  # fmt: skip


def foreign_lease(lease: Lease) -> InvalidValue:
    """A token this log never issued."""
    return InvalidValue(
        f"this log has no lease {lease.token} on port {lease.port} of pool {lease.pool!r}: was it taken from another log?",
        name="lease", value=lease,
    )  # fmt: skip


def stale_epoch(epoch: int, current: int) -> InvalidValue:
    """A writer that is not newer than the last one."""
    return InvalidValue(f"epoch {epoch} does not follow {current}: each opening takes a larger one", name="epoch", value=epoch)


def illegal(pool: Pool, port: int, kind: EventKind) -> IllegalTransition:
    """A call that the port's state has no cell for."""
    code = pool.code(port)
    state = STATES[code]
    advice = {ALLOCATED: "release the lease first, or block the port to end it", BLOCKED: "unblock it first"}.get(code, "look at its state")
    return IllegalTransition(
        f"{place(pool, port)} is {state.value} and cannot be {kind}: {advice}",
        node=pool.node, pool=pool.name, port=port, state=state, kind=kind, seq=None,
    )  # fmt: skip
