"""States near any moment of a log, so that a question about it need not replay the log from its beginning.

The states are the snapshots that a writer leaves over the log. They are believed as opening believes them: intact, of this log and no
newer than it; `portfsm verify` holds each against the events. Where there is none, the beginning will do.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from portfsm._dump import load
from portfsm._ledger import Ledger
from portfsm._recovery import Place
from portfsm.errors import JournalCorrupt, JournalError
from portfsm.journals import _snapshots
from portfsm.journals._disk import unreadable
from portfsm.journals._reader import read_batches, settled
from portfsm.journals._segments import ending_of
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from portfsm.events import Event
    from portfsm.journals._disk import Directory
    from portfsm.journals._segments import Segment

__all__ = ["NoPast", "Past"]

_ODD = (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError)
"""What a file that is no snapshot raises, or one that was thinned out just now."""
_BATCH = 512
_decode = msgspec.json.Decoder().decode


class Past:
    """The states that were kept of one log in a directory, as of when this is made. Takes no lock and changes nothing."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        try:
            segments = self._segments = settled(directory)
            self.log_id = segments[0].header.log if segments else ""
            """Names the log; empty while it has no event."""
            kept = _snapshots.seqs_in(directory) if segments else []
            certain = _certain(segments)
            self._last_seq = certain if max(kept, default=0) <= certain else _last_seq(directory, segments)
        except OSError as error:
            raise unreadable(directory.path, error, "read the log") from error
        self.seqs = tuple(seq for seq in kept if seq <= self._last_seq)
        """As of which events there may be a state, ascending."""

    def last_seq(self) -> int:
        """The last event that can be believed; 0 when there is none, or none can be told of without reading them all."""
        return _last_seq(self._directory, self._segments) if self._segments else 0

    def state(self, seq: int) -> Ledger | None:
        """The state kept as of `seq`; None when it cannot be believed."""
        ledger = Ledger()
        try:
            load(ledger, _snapshots.read(self._directory, self.log_id, seq, self._last_seq))
        except _ODD:
            return None
        return ledger if ledger.seq == seq else None

    def nearest(self, *, seq: int | None = None, ts: int | None = None) -> Ledger:
        """The latest state that is not after the moment (the end, without one); an empty one where none was kept."""
        count = len(self.seqs)
        if seq is not None:
            count = bisect_right(self.seqs, seq)
        if ts is not None:
            count = min(count, bisect_right(self.seqs, ts, key=self._ts_of))
        for each in reversed(self.seqs[:count]):
            ledger = self.state(each)
            if ledger is not None and (ts is None or ledger.ts <= ts):
                return ledger
        return Ledger()

    def batches(self, after: int) -> Iterator[list[Event]]:
        """The events with `seq > after` in lists, verified as `read_journal` does."""
        return read_batches(self._directory, after)

    def events(self, after: int) -> Iterator[Event]:
        """The same, one by one."""
        return chain.from_iterable(self.batches(after))

    def opening(self, epoch: int) -> Event | None:
        """The event that began an epoch; None when the log has no such event where it should be."""
        first = next((segment for segment in self._segments if segment.header.epoch == epoch), None)
        event = next(self.events(first.header.base), None) if first is not None else None
        return event if event is not None and event.kind is EventKind.OPENED else None

    def _ts_of(self, seq: int) -> int:
        """What a snapshot says of its time, unproven; the beginning of time when it says nothing."""
        lines = b""
        try:
            for chunk in self._directory.chunks(_snapshots.name_of(seq)):
                lines += chunk
                if lines.count(b"\n") > 1:
                    break
            return int(_decode(lines.split(b"\n")[1])[2])
        except _ODD:
            return 0


class NoPast(Past):
    """A log beside which no states are kept that could be read without its lock: every question begins with its first event."""

    def __init__(self, read: Callable[[int], Iterator[Event]]) -> None:
        self.seqs = ()
        self.log_id = ""
        self._segments = []
        self._read = read

    def batches(self, after: int) -> Iterator[list[Event]]:
        """The events with `seq > after` in lists."""
        part: list[Event] = []
        try:
            for event in self._read(after):
                part.append(event)
                if len(part) == _BATCH:
                    whole, part = part, []
                    yield whole
        except JournalError:  # those before damage come out before it is raised
            yield part
            raise
        yield part


def _certain(segments: list[Segment]) -> int:
    """An event that is there without a look into the last segment, unless that was sealed: then the last one."""
    last = segments[-1] if segments else None
    return 0 if last is None else last.seal.last if last.seal is not None else last.header.base


def _last_seq(directory: Directory, segments: list[Segment]) -> int:
    """The last event that can be believed."""
    try:
        return _certain(segments) if segments[-1].seal is not None else ending_of(directory, segments[-1], Place.LAST).last_seq
    except JournalCorrupt:  # whoever reads on is told
        return segments[-1].header.base
