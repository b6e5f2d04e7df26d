"""Lines of a log that lie in a database: each proven by the rolling checksum, the whole named by a chain of SHA-256.

The lines are those of the files (`_codec`), in one piece from the header on: the checksum of a line covers all lines before it. The
digest at event n is SHA-256 of the digest at n - 1 and line n, and begins with that of the header; so a changed, moved
or missing line changes every digest behind it, and a writer needs only the last one to go on.

Rule of this file: no I/O; lines come in, events go out.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from portfsm._codec import FMT, SCHEMA, SUFFIX, SUFFIX_SIZE, Encoder, Header, crc_of, decode_event, decode_events, decode_mark
from portfsm.errors import JournalCorrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from portfsm.events import Event

__all__ = ["Chain", "begin", "corrupt", "link"]


def begin(log_id: str) -> bytes:
    """The header line that a new log begins with, its line end included."""
    return Encoder().encode_line(Header(fmt=FMT, log=log_id, no=1, base=0, epoch=0, schema=SCHEMA))


def link(digest: bytes, lines: bytes) -> bytes:
    """The digest behind `lines`, whole ones, which follow `digest`."""
    for line in lines.split(b"\n")[:-1]:
        digest = sha256(digest + line).digest()
    return digest


class Chain:
    """A place in the log, to read on from or to write on from.

    `carry` is the end of the line before (`_codec.Encoder`); by default that of the header. Raises `JournalTooNew`, `JournalCorrupt`.
    """

    __slots__ = ("_plain", "_where", "carry", "log_id", "seq")

    def __init__(self, header: bytes, where: str, *, seq: int = 0, carry: bytes = b"") -> None:
        self._where = where
        self.seq = seq
        self.carry = carry if seq else header[-SUFFIX_SIZE:]
        try:
            mark = decode_mark(header, where)
        except (msgspec.MsgspecError, ValueError) as error:
            raise corrupt(where, 1, f"its header does not decode ({error})") from error
        if not isinstance(mark, Header) or header[-SUFFIX_SIZE:] != SUFFIX % crc32(header[:-SUFFIX_SIZE]):
            raise corrupt(where, 1, "its header does not prove")
        self.log_id = mark.log
        self._plain = mark.schema == SCHEMA

    def write(self, events: Sequence[Event]) -> tuple[bytes, bytes]:
        """The lines of a batch, and the carry behind them. Changes nothing: `advance` when they are kept."""
        encoder = Encoder(self.carry)
        return encoder.encode(events), encoder.carry

    def advance(self, seq: int, carry: bytes) -> None:
        """Go on behind the event `seq`."""
        self.seq, self.carry = seq, carry

    def read(self, lines: bytes) -> list[Event]:
        """The events of the next lines, proven. Raises `JournalCorrupt` naming the first event that is not."""
        suffix = SUFFIX % crc32(memoryview(lines)[:-SUFFIX_SIZE], crc32(self.carry, crc_of(self.carry)))
        if self._plain and lines.endswith(suffix):
            try:
                events = decode_events(lines)
            except ValueError:  # msgspec's own errors are such, too
                return self._read_each(lines)
            if events and events[0].seq == self.seq + 1 and events[-1].seq == self.seq + len(events):
                self.advance(events[-1].seq, suffix)
                return events
        return self._read_each(lines)

    def _read_each(self, lines: bytes) -> list[Event]:
        return [self._read_line(line + b"\n") for line in lines.split(b"\n")[:-1]]

    def _read_line(self, line: bytes) -> Event:
        due = self.seq + 1
        suffix = SUFFIX % crc32(memoryview(line)[:-SUFFIX_SIZE], crc32(self.carry, crc_of(self.carry)))
        if not line.endswith(suffix):
            raise corrupt(self._where, due, "its checksum does not prove it and all before it: it was changed, moved or removed")
        try:
            event = decode_event(line, self._where)[0]
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
            raise corrupt(self._where, due, f"it does not decode ({error})") from error
        if event.seq != due:
            raise corrupt(self._where, due, f"its seq is {event.seq}")
        self.advance(due, suffix)
        return event


def corrupt(where: str, seq: int, why: str) -> JournalCorrupt:
    """The error for an event that cannot be believed, or all of it from there on."""
    return JournalCorrupt(
        f"{where}: event {seq}: {why}. Nothing was changed; `portfsm verify` tells more, restore the database from a backup",
        path=where, segment="portfsm_event", offset=None, seq=seq,
    )  # fmt: skip
