"""What programs get: the JSON shapes of the contract.

All keys are always there, null where there is nothing. Pure: values come in, plain dicts go out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portfsm.cli._times import rfc3339

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.audit import Step
    from portfsm.values import Head, PortView

__all__ = ["event_json", "pools_of", "port_json", "status_json"]


def event_json(step: Step) -> dict[str, Any]:
    """An event as `log --json` and `history --json` print it."""
    event = step.event
    return {
        "seq": event.seq,
        "ts": rfc3339(event.ts),
        "kind": event.kind.value,
        "node": event.node or None,
        "pool": event.pool or None,
        "port": event.port or None,
        "from": step.before.value if step.before else None,
        "to": step.after.value if step.after else None,
        "owner": event.owner or None,
        "service": event.service or None,
        "token": event.token or None,
        "until": rfc3339(event.until) if event.until else None,
        "hold_s": event.hold_ms / 1000 if event.hold_ms else None,
        "cause": event.cause or None,
        "reason": event.reason or None,
        "epoch": step.epoch or None,
    }


def port_json(view: PortView) -> dict[str, Any]:
    """A port as `status --json` lists it."""
    return {
        "port": view.port,
        "state": view.state.value,
        "owner": view.owner or None,
        "service": view.service or None,
        "token": view.token or None,
        "since": rfc3339(view.since) if view.since else None,
        "until": rfc3339(view.until) if view.until else None,
        "reason": view.reason or None,
    }


def pools_of(ledger: Ledger) -> list[Pool]:
    """Every pool on every node it was used on; one that was never used anywhere, once, on no node."""
    used = ledger.select()
    names = {pool.name for pool in used}
    return used + [ledger.pool(name, "") for name in sorted(ledger.specs) if name not in names]


def status_json(ledger: Ledger, head: Head | None) -> dict[str, Any]:
    """The whole state. `head` is None for a log that has none yet."""
    return {
        "seq": ledger.seq,
        "epoch": ledger.epoch or None,
        "head": str(head) if head else None,
        "pools": [_pool_json(ledger, pool) for pool in pools_of(ledger)],
    }


def _pool_json(ledger: Ledger, pool: Pool) -> dict[str, Any]:
    ports = [port_json(view) for view in ledger.ports(pool.name, node=pool.node)]
    found = pool.statistics()
    counts = {name: getattr(found, name) for name in ("size", "free", "allocated", "quarantined", "blocked", "retired")}
    return {"node": pool.node or None, "pool": pool.name, **counts, "ports": ports}
