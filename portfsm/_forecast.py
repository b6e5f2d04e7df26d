"""What a pool will have to give, and when: Little's law over its rows as they stand.

Rule: a port is FREE or it is not. What is held back counts for nothing until the very moment at which time alone brings it back;
what waits for proxies, an operator or its owner has no such moment and is counted apart.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

import attrs

from portfsm._orders import ByRelease
from portfsm._pool import BLOCKED, QUARANTINED
from portfsm.errors import InvalidValue
from portfsm.specs import check_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm._pool import Pool

__all__ = ["Forecast", "Rate", "forecast", "held_in_flight", "next_free_at", "rate_of"]

_WINDOW_NS = 1_000_000_000
"""A release rate is taken over at least this long, so that one release in a microsecond is no rate."""


def held_in_flight(per_s: float, hold_s: float) -> int:
    """Little's law: how many ports are quarantined in the long run at so many releases per second."""
    return math.ceil(round(per_s * hold_s, 9))


@attrs.frozen
class Rate:
    """How fast a pool's ports are released, and what of the pool that leaves untouched."""

    per_s: float
    """Releases per second, taken from the ports whose hold is running and that nobody took up again."""
    taken: int
    """Ports that no hold's end brings back: allocated, blocked, held by an operator's word, or past their hold and waiting for proxies."""

    def short_by(self, size: int, hold_s: float) -> int:
        """How many more ports a pool of `size` needs so that at this rate one is always left to give. 0 or less: none."""
        return self.taken + held_in_flight(self.per_s, hold_s) + 1 - size


@attrs.frozen
class Forecast:
    """What a pool on one node has to give from now on, if nothing were allocated or released meanwhile.

    A quarantined port is not free: it counts from the end of its hold on. A service that takes up its own quarantined port does better
    than this; an operator's hand, an adoption or a reboot makes it worse. All times are UTC nanoseconds on the log's timeline.
    """

    pool: str
    node: str
    at_ns: int
    """When it was made."""
    size: int
    free: int
    """FREE as recorded; ports whose hold is over and not yet noticed are in `frees_at`."""
    allocated: int
    quarantined: int
    blocked: int
    kept: int
    """Those of the quarantined that wait for proxies: nobody knows until when."""
    hold_s: float
    rate: Rate
    frees_at: tuple[int, ...]
    """When each port is FREE that time alone brings back, ascending: ends of holds, and ends of blocks with the hold that follows."""

    @property
    def next_free_at(self) -> int | None:
        """When the next port comes back by time alone; None when none does."""
        return self.frees_at[0] if self.frees_at else None

    @property
    def sustainable_per_s(self) -> float:
        """How many replicas may start and stop per second, for ever, beside those that live now: `(size - taken) / hold_s`.

        `inf` without a hold. In a pool that waits for proxies: if they let go by the end of the hold.
        """
        spare = max(0, self.size - self.rate.taken)
        if not spare:
            return 0.0
        return spare / self.hold_s if self.hold_s else math.inf

    @property
    def short_by(self) -> int:
        """How many more ports the present rate of releases needs; 0 when the pool is large enough for it."""
        return max(0, self.rate.short_by(self.size, self.hold_s))

    def free_at(self, t_ns: int) -> int:
        """How many ports are free at `t_ns`. Raises `InvalidValue` for a time before the forecast was made."""
        if type(t_ns) is not int or t_ns < self.at_ns:
            raise InvalidValue(
                f"t_ns must be a time in UTC ns from {self.at_ns} on, not {t_ns!r}: a forecast looks ahead", name="t_ns", value=t_ns
            )
        return self.free + bisect_right(self.frees_at, t_ns)

    def when(self, count: int) -> int | None:
        """From when on `count` ports are free at once; None when time alone never brings so many."""
        if type(count) is not int or count < 0:
            raise InvalidValue(f"count must be a number of ports, 0 or more, not {count!r}", name="count", value=count)
        missing = count - self.free
        if missing > len(self.frees_at):
            return None
        return max(self.at_ns, self.frees_at[missing - 1]) if missing > 0 else self.at_ns

    def fits(self, count: int, *, within_s: float = 0.0) -> bool:
        """Whether `count` new replicas get a port each, at once or within so many seconds; `when(count)` says when."""
        ready = self.when(count)
        return ready is not None and ready <= self.at_ns + math.floor(check_seconds("within_s", within_s) * 1e9)


def forecast(pool: Pool, now_ns: int) -> Forecast:
    """What `pool` has to give from `now_ns` on."""
    counts = pool.statistics()
    return Forecast(
        pool.name, pool.node, now_ns, counts.size, counts.free, counts.allocated, counts.quarantined, counts.blocked,
        counts.quarantined if pool.kept else 0, pool.spec.hold_s, rate_of(pool, now_ns), tuple(sorted(_ends(pool, now_ns))),
    )  # fmt: skip


def next_free_at(pool: Pool, now_ns: int = 0) -> int | None:
    """When the next port comes back by time alone. Without `now_ns`: as recorded, maybe in the past, for time frees nothing."""
    if pool.index is None or pool.lost is not None or pool.kept:
        return min(_ends(pool, now_ns), default=None)
    found: int | None = None
    for end, offset in pool.index.ends(pool):
        if found is not None and found <= end:
            break
        if offset not in pool.outside:
            ready = end if pool.state[offset] == QUARANTINED else _after_block(pool, offset, now_ns)
            found = ready if found is None else min(found, ready)
    return found


def _ends(pool: Pool, now_ns: int) -> list[int]:
    """When each port is FREE that time alone brings back, in no order."""
    if pool.kept:
        return []
    until = pool.until
    held = [offset for offset in pool.offsets(states=bytes((QUARANTINED, BLOCKED))) if until[offset] and offset not in pool.outside]
    ends = [until[offset] if pool.state[offset] == QUARANTINED else _after_block(pool, offset, now_ns) for offset in held]
    if pool.lost is not None:  # ports held without a row each
        rows = sum(offset not in pool.outside for offset in pool.offsets(states=bytes((QUARANTINED,))))
        ends += [pool.lost.until] * (pool.statistics().quarantined - rows)
    return ends


def _after_block(pool: Pool, offset: int, now_ns: int) -> int:
    """A full hold follows a block, from the moment at which its end is noticed."""
    return max(max(pool.until[offset], now_ns) + pool.hold_ns, pool.note(offset).held_until)


def rate_of(pool: Pool, now_ns: int) -> Rate:
    """The present rate of releases: those within the last hold, over the time since the first of them."""
    counts, after_ns = pool.statistics(), now_ns - pool.hold_ns
    released = ByRelease(pool) if pool.index is None else pool.index.by_release(pool, after_ns)
    recent, first_ns = released.after(after_ns)
    outside = sum(pool.state[offset] == QUARANTINED for offset in pool.outside)
    over = sum(offset not in released for offset in _over(pool, now_ns))
    stuck = pool.state.count(QUARANTINED) - outside - recent - over
    return Rate(recent * 1e9 / max(now_ns - first_ns if recent else 0, _WINDOW_NS), counts.allocated + counts.blocked + stuck)


def _over(pool: Pool, now_ns: int) -> Iterable[int]:
    """The QUARANTINED ports whose hold has ended, and nobody has noticed yet."""
    if pool.kept:
        return ()
    rows = pool.offsets(states=bytes((QUARANTINED,))) if pool.index is None else pool.index.due_by(pool, now_ns, len(pool.index.due))
    return (offset for offset in rows if pool.state[offset] == QUARANTINED and offset not in pool.outside and pool.until[offset] <= now_ns)
