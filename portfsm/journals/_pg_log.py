"""What a session can do with a log on PostgreSQL: make it, find it, seize it, read it, follow it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Self

import attrs
import psycopg
from psycopg import errors

from portfsm._codec import SUFFIX_SIZE
from portfsm.errors import JournalLocked, JournalTooNew, JournalUnreadable
from portfsm.journals import _pg_schema as sql
from portfsm.journals._chain import Chain, begin, corrupt
from portfsm.journals._pg_session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from portfsm.events import Event
    from portfsm.journals._pg_place import Place

__all__ = ["PAGE", "LogRow", "Made", "Tail", "fetch", "follow_log", "make", "pages", "seize", "start", "who_leads"]

PAGE = 8192
"""Events fetched at once."""


@attrs.frozen
class LogRow:
    """A log as its row in the database has it."""

    log: int
    header: bytes
    epoch: int
    seq: int
    digest: bytes

    @classmethod
    def of(cls, row: tuple[int, str, int, int, bytes]) -> LogRow:
        """From the columns, in that order."""
        log, header, epoch, seq, digest = row
        return cls(log, header.encode(), epoch, seq, digest)

    @classmethod
    def find(cls, session: Session) -> LogRow:
        """The log that the session's URL names. Raises `JournalUnreadable`, `JournalTooNew`."""
        check_version(session)
        found = session.read(sql.FIND_LOG, name=session.place.log)
        if not found:
            raise _no_log(session)
        return cls.of(found[0])


@attrs.frozen
class Made:
    """What `init` did: the version of the tables before (0: there were none) and now, and whether the log is new."""

    log: str
    version_before: int
    version: int
    new: bool


# ---------------------------------------------------------------------- the tables


def make(session: Session) -> Made:
    """Make the tables or bring them up to this version, and the log, in one transaction. Raises `JournalTooNew`, `JournalUnreadable`."""
    place = session.place
    header = begin(os.urandom(16).hex())
    try:
        with session.many():
            before = _version_there(session)
            for script in sql.SCRIPTS[before:]:
                session.run(script)
            if before != sql.VERSION:
                session.ask(sql.FORGET_VERSION)
                session.ask(sql.SET_VERSION, version=sql.VERSION)
            found = session.ask(sql.ADD_LOG, name=place.log, header=header.decode(), digest=sha256(header[:-1]).digest())
    except psycopg.Error as error:
        raise session.failed("make the tables", error) from error
    return Made(place.log, before, sql.VERSION, bool(found))


def _version_there(session: Session) -> int:
    (_, there), *_ = session.ask(sql.LOCK_SCHEMA)
    version: int = session.ask(sql.CURRENT)[0][0] if there else 0
    if version > sql.VERSION:
        raise _too_new(session.place, version)
    return version


def check_version(session: Session) -> None:
    """Refuse tables of another version, changing nothing."""
    place = session.place
    try:
        version = session.ask(sql.CURRENT)[0][0]
    except (errors.UndefinedTable, IndexError):
        message = f"{place.shown}: this database holds no log: run `portfsm init` with this URL first, or check the URL"
        raise JournalUnreadable(message, path=place.shown, errno=None) from None
    except psycopg.Error as error:
        raise session.failed("let us look at the log", error) from error
    if version > sql.VERSION:
        raise _too_new(place, version)
    if version < sql.VERSION:
        message = f"{place.shown}: the tables are of version {version}, {sql.VERSION} is needed: run `portfsm init` with this URL"
        raise JournalUnreadable(message, path=place.shown, errno=None)


def _too_new(place: Place, version: int) -> JournalTooNew:
    found = f"tables of version {version}"
    message = f"{place.shown} has {found}, this portfsm knows up to {sql.VERSION}: upgrade portfsm; nothing was changed"
    return JournalTooNew(message, path=place.shown, found=found)


def _no_log(session: Session) -> JournalUnreadable:
    place = session.place
    names = [name for (name,) in session.read(sql.LOGS)]
    there = f"it has {', '.join(names)}" if names else "it has none yet"
    return JournalUnreadable(
        f"{place.shown}: this database has no log named {place.log!r} ({there}): check ?log=NAME, or run `portfsm init` with this URL",
        path=place.shown, errno=None,
    )  # fmt: skip


# ---------------------------------------------------------------------- leading


def seize(session: Session, holder: str, lease_s: float) -> tuple[LogRow, str]:
    """Raise the epoch, unless another leads: the log, and who led before without having closed it. Raises `JournalLocked`."""
    place = session.place
    LogRow.find(session)
    found = session.ask(sql.TAKE_OVER, name=place.log, holder=holder, pid=os.getpid(), lease_s=lease_s)
    if found:
        *row, former = found[0]
        return LogRow.of(tuple(row)), former
    leader, pid, left_s = session.read(sql.WHO_LEADS, name=place.log)[0]
    raise JournalLocked(
        f"{place.shown} is led by {leader!r} (pid {pid}), which is waited for {left_s:.1f} s more: stop it, "
        'or wait for it with role="lead-or-wait"',
        path=place.shown, pid=pid, holder=leader,
    )  # fmt: skip


