"""What an event says to people beyond its place in a table: causes, holds, leases, ranges. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portfsm.cli._times import NS, duration
from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from portfsm.audit import Step
    from portfsm.events import Event

__all__ = ["KIND_STYLES", "count", "details", "why"]

KIND_STYLES = {
    EventKind.ALLOCATED: "green",
    EventKind.ADOPTED: "green",
    EventKind.RELEASED: "yellow",
    EventKind.HELD: "yellow",
    EventKind.UNBLOCKED: "yellow",
    EventKind.FREED: "cyan",
    EventKind.BLOCKED: "bold red",
}

_USUAL = {EventKind.RELEASED: "released", EventKind.FREED: "elapsed", EventKind.HELD: "operator", EventKind.UNBLOCKED: "operator"}
"""The cause that goes without saying."""
_CAUSES = {
    "holder": "by its holder",
    "operator": "by an operator",
    "elapsed": "its time was over",
    "reboot": "after a reboot",
    "pressure": "early, for want of ports",
}

_POLICY = ("on_silence", "held_max", "on_pressure", "static")
"""What a pool's definition carries only where somebody asked for it."""


def details(step: Step) -> str:
    """All that the other columns of `log` do not show of an event."""
    event = step.event
    if not event.port:
        return _about_log(event)
    parts = [_lease(event), _from(step), why(event)]
    return "; ".join(part for part in parts if part)


def why(event: Event) -> str:
    """Cause, hold and reason of an event on a port."""
    parts = []
    if event.cause and event.cause != _USUAL.get(event.kind):
        parts.append(_CAUSES.get(event.cause, event.cause))
    if event.until:
        parts.append(_hold(event))
    if event.reason:
        parts.append(event.reason)
    return "; ".join(parts)


def _hold(event: Event) -> str:
    if event.kind is EventKind.BLOCKED:
        return f"for {duration(event.until - event.ts)}"
    if event.kind is EventKind.ALLOCATED:
        return f"ttl {duration(event.until - event.ts)}"
    return f"hold {duration(event.until - event.ts)}" if event.until > event.ts else "no hold"


def _lease(event: Event) -> str:
    if event.kind in (EventKind.ALLOCATED, EventKind.ADOPTED) or not event.token:
        return ""
    return f"lease {event.token}" if event.kind is not EventKind.BLOCKED else f"ends lease {event.token}"


def _from(step: Step) -> str:
    """Where the port came from, when that is not where it usually comes from."""
    usual = {
        EventKind.ALLOCATED: PortState.FREE,
        EventKind.ADOPTED: PortState.FREE,
        EventKind.BLOCKED: PortState.FREE,
        EventKind.HELD: PortState.QUARANTINED,
    }.get(step.event.kind)
    return f"was {step.before.value}" if step.before and usual and step.before is not usual else ""


def _about_log(event: Event) -> str:
    data: dict[str, Any] = event.data or {}
    match event.kind:
        case EventKind.OPENED:
            parts = [f"epoch {data.get('epoch')}", f"by {data.get('holder')}", event.reason]
        case EventKind.POOL_DEFINED:
            floor = f"floor {_seconds(data.get('floor_s'))}" if data.get("floor_s") else ""
            parts = [str(data.get("ports")), f"hold {_seconds(data.get('hold_s'))}", floor, f"order {data.get('order')}"]
            parts += [f"{key} {value}" for key, value in data.items() if key in _POLICY]
            parts += [
                f"{limit} quota of {service} {value}" for service, quota in data.get("quotas", {}).items() for limit, value in quota.items()
            ]
        case EventKind.PROXY_JOINED | EventKind.PROXY_LEFT:
            parts = [str(data.get("proxy")), event.reason]
        case _:
            parts = [event.reason]
    return "; ".join(part for part in parts if part)


def _seconds(value: Any) -> str:
    return duration(round(value * NS)) if isinstance(value, int | float) else str(value)


def count(number: int, what: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
