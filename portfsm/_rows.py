"""One port's row: whether an event fits it, and what an event writes in it where that is more than a few columns.

`Ledger.fold` asks for what is rare here; what is frequent it does itself, for replay's speed.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING

from portfsm._pool import BLOCKED, NO_NOTE, OUTSIDE, STARTED_OVER, Note
from portfsm._pressure import pressure_fault
from portfsm.states import EventKind

if TYPE_CHECKING:
    from portfsm._pool import Pool
    from portfsm.events import Event

__all__ = ["BEGIN", "LAST_NS", "early_fault", "end_fault", "forget", "index_fault", "lease_fault", "rare_fault", "write_note", "write_rare"]

LAST_INDEX = 65_535
BEGIN = (EventKind.ALLOCATED, EventKind.ADOPTED)
LAST_NS = 1 << 62
"""The year 2116: beyond it a time is damage, and below it time and hold fit a column of 64 bits."""


def end_fault(pool: Pool, offset: int) -> str:
    return f"the port's lease is {pool.token[offset]} of {pool.owner[offset]!r}, with a hold from before until {pool.until[offset]}"


def early_fault(pool: Pool, offset: int, event: Event) -> str:
    """Who may end a hold early: an operator; evidence, or want of ports, once the floor has passed, if no operator asked for the hold."""
    if event.cause == "elapsed":
        return f"its hold runs until {pool.until[offset]}"
    if event.cause == "evidence" and event.ts < pool.evidence_frees_at(offset):
        return f"evidence does not end its hold before {pool.evidence_frees_at(offset)}"
    return pressure_fault(pool, offset, event.ts) if event.cause == "pressure" else ""


def index_fault(event: Event) -> str:
    """What is wrong with the place that an `allocated` says it has among its owner's leases, if anything is."""
    index = (event.data or {}).get("index", 0)
    return "" if type(index) is int and 0 <= index <= LAST_INDEX else f"its index is {index!r} and no number from 0 to {LAST_INDEX}"


def lease_fault(pool: Pool, offset: int, event: Event) -> str:
    if event.token != event.seq or not event.owner:
        return f"it begins a lease, so it needs an owner and the token {event.seq}"
    if event.until and not event.ts < event.until < LAST_NS:
        return "its lease ends before it begins, or beyond all time"
    return index_fault(event) or f"the hold for {pool.service[offset] or pool.owner[offset]!r} is not over"


def rare_fault(pool: Pool, offset: int, event: Event) -> str | None:  # noqa: PLR0911  (a case a rule)
    if not (isinstance(event.kind, EventKind) and 0 <= event.until < LAST_NS):
        return "its kind is a bare string, or its end lies outside of time"
    match event.kind:
        case EventKind.ADOPTED if event.token != event.seq or not event.owner:
            return lease_fault(pool, offset, event)
        case EventKind.WITHDRAWN if event.token != pool.token[offset] or pool.note(offset).withdrawn:
            return "the lease is another, or was withdrawn before"
        case EventKind.HELD if event.until < pool.until[offset]:
            return f"the hold runs until {pool.until[offset]} and is never shortened"
        case EventKind.UNBLOCKED if event.until < pool.note(offset).held_until:
            return f"a hold from before the block runs until {pool.note(offset).held_until} and is never shortened"
        case EventKind.BLOCKED if event.token and event.token != pool.token[offset]:
            return f"the port's last lease is {pool.token[offset]}"
        case EventKind.BLOCKED if event.data and not all(_is_count(event.data.get(key, 1)) for key in ("errno", "times")):
            return "its data do not fit: errno and times are whole numbers"
        case _:
            return None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < LAST_NS


def write_rare(pool: Pool, offset: int, code: int, event: Event) -> None:
    kind, before = event.kind, pool.note(offset)
    if kind is EventKind.WITHDRAWN:
        pool.notes[offset] = before._replace(withdrawn=True)
    elif kind is EventKind.ADOPTED:
        if code == BLOCKED:
            # The full hold that follows every block is owed all the same, by the lease that begins now.
            pool.until[offset] = max(before.held_until, event.ts + pool.hold_ns)
        write_note(pool, offset, event, cause=event.cause)
        pool.token[offset], pool.owner[offset] = event.seq, event.owner
        pool.service[offset] = intern(event.service)
        if code == OUTSIDE:
            pool.outside.add(offset)
    else:
        held_until = pool.until[offset] if kind is EventKind.BLOCKED and pool.until[offset] > event.ts else 0
        pool.until[offset] = event.until
        again = event.cause in STARTED_OVER and before.cause == "operator"  # and an operator's hold it remains
        cause = "unblocked" if kind is EventKind.UNBLOCKED else before.cause if again else event.cause
        write_note(pool, offset, event, cause=cause, hold_ms=event.hold_ms, held_until=held_until)


def write_note(pool: Pool, offset: int, event: Event, *, cause: str = "", hold_ms: int = 0, held_until: int = 0) -> None:
    """Write down why the row is as it is, where that is worth a note; what the row still says of its last holder is read first."""
    before = pool.note(offset)
    mixed_until, errno, times, blocked_as = before.mixed_until, 0, before.times, before.blocked_as
    if event.kind is EventKind.ADOPTED or (event.kind is EventKind.RELEASED and event.cause == "released"):
        times, blocked_as = 0, ""  # somebody listened there
    if event.data and event.kind is EventKind.BLOCKED:
        errno = event.data.get("errno", 0)
        times, blocked_as = (event.data["times"], event.cause) if "times" in event.data else (times, blocked_as)
    if event.kind in BEGIN and event.service != pool.service[offset]:
        mixed_until = max(mixed_until, pool.until[offset])
    if mixed_until and event.cause in STARTED_OVER:  # how much of it was left is not known
        mixed_until = max(mixed_until, event.until)
    nth = event.data.get("index", 0) if event.data and event.kind is EventKind.ALLOCATED else 0
    note = Note(
        "" if cause == "released" else cause, event.reason, hold_ms,
        held_until=held_until, mixed_until=mixed_until if mixed_until > event.ts or pool.kept else 0, nth=nth,
        ttl_ns=event.until - event.ts if event.until and event.kind is EventKind.ALLOCATED else 0,
        errno=errno, times=times, blocked_as=blocked_as,
    )  # fmt: skip
    if note == NO_NOTE:
        pool.notes.pop(offset, None)
    else:
        pool.notes[offset] = note


def forget(pool: Pool, offset: int) -> None:
    """The port is FREE: nothing of its past counts any more, save how often it was blocked."""
    note = pool.notes.pop(offset, NO_NOTE)
    if note.times:
        pool.notes[offset] = NO_NOTE._replace(times=note.times, blocked_as=note.blocked_as)
