"""Bytes of a segment to events, every byte proven before it is believed. The format is in `_codec`.

Two ways through the same bytes: whole chunks in three C calls when everything is plain, and line by line when
something is not (a mark, an older record, a checksum that does not fit), which also finds the exact place.

Rule of this file: pure. No os, time, random, threads or paths; bytes come in, values go out.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgspec

from portfsm._codec import SCHEMA, SUFFIX, SUFFIX_SIZE, ClockMark, Header, Seal, crc_of, decode_event, decode_events, decode_mark

if TYPE_CHECKING:
    from portfsm.events import Event

__all__ = ["Position", "Scanner", "Wrong"]

_ANY_SUFFIX = re.compile(rb',"c":"[0-9a-f]{8}"\}')
_SUFFIXES_TRIED = 4
"""A line holds one; two when a line end was damaged; more only inside `data`. Bounds the work on forged bytes."""
_BATCH = re.compile(rb',"b":\[([0-9]{1,9}),([0-9]{1,9})\],"c":"[0-9a-f]{8}"\}\n')
_BATCH_SIZE = SUFFIX_SIZE + 27
_SEQ = re.compile(rb'\{"seq":([0-9]{1,19}),')


class Position(NamedTuple):
    """A place between two lines from which a scan can go on."""

    offset: int = 0
    carry: bytes = b""
    """The suffix of the line before; it holds the checksum so far."""
    next_seq: int = 1


class Wrong(NamedTuple):
    """A line that is proven to be what was written, and yet cannot be: a fault of software, not of the disk."""

    offset: int
    seq: int
    why: str


def _position(lines: bytes, end: int) -> tuple[int, int]:
    """Where in its batch the line stands that ends at `end`: (i, n)."""
    found = _BATCH.fullmatch(lines, lines.rfind(b',"b":[', max(0, end - _BATCH_SIZE), end), end)
    return (int(found[1]), int(found[2])) if found else (1, 1)


def _start_of_last(lines: bytes, count: int) -> int:
    """Where the last `count` lines begin; 0 when there are no more than these."""
    before, *last = lines.rsplit(b"\n", count + 1)
    return len(before) + 1 if len(last) > count else 0


class Scanner:
    """Bytes of one segment to events, in chunks of any size; every byte is proven before it is believed.

    Feed it in order, then call `finish`. `good` is the place after the last complete batch: what lies behind it
    is not believed, and the events of an incomplete batch are not given out. It stops (`stopped`) at the first byte
    that does not prove, at the seal, and at a proven line that cannot be (`wrong`).
    """

    def __init__(self, where: str, *, after: int = 0) -> None:
        self.header: Header | None = None
        self.seal: Seal | None = None
        self.wrong: Wrong | None = None
        self.good = Position()
        self.newline_missing = False
        self.body = Position()
        """Where the seal begins."""
        self.marks: list[ClockMark] = []
        self._where = where
        self._after = after
        self._base = 0
        self._at = Position()
        self._rest = b""
        self._pending: list[Event] = []
        self._batch_size = 1
        self._unproven = False

    @property
    def stopped(self) -> bool:
        """Nothing that could still be fed would be believed."""
        return self._unproven or self.seal is not None or self.wrong is not None

    @property
    def incomplete(self) -> bool:
        """Proven lines follow `good`: the beginning of a batch whose end is missing."""
        return self._at.offset > self.good.offset

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that became certain with this chunk."""
        if self.stopped:
            return []
        data = self._rest + chunk if self._rest else chunk
        end = data.rfind(b"\n") + 1
        lines, self._rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        if not end:
            return []
        at = self._at
        suffix = SUFFIX % crc32(memoryview(lines)[:-SUFFIX_SIZE], crc32(at.carry, crc_of(at.carry)))
        if not lines.endswith(suffix):
            return self._prove_each(lines)
        return self._take_lines(lines)

    def finish(self) -> list[Event]:
        """End of the segment: believe a last line that lacks nothing but its line end."""
        rest, self._rest = self._rest, b""
        return self._prove_each(rest) if rest and not self.stopped else []

    def unseal(self) -> None:
        """Count the seal among what is behind `good`: it was torn with what follows it."""
        self.good, self.seal, self.newline_missing = self.body, None, False

    # ---- fast: whole chunks of plain events -------------------------------------------------------------

    def _take_lines(self, lines: bytes) -> list[Event]:
        """Proven lines. Plain events are decoded at once; anything else line by line."""
        if self.header is None:
            lines = self._take_first(lines)
        if not lines or self.header is None:
            return []
        if self.header.schema != SCHEMA:
            return self._take_each(lines)
        if self._after >= self._at.next_seq and self._skip(lines):
            return []
        try:
            lines.isascii() or lines.decode()  # of a field that it does not know, msgspec checks nothing
            events = decode_events(lines)
        except ValueError:  # also UnicodeDecodeError, which msgspec lets through; a mark has no seq and ends here too
            return self._take_each(lines)
        due = self._at.next_seq
        if events[0].seq != due or events[-1].seq != due + len(events) - 1:
            return self._take_each(lines)
        begun, size = _position(lines, len(lines))
        return self._release(lines, events) if begun == size else self._hold_back(lines, events, begun, size)

    def _take_first(self, lines: bytes) -> bytes:
        """Take the header and return the lines after it."""
        end = lines.index(b"\n") + 1
        self._take(lines[:end], [])
        return lines[end:]

    def _release(self, lines: bytes, events: list[Event]) -> list[Event]:
        """All of it is certain, and so is what waited for it."""
        if self._pending:
            if not self._goes_on(lines):
                return self._take_each(lines)
            events = self._pending + events
            self._pending = []
        self._advance(lines, events[-1].seq + 1)
        self.good = self._at
        return self._wanted(events)

    def _hold_back(self, lines: bytes, events: list[Event], begun: int, size: int) -> list[Event]:
        """The last `begun` events belong to a batch of `size` that goes on behind these lines."""
        if begun > len(events):
            return self._hold_back_all(lines, events, begun, size)
        start = _start_of_last(lines, begun)
        if _position(lines, lines.index(b"\n", start) + 1) != (1, size) or (self._pending and not self._goes_on(lines)):
            return self._take_each(lines)
        carry = lines[start - SUFFIX_SIZE : start] if start else self._at.carry
        good = Position(self._at.offset + start, carry, events[-begun].seq)
        certain = self._pending + events[:-begun]
        self._advance(lines, events[-1].seq + 1)
        self.good, self._pending, self._batch_size = good, events[-begun:], size
        return self._wanted(certain)

    def _hold_back_all(self, lines: bytes, events: list[Event], begun: int, size: int) -> list[Event]:
        """These lines are the middle of one batch."""
        if not self._goes_on(lines) or (begun, size) != (len(self._pending) + len(events), self._batch_size):
            return self._take_each(lines)
        self._advance(lines, events[-1].seq + 1)
        self._pending += events
        return []

    def _goes_on(self, lines: bytes) -> bool:
        """Whether the first line is the next one of the batch that waits for its end."""
        return _position(lines, lines.index(b"\n") + 1) == (len(self._pending) + 1, self._batch_size)

    def _skip(self, lines: bytes) -> bool:
        """Pass lines nobody asked for without decoding them; their numbers are still checked at both ends.

        The beginning of a batch at their end is put back, to be seen again together with its rest.
        """
        begun, size = _position(lines, len(lines))
        stop = len(lines) if begun == size else _start_of_last(lines, begun)
        first, last = _SEQ.match(lines), _SEQ.match(lines, lines.rfind(b"\n", 0, max(stop - 1, 0)) + 1)
        if self._pending or not stop or first is None or last is None:
            return False
        begin, end = int(first[1]), int(last[1])
        if end > self._after or begin != self._at.next_seq or end - begin + 1 != lines.count(b"\n", 0, stop):
            return False
        self.good = self._at = Position(self._at.offset + stop, lines[stop - SUFFIX_SIZE : stop], end + 1)
        self._rest = lines[stop:] + self._rest
        return True

    def _advance(self, lines: bytes, next_seq: int) -> None:
        self._at = Position(self._at.offset + len(lines), lines[-SUFFIX_SIZE:], next_seq)

    def _wanted(self, events: list[Event]) -> list[Event]:
        if events and events[0].seq <= self._after:
            return [event for event in events if event.seq > self._after]
        return events

    # ---- exact: line by line ------------------------------------------------------------------------------

    def _take_each(self, lines: bytes) -> list[Event]:
        """Proven lines of any kind."""
        out: list[Event] = []
        for line in lines.split(b"\n")[:-1]:
            self._take(line + b"\n", out)
            if self.stopped:
                break
        return self._wanted(out)

    def _prove_each(self, data: bytes) -> list[Event]:
        """Bytes that do not prove as a whole: believe them up to the first that does not."""
        out: list[Event] = []
        start = 0
        while start < len(data) and not self.stopped:
            end = data.find(b"\n", start) + 1 or len(data)
            line = data[start:end]
            proven = self._prove(line)
            if proven is None:
                self._unproven = True
            elif proven == line:
                self._take(line, out)
            else:
                self._take_without_newline(proven, out)
                self._unproven = True
            start = end
        return self._wanted(out)

    def _prove(self, line: bytes) -> bytes | None:
        """The line as it was written, or None. Its line end may be missing or damaged: what precedes it is proof enough."""
        crc = crc32(self._at.carry, crc_of(self._at.carry))
        for match in islice(_ANY_SUFFIX.finditer(line), _SUFFIXES_TRIED):
            suffix = SUFFIX % crc32(memoryview(line)[: match.start()], crc)
            if suffix[:-1] == match[0]:
                return line[: match.end()] + b"\n"
        return None

    def _take_without_newline(self, line: bytes, out: list[Event]) -> None:
        self._take(line, out)
        if self.wrong is None:
            whole = self._at
            self._at = whole._replace(offset=whole.offset - 1)
            if self.good == whole:
                self.good = self._at
                self.newline_missing = True

    def _take(self, line: bytes, out: list[Event]) -> None:
        try:
            if self.header is None:
                self._take_header(line)
            elif line.startswith(b'{"kind":'):
                self._take_mark(line)
            else:
                self._take_event(line, out)
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:  # the last two from an upcaster
            self._refuse(f"it does not decode ({error})")

    def _take_header(self, line: bytes) -> None:
        mark = decode_mark(line, self._where) if line.startswith(b'{"kind":') else None
        if not isinstance(mark, Header):
            return self._refuse("a segment begins with its header")
        self.header = mark
        self._base = mark.base
        self._advance(line, mark.base + 1)
        self.good = self._at
        return None

    def _take_mark(self, line: bytes) -> None:
        mark = decode_mark(line, self._where)
        if isinstance(mark, Header):
            return self._refuse("a segment has one header")
        if isinstance(mark, ClockMark):
            self.marks.append(mark)
            return self._advance(line, self._at.next_seq)
        if self.incomplete:
            return self._refuse("a seal stands inside a batch")
        last = self._at.next_seq - 1
        if (mark.count, mark.last) != (last - self._base, last):
            return self._refuse(f"the seal counts {mark.count} events up to {mark.last}, there are {last - self._base} up to {last}")
        self.seal = mark
        self.body = self._at
        self._advance(line, last + 1)
        self.good = self._at
        return None

    def _take_event(self, line: bytes, out: list[Event]) -> None:
        event, number, size = decode_event(line, self._where)
        if event.seq != self._at.next_seq:
            return self._refuse(f"its seq is {event.seq} where {self._at.next_seq} is due")
        if number != len(self._pending) + 1 or number > size or (self._pending and size != self._batch_size):
            return self._refuse(f"it is line {number} of {size} where line {len(self._pending) + 1} of a batch is due")
        self._pending.append(event)
        self._batch_size = size
        self._advance(line, event.seq + 1)
        if number == size:
            out += self._pending
            self._pending = []
            self.good = self._at
        return None

    def _refuse(self, why: str) -> None:
        self.wrong = Wrong(self._at.offset, self._at.next_seq, why)