def who_leads(session: Session) -> str:
    """The present leader, for people."""
    with suppress(JournalUnreadable):
        return repr(session.read(sql.WHO_LEADS, name=session.place.log)[0][0])
    return "another"


# ---------------------------------------------------------------------- reading


def pages(session: Session, row: LogRow, after: int, *, each: Callable[[], object] = int) -> Iterator[list[Event]]:
    """The events after `after` up to where `row` says the log ends, all proven. `each` is called before each page."""
    return _prefetched(session, row, start(session, row, after), each)


def _prefetched(session: Session, row: LogRow, place: Chain, each: Callable[[], object]) -> Iterator[list[Event]]:
    """Page by page, the next one on its way while this one is decoded. Only the helping thread uses the session meanwhile."""

    def get(first: int) -> bytes:
        each()
        return fetch(session, row, first, min(first + PAGE, row.seq))

    if row.seq - place.seq <= PAGE:
        if place.seq < row.seq:
            yield place.read(get(place.seq))
        return
    with ThreadPoolExecutor(1, "portfsm-fetch") as helper:
        coming = helper.submit(get, place.seq)
        while place.seq < row.seq:
            lines, after = coming.result(), min(place.seq + PAGE, row.seq)
            if after < row.seq:
                coming = helper.submit(get, after)
            yield place.read(lines)


def start(session: Session, row: LogRow, after: int, *, digest: bytes | None = None) -> Chain:
    """A place to go on from: behind the event `after`; with `digest`, only if that is kept with it. Raises `JournalCorrupt`."""
    after = min(after, row.seq)
    where = session.place.shown
    carry = b""
    if after:
        found = session.read(sql.LAST_LINE, log=row.log, seq=after)
        if not found:
            raise corrupt(where, after, "it is missing")
        carry = found[0][0].encode() + b"\n"
        if digest is not None and found[0][1] != digest:
            raise corrupt(where, after, "the digest kept with it is not the one in the log's row")
        if len(carry) != SUFFIX_SIZE:
            raise corrupt(where, after, "it is no line of a log")
    return Chain(row.header, where, seq=after, carry=carry)


def fetch(session: Session, row: LogRow, after: int, upto: int) -> bytes:
    """The lines of the events behind `after` up to `upto`, as many as there must be. Raises `JournalCorrupt`."""
    lines, count = session.read(sql.PAGE, log=row.log, after=after, upto=upto)[0]
    if count != upto - after:
        raise corrupt(session.place.shown, after + (count or 0) + 1, f"it is missing, or one before it; the log goes on up to {row.seq}")
    return bytes(lines)


class Tail:
    """A reader that stays: takes what is there, then waits to be told of more. Leave it with `with`."""

    def __init__(self, place: Place, after: int, *, timeout_s: float) -> None:
        self.place = place
        self._after = after
        self._timeout_s = timeout_s
        self._session: Session | None = None
        self._chain: Chain | None = None
        self._deaf = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seq(self) -> int:
        """The last event taken."""
        return self._chain.seq if self._chain is not None else self._after

    def take(self) -> Iterator[list[Event]]:
        """Everything after what was taken before, by pages. Connects when there is no connection; one that fails is given up."""
        try:
            session = self._session or self._connect()
            session.told()
            yield from self._take(session)
            while session.told():  # word of what came after our look, and will not come again
                yield from self._take(session)
        except psycopg.Error as error:
            raise self._given_up("go on", error) from error
        except JournalUnreadable:
            self.close()
            raise

    def _take(self, session: Session) -> Iterator[list[Event]]:
        row = LogRow.find(session)
        if self._chain is None and row.seq < self._after:
            return  # what was asked for is still to come
        place = self._chain = self._chain or start(session, row, self._after)
        self._check(place, row)
        yield from _prefetched(session, row, place, int)

    def fileno(self) -> int:
        """The socket that becomes readable when there is more, -1 where nothing tells."""
        return self._session.fileno() if self._session is not None and not self._deaf else -1

    def close(self) -> None:
        """Let go of the connection; `take` makes another."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _connect(self) -> Session:
        session = self._session = Session(self.place, timeout_s=self._timeout_s)
        try:
            session.ask(f"listen {sql.CHANNEL}")
        except errors.ReadOnlySqlTransaction:  # a stand-by tells nobody anything
            self._deaf = True
        return session

    def _check(self, place: Chain, row: LogRow) -> None:
        theirs = Chain(row.header, self.place.shown)
        if theirs.log_id != place.log_id:
            why = f"log {place.log_id} was followed and this is log {theirs.log_id}: another server answers"
            raise corrupt(self.place.shown, place.seq, why)
        if row.seq < place.seq:
            raise corrupt(self.place.shown, row.seq + 1, f"it was read up to {place.seq} and is missing now: another server answers")

    def _given_up(self, what: str, error: psycopg.Error) -> JournalUnreadable:
        failed = self._session.failed(what, error) if self._session is not None else JournalUnreadable(str(error), path=None, errno=None)
        self.close()
        return failed


def follow_log(place: Place, after: int, *, timeout_s: float) -> Tail:
    """A tail of the log at `place`, behind the event `after`."""
    return Tail(place, after, timeout_s=timeout_s)
