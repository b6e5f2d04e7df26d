"""What became of ports whose history was lost: held until it cannot matter any more, without a row each.

A log that was lost, or restored from before, says FREE of ports that a proxy may still route to. `opened` records that (`history`), and
from then on each port of which no later event tells counts as QUARANTINED for a full hold, on every node, also those seen later. A
pool of 40,000 ports on a hundred nodes costs nothing by that. Where an event concerns such a port, `held` (cause `lost`) is recorded
first, so that the machine's table and the port's own row apply to it as to any other.

Nor does whoever had a port before the loss get it back from quarantine at once: in what was lost somebody else may have had it since
(`Pool.is_doubtful`). A lease that began after the loss is known, and goes back to its owner and service as any other does.

The end is recorded like any other end: by whoever notices that the hold is over, once for the pool on all nodes, as a `pool_defined`
that says so. In a pool that keeps its ports until proxies have let go of them time ends nothing: some ports at a time get their
`held`, whereupon the proxies are asked.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from portfsm._dump import spec_data
from portfsm._pool import QUARANTINED, WHY_LOST
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm._draft import Draft
    from portfsm._ledger import Ledger
    from portfsm._pool import Lost, Pool

__all__ = ["ask", "asked_next", "end", "free", "is_over", "recall"]

WINDOW = 64
"""How many ports of a pool and node wait for proxies at a time."""


def is_over(pool: Pool, now_ns: int) -> bool:
    """Whether the hold has ended, and its end is yet to be recorded."""
    return pool.lost is not None and not pool.kept and pool.lost.until <= now_ns


def free(pool: Pool, now_ns: int) -> int:
    """How many ports are FREE, counting those whose hold for the loss has ended and not been noticed."""
    counts = pool.statistics()
    if not is_over(pool, now_ns):
        return counts.free
    return (
        counts.free + counts.quarantined - pool.state.count(QUARANTINED) + sum(pool.state[offset] == QUARANTINED for offset in pool.outside)
    )


def end(pool: Pool, draft: Draft) -> None:
    """Record that the hold is over, on every node."""
    draft.add(EventKind.POOL_DEFINED, pool=pool.name, data={**spec_data(pool.spec, pool.seed), "history": "kept"})


def recall(pool: Pool, offset: int, draft: Draft) -> bool:
    """Record that a port is held, if it is and no row says so; or that the hold is over."""
    lost = pool.lost
    if lost is not None and is_over(pool, draft.ts):
        end(pool, draft)
    elif lost is not None and pool.is_lost(pool.base + offset):
        _hold(pool, offset, lost, draft)
        return True
    return False


def _hold(pool: Pool, offset: int, lost: Lost, draft: Draft) -> None:
    hold_ms = max(0, -((draft.ts - lost.until) // 1_000_000))
    draft.on(pool, offset, EventKind.HELD, hold_ms=hold_ms, until=lost.until, cause="lost", reason=WHY_LOST)


def asked_next(pool: Pool) -> Iterator[int]:
    """Ports about which proxies are to be asked next, where these decide: as many as the window has room for."""
    if pool.lost is None or not pool.kept:
        return iter(())
    waiting = sum(pool.note(offset).cause == "lost" for offset in pool.offsets(states=bytes((QUARANTINED,))))
    return islice((port - pool.base for port in pool.numbers() if pool.is_lost(port)), max(0, WINDOW - waiting))


def ask(ledger: Ledger, name: str | None, node: str | None, draft: Draft) -> None:
    """What a sweep finds to do about lost history: record its end, or have proxies asked."""
    for lost in [found for found in sorted(ledger.lost) if name in (None, found)]:
        if is_over(pool := ledger.pool(lost, node or ""), draft.ts):
            end(pool, draft)
    found = ledger.select(name, node)
    if not found and name is not None and node is not None:
        found = [ledger.pool(name, node)]  # somebody waits there, and nothing has happened yet
    for pool in found:
        for offset in asked_next(pool):
            recall(pool, offset, draft)
