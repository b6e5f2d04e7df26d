"""What `portfsm verify` claims of a log, wherever it lies; of one on a server in one look from the first event to the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm.cli._out import Bar
from portfsm.cli._proof import Check, Proof, Walk, as_expected, other_log, prove, where
from portfsm.cli._words import count
from portfsm.errors import JournalCorrupt
from portfsm.journals._urls import is_url, shared_journal, shown

if TYPE_CHECKING:
    from portfsm.events import Event
    from portfsm.journals._urls import Audited
    from portfsm.values import Head

__all__ = ["proof_of"]

_PART = 10_000


def proof_of(log: str, expect: Head | None) -> Proof:
    """Check everything. Raises `JournalUnreadable`, `JournalTooNew`, `MissingExtra`."""
    return _prove_shared(log, expect) if is_url(log) else prove(log, expect)


def _prove_shared(url: str, expect: Head | None) -> Proof:
    path = shown(url)
    with shared_journal(url).audit(at=expect.seq if expect is not None else None) as audit:
        seq, lines = audit.snapshot or (0, [])
        walk = Walk(path, [seq] if seq else [], cache="it from the database")
        damage = _look_through(audit, walk, Bar(path))
    steps = walk.steps(damaged=damage is not None)
    checks = [_lines(path, walk, damage), steps, walk.kept(lambda _: lines)]
    if expect is not None:
        checks.append(_head(audit, expect))
    seq = walk.ledger.seq
    head = audit.heads.get(seq) if damage is None and steps.mark != "FAIL" else None
    return Proof(path, seq, str(head or ""), tuple(checks))


def _look_through(audit: Audited, walk: Walk, bar: Bar) -> JournalCorrupt | None:
    """Walk over all events; those before damage, if there is any, which is returned."""
    part: list[Event] = []
    damage = None
    try:
        for event in audit.events():
            part.append(event)
            if len(part) == _PART:
                walk.take(bar.seen(part))
                part = []
    except JournalCorrupt as error:
        damage = error
    finally:
        bar.end()
    walk.take(part)
    return damage


def _lines(path: str, walk: Walk, damage: JournalCorrupt | None) -> Check:
    if damage is not None:
        return Check("FAIL", "bytes", where(path, damage))
    return Check("ok", "bytes", f"{count(walk.ledger.seq, 'event')}, each proven by its checksum and by the chain of digests")


def _head(audit: Audited, expect: Head) -> Check:
    if other := other_log(expect, audit.log_id, audit.last_seq):
        return other
    found = audit.heads.get(expect.seq)
    return as_expected(expect, found) if found else Check("FAIL", "head", f"cannot be told: @{expect.seq} lies behind the damage")
