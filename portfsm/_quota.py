"""How much of a pool one service may have: never more than its hard quota, and above its soft one only what others do not need.

Rule: quotas are looked at when a lease begins by `allocate`, on each node for itself, and count ALLOCATED ports alone. An adoption states a
fact and is never refused. Replay does not ask: what was granted was granted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm.errors import QuotaExceeded

if TYPE_CHECKING:
    from portfsm._index import Index
    from portfsm._pool import Pool
    from portfsm.specs import Quota

__all__ = ["check_hard", "check_soft"]


def check_hard(pool: Pool, index: Index, service: str, *, wanted: int = 1) -> None:
    """Raise `QuotaExceeded` if `service` would hold more ports than it may ever."""
    quota, held = _quota_of(pool, service), index.leases[service]
    if quota is not None and quota.hard is not None and held + wanted > quota.hard:
        raise QuotaExceeded(
            f"service {service!r} holds {held} ports of pool {pool.name!r}{_where(pool)} and may hold {quota.hard}: "
            "release one, or raise the hard quota with define()",
            node=pool.node, pool=pool.name, service=service, quota=quota.hard, held=held, kept_for_others=0,
        )  # fmt: skip


def check_soft(pool: Pool, index: Index, service: str, spare: int, *, wanted: int = 1) -> None:
    """Raise `QuotaExceeded` if `service` would be above its soft quota and what is left of the `spare` ports is owed to others."""
    quota, held = _quota_of(pool, service), index.leases[service]
    soft = quota.soft or 0 if quota is not None else 0
    owed = {each.service: each.soft - index.leases[each.service] for each in pool.spec.quotas if each.soft and each.service != service}
    owed = {name: count for name, count in owed.items() if count > 0}
    kept = sum(owed.values())
    if held + wanted > soft and spare - wanted < kept:
        names = ", ".join(f"{name!r} ({count})" for name, count in owed.items())
        raise QuotaExceeded(
            f"service {service!r} holds {held} ports of pool {pool.name!r}{_where(pool)}, its soft quota is {soft}, and of the {spare} "
            f"that are free {kept} are kept for {names}: wait with wait_s=, or grow the pool",
            node=pool.node, pool=pool.name, service=service, quota=soft, held=held, kept_for_others=kept,
        )  # fmt: skip


def _quota_of(pool: Pool, service: str) -> Quota | None:
    """The service's own quota, else that of all named services, "*"."""
    found = {quota.service: quota for quota in pool.spec.quotas}
    return found.get(service) or (found.get("*") if service else None)


def _where(pool: Pool) -> str:
    return f" on node {pool.node!r}" if pool.node else ""
