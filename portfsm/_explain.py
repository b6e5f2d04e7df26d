"""Why a port is in its state and what ends it, in one sentence for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._rejections import place, utc
from portfsm.states import PortState

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm.values import PortView

__all__ = ["explain"]


def explain(ledger: Ledger, pool: str, port: int, *, node: str = "", now_ns: int) -> str:
    """One sentence: the state, why, since when, by whom, until when, and the call that ends it.

    Raises `UnknownPool`, `PortOutOfRange`.
    """
    record = ledger.locate(pool, port, node)
    view = record.view(port)
    name = place(record, port)
    retires = "" if record.in_range(port) else f"; it lies outside the present ranges {record.spec.ranges} and leaves the pool once freed"
    match view.state:
        case PortState.FREE:
            return _free(view, name)
        case PortState.ALLOCATED:
            flag = f", adopted although it {view.reason}" if view.reason.startswith(("was", "outside")) else ""
            held = f"{name} is ALLOCATED to {_holder(view)}{_since(view)} under lease {view.token}{flag}"
            return f"{held}: release(lease) or block() ends it{retires}."
        case PortState.QUARANTINED:
            return _quarantined(view, name, now_ns) + retires + "."
        case PortState.BLOCKED:
            blocked = f"{name} is BLOCKED{_since(view)}{_until(view, now_ns)}, because: {view.reason}"
            return f"{blocked}; unblock() ends it and starts a full hold{retires}."


def _free(view: PortView, name: str) -> str:
    if view.since is None:
        return f"{name} is FREE and was never used."
    return f"{name} is FREE{_since(view)}; its last lease was {view.token}." if view.token else f"{name} is FREE{_since(view)}."


def _quarantined(view: PortView, name: str, now_ns: int) -> str:
    why = f" ({view.reason})" if view.reason not in ("", "released") else ""
    held_by = f" after {_holder(view)} held it" if view.owner else ""
    start = f"{name} is QUARANTINED{_since(view)}{held_by}{why}"
    if view.until is not None and view.until <= now_ns:
        return f"{start}; its hold ended {_span(now_ns - view.until)} ago, and the next allocate() or sweep() frees it"
    mine = " or ".join(f"{word} {name!r}" for word, name in (("owner", view.owner), ("service", view.service)) if name)
    reuse = f"; until then only {mine} gets it" if mine else ""
    return f"{start}{_until(view, now_ns)}{reuse}; free() ends it now"


def _holder(view: PortView) -> str:
    return f"{view.owner!r}" + (f" (service {view.service!r})" if view.service else "")


def _since(view: PortView) -> str:
    return f" since {utc(view.since)}" if view.since is not None else ""


def _until(view: PortView, now_ns: int) -> str:
    if view.until is None:
        return " until somebody unblocks it"
    if view.until <= now_ns:
        return f" until {utc(view.until)} ({_span(now_ns - view.until)} ago, not yet noticed)"
    return f" until {utc(view.until)} ({_span(view.until - now_ns)} left)"


def _span(ns: int) -> str:
    seconds = ns / 1e9
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
