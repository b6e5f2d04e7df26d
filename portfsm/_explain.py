"""Why a port is in its state and what ends it, in one sentence for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._rejections import place, utc
from portfsm.states import PortState

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.values import PortView

__all__ = ["explain"]


def explain(ledger: Ledger, pool: str, port: int, *, node: str = "", now_ns: int) -> str:
    """One sentence: the state, why, since when, by whom, until when, and the call that ends it.

    Raises `UnknownPool`, `PortOutOfRange`.
    """
    text = _sentence(ledger.locate(pool, port, node), port, now_ns)
    # A forged log may hold a reason that no call would have taken.
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _sentence(record: Pool, port: int, now_ns: int) -> str:
    view = record.view(port)
    name = place(record, port)
    retires = "" if record.in_range(port) else f"; it lies outside the present ranges {record.spec.ranges} and leaves the pool once freed"
    match view.state:
        case PortState.FREE:
            return _free(view, name)
        case PortState.ALLOCATED:
            held = f"{name} is ALLOCATED to {_holder(view)}{_since(view)} under lease {view.token}{_flag(view)}"
            drains = ", withdrawn from the proxies" if record.note(record.row(port)).withdrawn else ""
            ends = f"{_span(ttl_ns)} without renew(lease), " if (ttl_ns := record.ttl_ns(record.row(port))) else ""
            return f"{held}{drains}: {ends}release(lease) or block() ends it{retires}."
        case PortState.QUARANTINED:
            return _quarantined(record, view, name, now_ns) + retires + "."
        case PortState.BLOCKED:
            return _blocked(record, view, name, now_ns) + retires + "."


def _free(view: PortView, name: str) -> str:
    if view.since is None:
        return f"{name} is FREE and was never used."
    return f"{name} is FREE{_since(view)}; its last lease was {view.token}." if view.token else f"{name} is FREE{_since(view)}."


def _quarantined(record: Pool, view: PortView, name: str, now_ns: int) -> str:
    why = f" ({view.reason})" if view.reason not in ("", "released") else ""
    start = f"{name} is QUARANTINED{_since(view)}{_after(view)}{why}"
    proxies = ", ".join(record.proxies)
    if view.until is not None and view.until <= now_ns and record.kept:
        over = f"its hold ended {_span(now_ns - view.until)} ago"
        return f"{start}; {over}, and it waits until every proxy has let go: {proxies}; free() ends it now"
    if view.until is not None and view.until <= now_ns:
        ended = f"its hold ended {_span(now_ns - view.until)} ago"
        return f"{start}; {ended}, and the next allocate() or sweep() frees it"
    offset = record.row(view.port)
    known = offset >= 0 and not record.is_doubtful(offset, now_ns)
    mine = " or ".join(f"{word} {who!r}" for word, who in (("owner", view.owner), ("service", view.service)) if who and known)
    reuse = f"; until then only {mine} gets it" if mine else ""
    earlier = f"evidence of every proxy ({proxies}) ends it earlier, " if proxies else ""
    return f"{start},{_until(view, now_ns)}{reuse}; {earlier}free() ends it now"


def _blocked(record: Pool, view: PortView, name: str, now_ns: int) -> str:
    start = f"{name} is BLOCKED{_since(view)}{_after(view)},{_until(view, now_ns)}, because: {view.reason}{_again(record, view)}"
    due = view.until is not None and view.until <= now_ns
    end = "the next allocate() or sweep()" if due else "unblock()"
    return f"{start}; {end} ends it" + (" and starts a full hold" if record.hold_ns else "")


def _again(record: Pool, view: PortView) -> str:
    """That the block is not the first of its kind, which is why it lasts longer."""
    times = record.note(record.row(view.port)).times
    return f" (blocked {times} times since its last good lease)" if times > 1 else ""


def _flag(view: PortView) -> str:
    """An adoption that the plain rules would not have allowed: the flags of `_decide`, as the rest of a clause."""
    if view.reason.startswith("moved "):
        return f", adopted after it {view.reason}"
    if not view.reason.startswith(("was ", "outside ")):
        return ""
    return f", adopted although it {'' if view.reason.startswith('was ') else 'is '}{view.reason}"


def _holder(view: PortView) -> str:
    return f"{view.owner!r}" + (f" (service {view.service!r})" if view.service else "")


def _after(view: PortView) -> str:
    return f" after {_holder(view)} held it" if view.owner else ""


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
