"""A log on PostgreSQL looked through from its first line: the chain of digests made anew and held against every digest that was kept."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Self

import structlog

from portfsm.errors import InvalidValue
from portfsm.journals import _pg_schema as sql
from portfsm.journals._chain import Chain, corrupt, link
from portfsm.journals._pg_log import PAGE, LogRow, fetch
from portfsm.journals._pg_session import Session
from portfsm.values import Head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event
    from portfsm.journals._pg_place import Place

_log = structlog.get_logger()

__all__ = ["Audit", "head_at", "newest_snapshot"]


class Audit:
    """One look through a log, with `with`. `heads` has the heads at `at` and at the end, made anew, once `events` is through."""

    def __init__(self, place: Place, *, timeout_s: float, at: int | None = None) -> None:
        self.path = place.shown
        self.log_id = ""
        self.last_seq = 0
        self.snapshot: tuple[int, list[bytes]] | None = None
        self.heads: dict[int, Head] = {}
        self._place = place
        self._timeout_s = timeout_s
        self._at = at
        self._session: Session
        self._row: LogRow

    def __enter__(self) -> Self:
        session = self._session = Session(self._place, timeout_s=self._timeout_s)
        try:
            row = self._row = LogRow.find(session)
            self.log_id, self.last_seq = Chain(row.header, self.path).log_id, row.seq
            self.snapshot = newest_snapshot(session, row.log, row.seq)
        except BaseException:
            session.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def events(self) -> Iterator[Event]:
        """Every event. Raises `JournalCorrupt` at the first that is not what was written, `JournalUnreadable`."""
        return self._walk(self._session, self._row, Chain(self._row.header, self.path))

    def _walk(self, session: Session, row: LogRow, chain: Chain) -> Iterator[Event]:
        digest = sha256(row.header[:-1]).digest()
        self._note(0, digest)
        while chain.seq < row.seq:
            after, upto = chain.seq, min(chain.seq + PAGE, row.seq)
            lines = fetch(session, row, after, upto)
            marks = dict(session.read(sql.MARKS, log=row.log, after=after, upto=upto))
            events = chain.read(lines)
            for seq, line in enumerate(lines.split(b"\n")[:-1], after + 1):
                digest = link(digest, line + b"\n")
                self._note(seq, digest)
                if marks.get(seq, digest) != digest:
                    raise corrupt(
                        self.path, seq, "the digest kept with it is another: it, or an event before it, was changed and re-summed"
                    )
            yield from events
        if digest != row.digest:
            raise corrupt(self.path, row.seq, "the log's own digest is another: history was changed and re-summed")
        self.heads[row.seq] = Head(self.log_id, row.seq, digest.hex())

    def _note(self, seq: int, digest: bytes) -> None:
        if seq == self._at:
            self.heads[seq] = Head(self.log_id, seq, digest.hex())


def newest_snapshot(session: Session, log: int, seq: int) -> tuple[int, list[bytes]] | None:
    """The newest intact copy of the state that is no newer than `seq`, as (seq, lines)."""
    for at, proof, body in session.read(sql.SNAPSHOT_LOAD, log=log, seq=seq):
        if sha256(body).digest() == proof:
            return at, body.split(b"\n")[:-1]
        why = f"the snapshot of {at} is damaged"
        _log.warning("snapshot.ignored", path=session.place.shown, why=why, effect="an older one, or more of the log, is read")
    return None


def head_at(place: Place, seq: int | None, *, timeout_s: float) -> Head:
    """The head as it was when `seq` was the last event (now, if None), from the nearest digest that was kept. Raises `InvalidValue`."""
    session = Session(place, timeout_s=timeout_s)
    try:
        row = LogRow.find(session)
        log_id = Chain(row.header, place.shown).log_id
        wanted = row.seq if seq is None else seq
        if not 0 <= wanted <= row.seq:
            raise InvalidValue(f"{place.shown} ends at seq {row.seq}, there is no head at {wanted}", name="seq", value=seq)
        marks = session.read(sql.MARK_BEFORE, log=row.log, seq=wanted)
        at, digest = marks[0] if marks else (0, sha256(row.header[:-1]).digest())
        lines = fetch(session, row, at, wanted) if at < wanted else b""
        return Head(log_id, wanted, link(digest, lines).hex())
    finally:
        session.close()
