"""What `portfsm verify` claims of a log on a server, in one look from the first event to the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm.cli._proof import Check, Proof, Walk, as_expected, other_log, where
from portfsm.cli._words import count
from portfsm.journals._urls import shared_journal, shown

if TYPE_CHECKING:
    from portfsm.journals._urls import Audited
    from portfsm.values import Head

__all__ = ["prove_shared"]


def prove_shared(url: str, expect: Head | None) -> Proof:
    """Check everything. Raises `JournalUnreadable`, `JournalTooNew`."""
    path = shown(url)
    with shared_journal(url).audit(at=expect.seq if expect is not None else None) as audit:
        walk = Walk(path, audit.events(), audit.snapshot, cache="it from the database")
        steps = walk.checks()
    checks = [_lines(path, walk), *steps]
    if expect is not None:
        checks.append(_head(audit, expect))
    seq = walk.ledger.seq
    head = audit.heads.get(seq) if walk.damage is None and seq else None
    return Proof(path, seq, str(head or ""), tuple(checks))


def _lines(path: str, walk: Walk) -> Check:
    if walk.damage is not None and walk.damage.segment is not None:
        return Check("FAIL", "bytes", where(path, walk.damage))
    return Check("ok", "bytes", f"{count(walk.ledger.seq, 'event')}, each proven by its checksum and by the chain of digests")


def _head(audit: Audited, expect: Head) -> Check:
    if other := other_log(expect, audit.log_id, audit.last_seq):
        return other
    found = audit.heads.get(expect.seq)
    return as_expected(expect, found) if found else Check("FAIL", "head", f"cannot be told: @{expect.seq} lies behind the damage")
