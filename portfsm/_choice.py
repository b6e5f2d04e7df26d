"""Which port an allocation gets.

Rule: a lease prefers its owner's own quarantined port, then its service's, then the pool's order; a port whose hold is over but
not yet recorded as freed counts as FREE where noticing it would make it so. Nothing here changes anything.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from portfsm._lost import is_over
from portfsm._pool import ALLOCATED, FREE, QUARANTINED
from portfsm._rejections import out_of_range, unavailable

if TYPE_CHECKING:
    from portfsm import commands
    from portfsm._draft import Draft
    from portfsm._index import Index
    from portfsm._pool import Pool
    from portfsm.groups import Request

__all__ = ["DRAIN_LIMIT", "DRAWS", "choose", "drawn", "is_reuse", "opens"]

DRAIN_LIMIT = 128
"""How many due ports one `allocate` frees at most, so that a thousand ends at once stall nobody."""

DRAWS = 8


def is_reuse(pool: Pool, offset: int, command: commands.Allocate | Request, now_ns: int) -> bool:
    """Whether the request takes up a quarantined port whose stale traffic is its own."""
    return pool.state[offset] == QUARANTINED and not pool.is_stranger(offset, command.owner, command.service, now_ns)


def opens(pool: Pool, offset: int, now_ns: int) -> bool:
    """Whether noticing this due port makes it FREE to give: a hold's end does, a block's only where no hold follows."""
    if offset in pool.outside or (pool.kept and pool.state[offset] == QUARANTINED):
        return False
    return pool.state[offset] == QUARANTINED or not (pool.hold_ns or pool.kept or pool.note(offset).held_until > now_ns)


def choose(pool: Pool, index: Index, command: commands.Allocate, due: list[int], draft: Draft) -> int:  # noqa: PLR0911  (a case a rule)
    """The offset of the port for `command`, or -1. `due`: ports whose end has come; it may grow. Raises for a `port=` not to be had."""
    if command.port is not None:
        return _by_number(pool, command, due, draft)
    if index.by_owner or index.by_service:
        last = index.held_last(pool, command.owner, command.service, draft.ts)
        if last >= 0:
            return last
    freed = _freed(pool, index, due, draft.ts) if due else due
    if pool.lost is not None and not is_over(pool, draft.ts):
        return _known(pool, freed, draft.seq)
    order = pool.spec.order
    if pool.spec.static:
        return _beside_band(pool, index, freed, draft.seq + len(due))
    if order == "lowest":
        found = pool.state.find(FREE, index.hint)
        if found < 0:
            found = pool.free_after(len(pool.state))
        index.hint = found if found >= 0 else len(pool.state)
        return min(found if found >= 0 else freed[0], *freed) if freed else found
    if order == "longest-idle":
        return _longest_idle(pool, index, freed)
    return _random(pool, freed, draft.seq + len(due))


def _freed(pool: Pool, index: Index, due: list[int], now_ns: int) -> list[int]:
    """Which of the ports that are due will be FREE to give. Looks further when the first many are not."""
    freed = [offset for offset in due if opens(pool, offset, now_ns)]
    if not freed and len(due) >= DRAIN_LIMIT:
        freed = [offset for offset in index.due_by(pool, now_ns, len(index.due)) if opens(pool, offset, now_ns)][:1]
        due += freed
    return freed


def _by_number(pool: Pool, command: commands.Allocate, due: list[int], draft: Draft) -> int:
    port = command.port or 0
    if not pool.in_range(port):
        raise out_of_range(pool, port)
    offset, code = pool.row(port), pool.code(port)
    if code == FREE and (pool.lost is None or is_over(pool, draft.ts) or not pool.is_lost(port)):
        return port - pool.base
    if offset >= 0 and is_reuse(pool, offset, command, draft.ts):
        return offset
    if offset >= 0 and code != ALLOCATED and 0 < pool.until[offset] <= draft.ts and opens(pool, offset, draft.ts):
        if offset not in due:
            due.append(offset)
        return offset
    raise unavailable(pool, port)


def _beside_band(pool: Pool, index: Index, freed: list[int], salt: int) -> int:
    """By the pool's order, above the static band; into it only when nothing above it is free."""
    end, order = pool.nth(pool.spec.static), pool.spec.order
    above, within = [offset for offset in freed if offset >= end], [offset for offset in freed if offset < end]
    if order == "lowest":
        found = min((offset for offset in (pool.free_after(end), *above) if offset >= 0), default=-1)
        return found if found >= 0 else min((offset for offset in (pool.free_after(0), *within) if offset >= 0), default=-1)
    if order == "longest-idle":
        found = _longest_idle(pool, index, above, end)
        return found if found >= 0 else _longest_idle_below(pool, within, end)
    found = _random(pool, above, salt, first=pool.spec.static)
    return found if found >= 0 else _random(pool, within, salt)


def _known(pool: Pool, freed: list[int], salt: int) -> int:
    """While the history is lost: one that became FREE since, or is about to."""
    known = [offset for offset in pool.offsets(states=bytes((FREE,))) if not pool.is_lost(pool.base + offset)] + freed
    if not known:
        return -1
    if pool.spec.static:
        end = pool.nth(pool.spec.static)
        known = [offset for offset in known if offset >= end] or known
    if pool.spec.order == "lowest":
        return min(known)
    if pool.spec.order == "longest-idle":
        return min(known, key=lambda offset: (offset in freed, pool.since[offset], offset))
    number = blake2b(f"{pool.seed}:{salt}".encode(), digest_size=8).digest()
    return known[int.from_bytes(number) % len(known)]


def _longest_idle_below(pool: Pool, freed: list[int], end: int) -> int:
    """The same within the band, which the index leaves out: it is small, and seldom looked at."""
    rows = (offset for offset in range(end) if pool.state[offset] == FREE)  # each has a row: one above it is not free
    idle = min(rows, key=lambda offset: (pool.since[offset], offset), default=-1)
    return idle if idle >= 0 else next(iter(freed), -1)


def _longest_idle(pool: Pool, index: Index, freed: list[int], first: int = 0) -> int:
    rows = index.longest_idle(pool)
    unused = rows if rows >= 0 and not pool.since[rows] else pool.free_after(max(len(pool.state), first))
    if unused >= 0 or rows >= 0:
        return unused if unused >= 0 else rows
    return freed[0] if freed else -1


def drawn(pool: Pool, salt: int, draw: int, *, first: int = 0) -> int:
    """An offset inside the ranges, the `first` ones left out, drawn from the recorded seed."""
    number = blake2b(f"{pool.seed}:{salt}:{draw}".encode(), digest_size=8).digest()
    return pool.nth(first + int.from_bytes(number) % (pool.spec.size - first))


def _random(pool: Pool, freed: list[int], salt: int, *, first: int = 0) -> int:
    """A free port drawn from the recorded seed and the sequence number: replay would draw the same. The `first` ones are left out."""
    offset = lowest = pool.nth(first)
    for draw in range(DRAWS):
        offset = drawn(pool, salt, draw, first=first)
        if offset >= len(pool.state) or pool.state[offset] == FREE or offset in freed:
            return offset
    candidates = [found for found in (pool.free_after(offset), pool.free_after(lowest), *freed) if found >= 0]
    return min(candidates, key=lambda found: (found < offset, found), default=-1)
