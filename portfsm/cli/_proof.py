"""What `portfsm verify` claims, check by check, each with what was found. No printing here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from portfsm._dump import load
from portfsm._ledger import Ledger
from portfsm._replay import replay
from portfsm.cli._out import Bar
from portfsm.errors import InvalidValue, JournalCorrupt
from portfsm.journals import read_journal
from portfsm.journals._inspect import LogReport, head_at, inspect
from portfsm.journals._reader import open_directory
from portfsm.journals._snapshots import load as load_snapshot

if TYPE_CHECKING:
    from portfsm.values import Head

__all__ = ["Check", "Proof", "prove"]


@attrs.frozen
class Check:
    """One claim: `mark` is ok, FAIL, note or - (not checked)."""

    mark: str
    name: str
    found: str


@attrs.frozen
class Proof:
    """All claims about one log."""

    path: str
    seq: int
    head: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Nothing that opening would refuse, and the head is as expected."""
        return all(check.mark != "FAIL" for check in self.checks)

    def sentence(self) -> str:
        """The verdict, and what to do next."""
        if self.passed:
            return f"{self.path} holds: {self.seq} events, head {self.head}"
        return f"{self.path} does not hold. Nothing was changed; `portfsm repair {self.path}` shows what could be saved."

    def json(self) -> dict[str, Any]:
        """For programs."""
        checks = [attrs.asdict(check) for check in self.checks]
        return {"log": self.path, "passed": self.passed, "seq": self.seq, "head": self.head or None, "checks": checks}


def prove(path: str, expect: Head | None) -> Proof:
    """Check everything. Raises `JournalUnreadable`, `JournalTooNew`."""
    report = inspect(path)
    checks = [_bytes(report), _tail(report)]
    ledger, step = _steps(path) if not report.damage else (None, Check("-", "steps", "not checked, as bytes are damaged"))
    checks.append(step)
    head = ""
    if ledger is not None:
        head = str(head_at(path)) if ledger.seq else ""
        checks.append(_snapshot(path, report, ledger))
    if expect is not None:
        checks.append(_expected(path, expect, report))
    return Proof(path, ledger.seq if ledger is not None else 0, head, tuple(checks))


def _bytes(report: LogReport) -> Check:
    if report.damage:
        return Check("FAIL", "bytes", "; ".join(map(str, report.damage)))
    events = sum(segment.count for segment in report.segments)
    sealed = sum(segment.sealed for segment in report.segments)
    return Check(
        "ok", "bytes", f"{events} events in {len(report.segments)} segments, {sealed} sealed and linked up to seq {report.sealed_upto}"
    )


def _tail(report: LogReport) -> Check:
    if report.torn_bytes:
        return Check(
            "note", "tail", f"torn: {report.torn_bytes} bytes of a write that was never acknowledged; the next opening cuts them off"
        )
    return Check("ok", "tail", "complete")


def _steps(path: str) -> tuple[Ledger | None, Check]:
    try:
        ledger = replay(Bar(path).watch(read_journal(path)))
    except JournalCorrupt as error:
        return None, Check("FAIL", "steps", str(error))
    return ledger, Check("ok", "steps", f"each of {ledger.seq} events is legal after those before it")


def _snapshot(path: str, report: LogReport, ledger: Ledger) -> Check:
    found = load_snapshot(open_directory(path), report.log_id, ledger.seq)
    if found is None:
        return Check("-", "snapshot", "none")
    seq, lines = found
    kept = Ledger()
    try:
        load(kept, lines)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return Check("note", "snapshot", f"of seq {seq} cannot be read ({error}) and will be ignored")
    told = replay(read_journal(path), until=seq)
    if kept.digest() != told.digest():
        return Check("FAIL", "snapshot", f"of seq {seq} differs from what the events say: delete the *.snap.jsonl files")
    return Check("ok", "snapshot", f"of seq {seq} says what the events say")


def _expected(path: str, expect: Head, report: LogReport) -> Check:
    try:
        found = head_at(path, expect.seq)
    except (InvalidValue, JournalCorrupt) as error:
        return Check("FAIL", "head", f"expected {expect}: {error}")
    if found != expect:
        return Check("FAIL", "head", f"expected {expect}, found {found}: history was changed, or this is another log")
    return Check("ok", "head", f"as expected at seq {expect.seq}; later events are covered by their seals up to seq {report.sealed_upto}")
