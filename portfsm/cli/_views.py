"""What programs get: the JSON shapes of the contract, and which events somebody asked for.

All keys are always there, null where there is nothing. Pure: values come in, plain dicts go out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from portfsm.cli._times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.cli._steps import Step
    from portfsm.cli._times import Moment
    from portfsm.events import Event
    from portfsm.values import Head, PortView

__all__ = ["Selection", "event_json", "pools_of", "port_json", "status_json"]


def _set(values: Iterable[str] | Iterable[int]) -> frozenset[str | int]:
    return frozenset(values)


@attrs.frozen
class Selection:
    """Which events somebody wants to see. Several values of one kind: any of them; several kinds: all of them."""

    ports: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    pools: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    nodes: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    owners: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    services: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    kinds: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    since: Moment | None = None
    until: Moment | None = None

    def __contains__(self, event: Event) -> bool:
        return (
            (not self.ports or event.port in self.ports)
            and (not self.pools or event.pool in self.pools)
            and (not self.nodes or (event.port > 0 and event.node in self.nodes))
            and (not self.owners or event.owner in self.owners)
            and (not self.services or event.service in self.services)
            and (not self.kinds or event.kind.value in self.kinds)
            and (self.since is None or self.since.reached_by(event))
            and (self.until is None or self.until.covers(event))
        )

    def past(self, event: Event) -> bool:
        """Whether neither `event` nor any after it can be wanted."""
        return self.until is not None and not self.until.covers(event)


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
