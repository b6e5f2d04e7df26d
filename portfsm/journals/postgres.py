"""The shared journal on PostgreSQL: one row per event, one statement per batch, one leader.

    portfsm init 'postgresql://portfsm@db/ports?log=edge'          once
    open_manager('postgresql://portfsm@db/ports?log=edge', role="lead-or-wait")

A leader is whoever raised the log's epoch last (`_pg_schema`). The lease, by the server's clock, decides when another may try to;
the epoch, checked in the append itself, decides whose events are kept. So a leader that slept through its lease is refused
and not merely late. An answer that was lost on the way is `OutcomeUnknown`: only reading again tells.

Needs the extra `postgres` (psycopg 3). `docs/postgres.md` is the page for those who run it.
"""

from __future__ import annotations

import os
import time
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING

import psycopg
import structlog
from psycopg import errors

from portfsm.errors import Fenced, HistoryLost, InternalError, InvalidValue, JournalError, JournalFull, JournalLocked, OutcomeUnknown
from portfsm.journals import _pg_schema as sql
from portfsm.journals._chain import link
from portfsm.journals._pg_audit import Audit, head_at, newest_snapshot
from portfsm.journals._pg_log import LogRow, follow_log, make, pages, seize, start, who_leads
from portfsm.journals._pg_place import Place
from portfsm.journals._pg_receive import receive
from portfsm.journals._pg_session import Session, first_line, lost
from portfsm.specs import check_seconds
from portfsm.values import Head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from portfsm.events import Event
    from portfsm.journals._chain import Chain
    from portfsm.journals._copy_source import Source
    from portfsm.journals._pg_log import Made, Tail

__all__ = ["PostgresJournal"]

_SNAPSHOTS_KEPT = 2
_log = structlog.get_logger()


