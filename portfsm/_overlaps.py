"""No number in two pools: what keeps a pool's new ports clear of every other pool, its leftovers included.

Rule: a port belongs to another pool while that pool's ranges name it, or while that pool still holds it after it left them. A pool that
only the log remembers counts too, unless it holds nothing and one that is in force has taken its ports over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._pool import STATES
from portfsm.errors import InvalidValue
from portfsm.specs import check_overlaps

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from portfsm._ledger import Ledger
    from portfsm.specs import PoolSpec

__all__ = ["check_change", "check_leftovers", "check_opening"]


def check_opening(ledger: Ledger, specs: Sequence[PoolSpec]) -> set[str]:
    """Refuse ports that another pool, known to the log alone, still has in use; the names of `specs`. Raises `InvalidValue`."""
    given = {spec.name for spec in specs}
    check_overlaps([*specs, *(ledger.specs[name] for name in sorted(_in_use(ledger) - given))])
    check_leftovers(ledger, specs)
    return given


def _in_use(ledger: Ledger) -> set[str]:
    """Pools with a port that is not FREE."""
    return {pool.name for pool in ledger.select() if next(pool.offsets(), None) is not None}


def check_change(ledger: Ledger, spec: PoolSpec, *, given: Collection[str]) -> None:
    """Raise `InvalidValue` if a port of `spec` is another pool's. `given`: the pools in force for sure, not just remembered."""
    in_use = _in_use(ledger)
    for name, other in ledger.specs.items():
        if name != spec.name and (name in in_use or not _superseded(ledger, other, given)):
            check_overlaps((spec, other))
    check_leftovers(ledger, (spec,))


def _superseded(ledger: Ledger, spec: PoolSpec, given: Collection[str]) -> bool:
    """Whether pools in force have taken over ports of one that is merely remembered."""
    return any(_meet(spec, ledger.specs[name]) for name in given if name in ledger.specs and name != spec.name)


def _meet(one: PoolSpec, other: PoolSpec) -> bool:
    return any(a.start < b.stop and b.start < a.stop for a in one.ports for b in other.ports)


def check_leftovers(ledger: Ledger, specs: Iterable[PoolSpec]) -> None:
    """Raise `InvalidValue` if a pool would get a port that left another one's ranges and is still held there."""
    for spec in specs:
        for pool in ledger.select():
            for offset in sorted(pool.outside) if pool.name != spec.name else ():
                port = pool.base + offset
                if not any(port in piece for piece in spec.ports):
                    continue
                where = f" on node {pool.node!r}" if pool.node else ""
                holder = f" by {pool.owner[offset]!r}" if pool.owner[offset] else ""
                raise InvalidValue(
                    f"port {port} left pool {pool.name!r}, but is still {STATES[pool.state[offset]].value}{holder} there{where}: "
                    f"give it to pool {spec.name!r} once it is freed",
                    name="pools", value=port,
                )  # fmt: skip
