"""A log that is copied into PostgreSQL: one transaction, all or nothing."""

from __future__ import annotations

import hashlib
from itertools import islice
from typing import TYPE_CHECKING

import psycopg

from portfsm.errors import InvalidValue, JournalCorrupt
from portfsm.journals import _pg_schema as sql
from portfsm.journals._chain import Chain, begin, link
from portfsm.journals._copy_source import Digest
from portfsm.journals._pg_log import PAGE, LogRow, fetch
from portfsm.values import Head

if TYPE_CHECKING:
    from portfsm.journals._copy_source import Source
    from portfsm.journals._pg_session import Session

__all__ = ["receive"]


def receive(session: Session, source: Source) -> Head:
    """Fill a log that has no events, then read it back. Raises `InvalidValue` when it has some, `JournalUnreadable`, `JournalCorrupt`."""
    try:
        with session.many():
            row = _begin(session, source)
            head = _prove(session, row, source, _fill(session, row, source))
            session.ask(sql.RECEIVED, log=row.log, epoch=source.epoch)
    except psycopg.Error as error:
        raise session.failed("take the copy", error) from error
    return head


def _begin(session: Session, source: Source) -> LogRow:
    header = begin(source.head.log_id)
    place = session.place
    found = session.ask(sql.RECEIVE, name=place.log, header=header.decode(), digest=hashlib.sha256(header[:-1]).digest())
    if not found:
        message = f"{place.shown} holds a log already, or is led by somebody: choose another ?log=NAME"
        raise InvalidValue(message, name="target", value=place.shown)
    return LogRow.of(found[0])


def _fill(session: Session, row: LogRow, source: Source) -> tuple[str, Head]:
    """Append every event; the digest of what they say, and the head there."""
    chain, digest, said = Chain(row.header, session.place.shown), row.digest, Digest()
    events = iter(source.events())
    while part := list(islice(events, PAGE)):
        said.add(part)
        lines, carry = chain.write(part)
        before, digest = digest, link(digest, lines)
        session.ask(
            sql.APPEND, log=row.log, epoch=row.epoch, seq=chain.seq, count=len(part), before=before, digest=digest,
            lines=lines[:-1].decode(), lease_s=0.0,
        )  # fmt: skip
        chain.advance(part[-1].seq, carry)
    return said.hex(), Head(source.head.log_id, chain.seq, digest.hex())


def _prove(session: Session, row: LogRow, source: Source, filled: tuple[str, Head]) -> Head:
    """Read it back: every line, and that there are as many."""
    said, head = filled
    chain, there = Chain(row.header, session.place.shown), Digest()
    while chain.seq < head.seq:
        there.add(chain.read(fetch(session, row, chain.seq, min(chain.seq + PAGE, head.seq))))
    if (head.seq, there.hex()) != (source.head.seq, said):
        place = session.place.shown
        message = f"{place}: the copy is not what {source.shown} holds up to @{source.head.seq}: nothing was kept; copy again"
        raise JournalCorrupt(message, path=place, segment=None, offset=None, seq=None)
    return head