class PostgresJournal:
    """A log in a PostgreSQL database. Made by `from_url`; connects when it is opened or read.

    `lease_s`: how long a leader that gives no sign of life is waited for. `timeout_s` bounds each statement.
    """

    append_renews = True

    def __init__(self, place: Place, *, lease_s: float = 10.0, timeout_s: float = 10.0) -> None:
        self.place = place
        self.path = place.shown
        self.lease_s = _positive("lease_s", lease_s)
        self._timeout_s = _positive("timeout_s", timeout_s)
        self._log_id = ""
        self._last = (0, b"")
        self._session: Session | None = None
        self._forget()

    @classmethod
    def from_url(cls, url: str, *, lease_s: float = 10.0, timeout_s: float = 10.0) -> PostgresJournal:
        """The journal that `url` names: `postgresql://user:password@host:port/database?log=NAME`. Raises `InvalidValue`."""
        return cls(Place.parse(url), lease_s=lease_s, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"PostgresJournal({self.path!r})"

    def _forget(self) -> None:
        """What belongs to one opening."""
        self._pid = 0
        self._row = LogRow(0, b"", 0, 0, b"")
        self._chain: Chain | None = None
        self._tried = b""
        """What `_last` says after the append that was tried last, if it was kept."""
        self._stopped: JournalError | None = None
        self._recovered = ""
        self._signed_s = 0.0
        """When the last sign of life was given, on the monotonic clock."""

    # ---- what it is -------------------------------------------------------------------------------------------

    @property
    def log_id(self) -> str:
        return self._log_id

    @property
    def full(self) -> bool:
        """There is no reserve in a database: an append to a full one raises `JournalFull`."""
        return False

    @property
    def recovered(self) -> str:
        return self._recovered

    def head(self) -> Head:
        """Names the whole history up to the last durable event: its digest is that of a chain over all lines (`_chain`)."""
        seq, digest = self._last
        return Head(self._log_id, seq, digest.hex())

    # ---- opening ----------------------------------------------------------------------------------------------

    def init(self) -> Made:
        """Make the tables, or bring them to this version, and the log. What is there already stays as it is."""
        session = Session(self.place, timeout_s=self._timeout_s, writing=True)
        try:
            return make(session)
        finally:
            session.close()

    def receive(self, source: Source) -> Head:
        """Become a copy of `source`: see `portfsm copy`. Raises `InvalidValue` when there is a log already, `JournalUnreadable`."""
        session = Session(self.place, timeout_s=self._timeout_s, writing=True)
        try:
            make(session)
            return receive(session, source)
        finally:
            session.close()

    def open(self, holder: str) -> int:
        if self._session is not None:
            raise JournalLocked(f"{self.path} is open already, by this very object", path=self.path, pid=os.getpid(), holder=holder)
        self._forget()
        session = Session(self.place, timeout_s=self._timeout_s, writing=True)
        try:
            row, former = seize(session, holder, self.lease_s)
            self._begin(session, row)
        except psycopg.Error as error:
            session.close()
            raise session.failed("give the lead", error) from error
        except BaseException:
            session.close()
            raise
        if former:
            self._recovered = f"taken over from {former}, which gave no sign of life any more"
        return row.epoch

    def _begin(self, session: Session, row: LogRow) -> None:
        """Go on behind the last event, if it is what the log's row says it is."""
        self._signed_s = time.monotonic()
        try:
            self._chain = start(session, row, row.seq, digest=row.digest)
        except JournalError:
            session.ask(sql.GIVE_UP, log=row.log, epoch=row.epoch, digests=[row.digest])
            raise
        self._log_id, self._row, self._last = self._chain.log_id, row, (row.seq, row.digest)
        self._session, self._pid = session, os.getpid()

    # ---- reading ----------------------------------------------------------------------------------------------

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events with `seq > after`, proven. Between `open` and the first `append`; keeps the lease meanwhile."""
        session = self._usable()
        return chain.from_iterable(pages(session, self._row, after, each=self._renew_if_due))

    def read_apart(self, after: int = 0) -> Iterator[Event]:
        """The same on a connection of its own, whoever leads. Up to what is durable when reading begins."""
        return chain.from_iterable(self._read_apart(after))

    def _read_apart(self, after: int) -> Iterator[list[Event]]:
        with self.tail(after) as tail:
            yield from tail.take()

    def head_at(self, seq: int | None = None) -> Head:
        """The head as it was when `seq` was the last event; now, if None. Raises `InvalidValue`."""
        return head_at(self.place, seq, timeout_s=self._timeout_s)

    def audit(self, *, at: int | None = None) -> Audit:
        """Look through the whole log, and tell its head also as of `at`."""
        return Audit(self.place, timeout_s=self._timeout_s, at=at)

    def tail(self, after: int = 0) -> Tail:
        """A reader to keep, which is told when there is more."""
        return follow_log(self.place, after, timeout_s=self._timeout_s)

    # ---- writing ----------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event]) -> None:
        session, place = self._usable(), self._chain
        if place is None or not events:
            return
        if session.broken:  # it failed while nothing was on its way
            self.renew()
            session = self._usable()
        if events[0].seq != place.seq + 1 or events[-1].seq != place.seq + len(events):
            raise InternalError(f"events {events[0].seq}..{events[-1].seq} do not follow {place.seq}: nothing was written")
        lines, carry = place.write(events)
        digest = self._tried = link(self._last[1], lines)
        # Stays when anything unforeseen leaves the block below, a KeyboardInterrupt for one.
        self._stopped = self._unknown("an append was interrupted")
        try:
            self._append(session, len(events), lines, digest)
        except JournalError as error:
            self._stopped = error
            _log.error("journal.stopped", path=self.path, why=str(error))
            raise
        self._stopped = None
        place.advance(events[-1].seq, carry)
        self._last = (place.seq, digest)

    def _append(self, session: Session, count: int, lines: bytes, digest: bytes) -> None:
        session.warnings.clear()
        asked_s, (seq, before) = time.monotonic(), self._last
        try:
            (kept, _), *_ = session.ask(
                sql.APPEND, prepare=not self.place.pooler, log=self._row.log, epoch=self._row.epoch, seq=seq, count=count,
                before=before, digest=digest, lines=lines[:-1].decode(), lease_s=self.lease_s,
            )  # fmt: skip
        except psycopg.Error as error:
            raise self._refused(error) from error
        if not kept:
            raise self._fenced(session)
        if session.warnings:  # "canceling wait for synchronous replication": kept here, perhaps not there
            raise self._unknown(f"the server warned: {session.warnings[0]}")
        self._signed_s = asked_s

    def _refused(self, error: psycopg.Error) -> JournalError:
        why = self.place.hide(first_line(error))
        if lost(error):
            return self._unknown(f"the connection was lost ({why})")
        if isinstance(error, errors.DiskFull):
            return JournalFull(
                f"{self.path}: the server's disk is full ({why}): nothing was written; make room, then open again", path=self.path
            )
        return JournalError(f"{self.path}: the server refused an append ({why}): nothing was written; open the log again", path=self.path)

    def _unknown(self, why: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self.path}: {why}: nobody knows what was kept; open the log again, which reads it", path=self.path, errno=None
        )

    def _fenced(self, session: Session) -> JournalError:
        try:
            row = LogRow.find(session)
        except JournalError as error:
            return Fenced(f"{self.path}: another leads ({error}); nothing was written", path=self.path, epoch=self._row.epoch, current=None)
        mine = self._row.epoch
        if row.epoch > mine:
            leader = who_leads(session)
            return Fenced(
                f"{self.path}: {leader} leads now, with epoch {row.epoch}; this writer had epoch {mine}: nothing was written; "
                "open the log again to go on",
                path=self.path, epoch=mine, current=row.epoch,
            )  # fmt: skip
        left = self._last[0]
        return HistoryLost.found(
            self.path, f"the log ends at {row.seq} otherwise than this writer left it at {left}: the database came back from an older copy"
        )

    # ---- leading ----------------------------------------------------------------------------------------------

    def renew(self) -> None:
        session = self._usable()
        if session.broken:
            session = self._session = self._again(session)
        asked_s = time.monotonic()
        try:
            seq, digest = self._last
            found = session.ask(sql.RENEW, log=self._row.log, epoch=self._row.epoch, seq=seq, digest=digest, lease_s=self.lease_s)
        except psycopg.Error as error:
            raise session.failed("take a sign of life", error) from error
        if not found:
            self._stopped = self._fenced(session)
            raise self._stopped
        self._signed_s = asked_s

    def _again(self, session: Session) -> Session:
        """Another connection, while nothing is on its way: what the log says of epoch and end tells whether it is ours still."""
        session.close()
        return Session(self.place, timeout_s=self._timeout_s, writing=True)

    def _renew_if_due(self) -> None:
        if time.monotonic() - self._signed_s > self.lease_s / 3:
            self.renew()

    def _usable(self) -> Session:
        if self._session is None:
            raise JournalError(f"{self.path} is not open: open it first", path=self.path)
        if os.getpid() != self._pid:
            raise JournalError(f"{self.path} was opened by process {self._pid}: a forked process must open its own", path=self.path)
        if self._stopped is not None:
            raise self._stopped
        return self._session

    # ---- snapshots --------------------------------------------------------------------------------------------

    def load_snapshot(self) -> tuple[int, list[bytes]] | None:
        session = self._usable()
        return newest_snapshot(session, self._row.log, self._last[0])

    def save_snapshot(self, seq: int, lines: Iterable[bytes]) -> None:
        session = self._session
        if session is None or self._stopped is not None:
            return
        body, (last, digest) = b"".join(line + b"\n" for line in lines), self._last
        try:
            session.ask(
                sql.SNAPSHOT_SAVE, log=self._row.log, epoch=self._row.epoch, seq=last, digest=digest, at=seq, sha256=sha256(body).digest(),
                body=body,
            )  # fmt: skip
            session.ask(sql.SNAPSHOT_DROP, log=self._row.log, kept=_SNAPSHOTS_KEPT)
        except psycopg.Error as error:
            why = self.place.hide(first_line(error))
            _log.warning("snapshot.failed", path=self.path, seq=seq, why=why, effect="the next opening reads more of the log")

    # ---- closing ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go, so that another need not wait for the lease to end. May be called twice; never raises."""
        session, self._session = self._session, None
        if session is None or os.getpid() != self._pid:
            return
        try:
            if session.broken and not isinstance(self._stopped, Fenced):
                session = self._again(session)
            session.ask(sql.GIVE_UP, log=self._row.log, epoch=self._row.epoch, digests=[self._last[1], self._tried])
        except (psycopg.Error, JournalError) as error:
            why = self.place.hide(first_line(error))
            _log.warning("journal.lease_kept", path=self.path, why=why, effect=f"another leads when {self.lease_s:g} s are over")
        finally:
            session.close()


def _positive(name: str, value: float) -> float:
    if not check_seconds(name, value):
        raise InvalidValue(f"{name} must be more than 0 seconds", name=name, value=value)
    return float(value)
