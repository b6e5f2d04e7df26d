"""What `portfsm verify` claims, check by check, each with what was found. No printing here.

Two looks at the log: every byte (`inspect`, which goes on behind damage), then every step, up to the damage if there is any. The
second stops where opening would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from portfsm._dump import load
from portfsm._ledger import Ledger
from portfsm._replay import replay
from portfsm.cli._out import Bar
from portfsm.cli._words import count
from portfsm.errors import InvalidValue, JournalCorrupt
from portfsm.journals import read_journal
from portfsm.journals._inspect import head_at, inspect
from portfsm.journals._reader import open_directory
from portfsm.journals._snapshots import load as load_snapshot
from portfsm.journals._urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm.events import Event
    from portfsm.journals._inspect import LogReport
    from portfsm.values import Head

__all__ = ["Check", "Proof", "Walk", "as_expected", "other_log", "prove", "where"]


@attrs.frozen
class Check:
    """One claim: `mark` is ok, FAIL, note or - (nothing to check)."""

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
        failed = {check.name for check in self.checks if check.mark == "FAIL"}
        if not failed:
            return f"{self.path} holds: {count(self.seq, 'event')}" if self.seq else f"{self.path} holds no events yet"
        if failed <= {"head", "snapshot"}:
            return f"{self.path} opens, but it is not what it should be. Nothing was changed."
        if "bytes" in failed and is_url(self.path):
            return f"{self.path} is damaged. Nothing was changed; restore the database from a backup."
        if "bytes" in failed:
            return (
                f"{self.path} is damaged. Nothing was changed; `portfsm repair {self.path}` shows what could be saved, or restore a copy."
            )
        return f"{self.path} records what cannot have happened. Nothing was changed; no repair mends that: restore a copy."

    def json(self) -> dict[str, Any]:
        """For programs."""
        checks = [attrs.asdict(check) for check in self.checks]
        return {"log": self.path, "passed": self.passed, "seq": self.seq, "head": self.head or None, "checks": checks}


def prove(path: str, expect: Head | None) -> Proof:
    """Check everything. Raises `JournalUnreadable`, `JournalTooNew`."""
    report = inspect(path)
    last_seq = max((segment.last_seq for segment in report.segments), default=0)
    snapshot = load_snapshot(open_directory(path), report.log_id, last_seq)
    walk = Walk(path, read_journal(path), snapshot, cache="the *.snap.jsonl files")
    checks = [*_bytes(report), _tail(report), *walk.checks()]
    if expect is not None:
        checks.append(_expected(path, expect, report))
    seq = walk.ledger.seq
    head = "" if report.damage or not seq else str(head_at(path, seq))
    return Proof(path, seq, head, tuple(checks))


def _bytes(report: LogReport) -> list[Check]:
    if report.damage:
        return [Check("FAIL", "bytes", where(report.path, error)) for error in report.damage]
    if not report.segments:
        return [Check("ok", "bytes", "no segments yet")]
    events = sum(segment.count for segment in report.segments)
    found = f"{count(events, 'event')} in {count(len(report.segments), 'segment')}"
    if not report.sealed_upto:
        return [Check("ok", "bytes", f"{found}, none sealed yet")]
    return [Check("ok", "bytes", f"{found}, sealed and linked up to @{report.sealed_upto}")]


def where(path: str, error: JournalCorrupt) -> str:
    """The place and the reason, without the advice for those who tried to open the log."""
    return str(error).removeprefix(f"{path}: ").partition(". Nothing was changed")[0]


def _tail(report: LogReport) -> Check:
    if report.torn_bytes:
        torn = f"torn: {count(report.torn_bytes, 'byte')} of a write that nobody was told of; the next opening cuts them off and keeps them"
        return Check("note", "tail", torn)
    return Check("ok", "tail", "complete")


class Walk:
    """Every step, and on the way the state that the snapshot claims to be."""

    def __init__(self, path: str, events: Iterable[Event], snapshot: tuple[int, list[bytes]] | None, *, cache: str) -> None:
        self.ledger = Ledger()
        self.damage: JournalCorrupt | None = None
        """What ended the walk before the end of the log."""
        self._path = path
        self._events = events
        self._snapshot = snapshot
        self._cache = cache
        self._digest = ""
        """Of the state as of the snapshot's seq."""

    def checks(self) -> list[Check]:
        """Walk, and say what was found."""
        try:
            replay(self._noting(Bar(self._path).watch(self._events)), onto=self.ledger)
        except JournalCorrupt as error:
            self.damage = error
            if error.segment is None:
                return [Check("FAIL", "steps", where(self._path, error)), self._kept()]
            return [Check("note", "steps", f"each of {count(self.ledger.seq, 'event')} before the damage is legal"), self._kept()]
        return [Check("ok", "steps", f"each of {count(self.ledger.seq, 'event')} is legal after those before it"), self._kept()]

    def _noting(self, events: Iterable[Event]) -> Iterator[Event]:
        seq = self._snapshot[0] if self._snapshot else None
        for event in events:
            yield event
            if event.seq == seq:  # the fold asks for the next event when it is done with this one
                self._digest = self.ledger.digest()

    def _kept(self) -> Check:
        if self._snapshot is None:
            return Check("-", "snapshot", "none")
        seq, lines = self._snapshot
        if not self._digest:
            return Check("-", "snapshot", f"of @{seq}, which the steps do not reach")
        kept = Ledger()
        try:
            load(kept, lines)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return Check("note", "snapshot", f"of @{seq} cannot be read ({error}) and will be ignored")
        if kept.digest() != self._digest:
            return Check("FAIL", "snapshot", f"of @{seq} differs from what the events say: remove {self._cache}, a cache")
        return Check("ok", "snapshot", f"of @{seq} says what the events say")


def _expected(path: str, expect: Head, report: LogReport) -> Check:
    last_seq = max((segment.last_seq for segment in report.segments), default=0)
    if other := other_log(expect, report.log_id, last_seq):
        return other
    try:
        return as_expected(expect, head_at(path, expect.seq))
    except (InvalidValue, JournalCorrupt) as error:
        return Check("FAIL", "head", f"cannot be told: {where(path, error)}" if isinstance(error, JournalCorrupt) else str(error))


def other_log(expect: Head, log_id: str, last_seq: int) -> Check | None:
    """The verdict where the log cannot have the expected head: it is another, or too short."""
    if expect.log_id != log_id:
        return Check("FAIL", "head", f"this is log {log_id or '(none yet)'}, not {expect.log_id}")
    if expect.seq > last_seq:
        return Check("FAIL", "head", f"the log ends at @{last_seq}, before @{expect.seq}: events were cut off")
    return None


def as_expected(expect: Head, found: Head) -> Check:
    """The verdict on the head that was made anew."""
    if found != expect:
        return Check("FAIL", "head", f"at @{expect.seq} it is {found.digest}, not {expect.digest}: history was changed")
    return Check("ok", "head", f"as expected at @{expect.seq}")
