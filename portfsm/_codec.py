"""The line format: events to bytes and back, every byte proven.

A segment is text, one JSON object a line. Every line ends in `,"c":"xxxxxxxx"}` where `c` is the CRC-32 of all
earlier bytes of the segment (earlier suffixes and line ends included), so one call proves 64 KiB at a time
and a lost, doubled or moved line shows. The first line is the segment's `Header`, the last of a finished one its
`Seal`; these and `ClockMark` carry no `seq`. A line of a batch of n > 1 (one write, one sync) carries `b` = [i, n].

Rule of this file: pure. No os, time, random, threads or paths; bytes come in, values go out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

from portfsm.errors import JournalTooNew
from portfsm.events import Event
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "BATCH_BYTES",
    "FMT",
    "SCHEMA",
    "SUFFIX",
    "SUFFIX_SIZE",
    "UPCASTERS",
    "ClockMark",
    "Encoder",
    "Header",
    "Seal",
    "crc_of",
    "decode_event",
    "decode_events",
    "decode_mark",
]

FMT = 1
"""Version of the framing. A segment with a higher one is refused."""
SCHEMA = 1
"""Generation of the records: raised with every entry in `UPCASTERS`. Segments that carry it are decoded straight
into `Event`, others line by line, each by its `v`."""
FEATURES: frozenset[str] = frozenset()
"""Required features this version knows. A header that lists another one is refused."""
UPCASTERS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""(kind, v) -> a pure function to the record of v + 1. A line without `v` is of version 1."""
BATCH_BYTES = 1 << 20
"""No write is longer, unless the segment's header says so (`Header.batch`): bounds what a crash can tear."""

SUFFIX = b',"c":"%08x"}\n'
SUFFIX_SIZE = 17

_KINDS = frozenset(kind.value for kind in EventKind)
_MARKS = frozenset({"segment", "seal", "clock"})


class Header(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="segment"):
    """The first line of a segment: which log, where in it, who wrote it, and when."""

    fmt: int
    log: str
    no: int
    """Number of the segment, gapless from 1."""
    base: int
    """The `seq` before its first event."""
    epoch: int
    prev: str = ""
    """SHA-256 in the seal of the segment before; empty for the first."""
    features: tuple[str, ...] = ()
    """What a reader must know to read on."""
    schema: int = 1
    batch: int = BATCH_BYTES
    """No write into this segment is longer."""
    boot_id: str = ""
    wall_ns: int = 0
    boot_ns: int = 0
    """Wall clock and boot clock read together; 0 when the writer was given no clock."""


class Seal(msgspec.Struct, frozen=True, tag_field="kind", tag="seal"):
    """The last line of a finished segment."""

    count: int
    last: int
    """`seq` of the last event."""
    sha256: str
    """Of all bytes before this line."""


class ClockMark(msgspec.Struct, frozen=True, tag_field="kind", tag="clock"):
    """From here on the wall clock stands differently against the boot clock (somebody stepped it)."""

    ts: int
    wall: int
    boot: int


class _Probe(msgspec.Struct):
    """The part of any line that says whether this version can read it."""

    kind: str
    fmt: int = 1
    features: tuple[str, ...] = ()


_encode = msgspec.json.Encoder().encode
decode_events = msgspec.json.Decoder(Event).decode_lines
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_probe = msgspec.json.Decoder(_Probe).decode
_decode_any_mark = msgspec.json.Decoder(Header | Seal | ClockMark).decode


def crc_of(carry: bytes) -> int:
    """The checksum that the suffix of a line holds: of everything before that suffix."""
    return int(carry[6:14], 16) if carry else 0


class Encoder:
    """Events to lines, carrying the rolling checksum.

    `carry` is the whole state: keep it before an `encode` and put it back when the bytes were not written.
    """

    __slots__ = ("carry",)

    def __init__(self, carry: bytes = b"") -> None:
        self.carry = carry

    def encode(self, events: Sequence[Event]) -> bytes:
        """The lines of one batch: what one write and one sync will make durable."""
        count = len(events)
        crc = crc32(self.carry, crc_of(self.carry))
        suffix = b""
        parts: list[bytes] = []
        for number, event in enumerate(events, 1):
            text = _encode(event)[:-1]
            body = b'%s%s,"b":[%d,%d]' % (suffix, text, number, count) if count > 1 else text
            crc = crc32(body, crc)
            suffix = SUFFIX % crc
            parts.append(body)
        self.carry = suffix
        parts.append(suffix)
        return b"".join(parts)

    def encode_line(self, mark: Header | Seal | ClockMark) -> bytes:
        """One line that is not an event."""
        body = _encode(mark)[:-1]
        self.carry = SUFFIX % crc32(body, crc32(self.carry, crc_of(self.carry)))
        return body + self.carry


def decode_event(line: bytes, where: str) -> tuple[Event, int, int]:
    """One line of any known version, and its place in its batch. Raises `JournalTooNew`, or `ValueError` and its like."""
    record = _decode_object(line)
    del record["c"]
    number, size = record.pop("b", (1, 1))
    return msgspec.convert(_upcast(record, where), Event), number, size


def _upcast(record: dict[str, Any], where: str) -> dict[str, Any]:
    """The record in today's shape."""
    kind, version = record["kind"], record.pop("v", 1)
    while (kind, version) in UPCASTERS:
        record = UPCASTERS[kind, version](record)
        kind, version = record["kind"], version + 1
    newest = max((old + 1 for of, old in UPCASTERS if of == kind), default=1)
    if not isinstance(kind, str) or not isinstance(version, int):
        raise ValueError(f"its kind is {kind!r}, its version {version!r}")  # noqa: TRY004  (ValueError is what a bad line raises)
    if kind not in _KINDS or version != newest:
        raise _too_new(where, f"event kind {kind!r} version {version}")
    return record


def decode_mark(line: bytes, where: str) -> Header | Seal | ClockMark:
    """A line that is not an event. Raises `JournalTooNew`, or `ValueError` when it is nothing of ours."""
    probe = _decode_probe(line)
    if probe.fmt > FMT:
        raise _too_new(where, f"format {probe.fmt}")
    unknown = sorted(set(probe.features) - FEATURES)
    if unknown:
        raise _too_new(where, f"feature {unknown[0]!r}")
    if probe.kind not in _MARKS:
        raise _too_new(where, f"line kind {probe.kind!r}")
    mark: Header | Seal | ClockMark = _decode_any_mark(line)
    return mark


def _too_new(where: str, found: str) -> JournalTooNew:
    message = f"{where} holds {found}, which this version of portfsm does not know: upgrade portfsm; nothing was changed"
    return JournalTooNew(message, path=where, found=found)
