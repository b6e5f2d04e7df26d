"""What `portfsm verify` claims, check by check, each with what was found. No printing here.

One look at the log: at every byte (`inspect`, which goes on behind damage), and on the way at every step, up to the damage if there is
any. The steps stop where opening would.
"""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import attrs

from portfsm._dump import load
from portfsm._ledger import Ledger
from portfsm._replay import replay
from portfsm.cli._out import Bar
from portfsm.cli._words import count
from portfsm.errors import InvalidValue, JournalCorrupt
from portfsm.journals._inspect import head_at, inspect
from portfsm.journals._reader import open_directory
from portfsm.journals._snapshots import read as read_snapshot
from portfsm.journals._snapshots import seqs_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    directory = open_directory(path)
    walk = Walk(path, seqs_in(directory), cache="the *.snap.jsonl files")
    bar = Bar(path)
    try:
        report = inspect(path, each=lambda events: walk.take(bar.seen(events)))
    finally:
        bar.end()
    snapshots = walk.kept(lambda seq: read_snapshot(directory, report.log_id, seq, seq))
    checks = [*_bytes(report), _tail(report), walk.steps(damaged=bool(report.damage)), snapshots]
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
    """Every step, and on the way the states that the snapshots claim to be: those as of `seqs`, ascending.

    `cache` says what to remove of them when they are wrong.
    """

    def __init__(self, path: str, seqs: Iterable[int], *, cache: str) -> None:
        self.ledger = Ledger()
        self._path = path
        self._cache = cache
        self._ahead = deque(seqs)
        self._digests: dict[int, str] = {}
        """seq -> of the state as of it, where there is a snapshot."""
        self._illegal: JournalCorrupt | None = None

    def take(self, events: list[Event]) -> None:
        """Go on, unless a step before could not have happened."""
        while self._ahead and events and self._ahead[0] <= events[-1].seq and self._illegal is None:
            seq = self._ahead.popleft()
            count = max(0, seq - events[0].seq + 1)
            self._fold(events[:count])
            self._digests[seq] = self.ledger.digest()
            events = events[count:]
        self._fold(events)

    def _fold(self, events: list[Event]) -> None:
        if self._illegal is None:
            try:
                replay(events, onto=self.ledger)
            except JournalCorrupt as error:
                self._illegal = error

    def steps(self, *, damaged: bool) -> Check:
        """Whether each event was legal after those before it."""
        if self._illegal is not None:
            return Check("FAIL", "steps", where(self._path, self._illegal))
        if damaged:
            return Check("note", "steps", f"each of {count(self.ledger.seq, 'event')} before the damage is legal")
        return Check("ok", "steps", f"each of {count(self.ledger.seq, 'event')} is legal after those before it")

    def kept(self, read: Callable[[int], list[bytes]]) -> Check:
        """Whether each snapshot says what the events say; `read` gives its lines, or raises what an odd one raises."""
        found = {seq: self._judge(seq, read) for seq in sorted((*self._digests, *self._ahead))}
        if not found:
            return Check("-", "snapshot", "none")
        for mark in ("FAIL", "note", "-"):
            for check in found.values():
                if check.mark == mark:
                    return check
        says = f", and {len(found) - 1} before it, say" if len(found) > 1 else " says"
        return Check("ok", "snapshot", f"of @{max(found)}{says} what the events say")

    def _judge(self, seq: int, read: Callable[[int], list[bytes]]) -> Check:
        if seq not in self._digests:
            return Check("-", "snapshot", f"of @{seq}, which the steps do not reach")
        kept = Ledger()
        try:
            lines = read(seq)
            if sha256(b"".join(line + b"\n" for line in lines)).hexdigest() == self._digests[seq]:
                return Check("ok", "snapshot", "")  # the digest is taken over what a snapshot keeps
            load(kept, lines)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
            return Check("note", "snapshot", f"of @{seq} cannot be read ({error}) and will be ignored")
        if kept.digest() == self._digests[seq]:
            return Check("ok", "snapshot", "")
        return Check("FAIL", "snapshot", f"of @{seq} differs from what the events say: remove {self._cache}, a cache")


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
