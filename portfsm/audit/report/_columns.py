"""Spans as columns: some thirty bytes each, where objects would be three hundred. A million of them is what a page may be made from."""

from __future__ import annotations

from array import array
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from portfsm._pool import Pool

__all__ = ["Mark", "Piece", "PlaceFound", "Spans", "Strings"]


class Strings:
    """Each text once, with a number. Number 0 is the empty text."""

    def __init__(self) -> None:
        self._numbers = {"": 0}

    def number(self, text: str) -> int:
        """The number of `text`, a new one if it is new."""
        return self._numbers.setdefault(text, len(self._numbers))

    def texts(self) -> list[str]:
        """All of them in the order of their numbers."""
        return list(self._numbers)


class Piece(NamedTuple):
    """A port in one state for a while. Times in UTC ns; texts as numbers."""

    start: int
    end: int
    state: int
    seq: int
    """Of the event that began it; 0 when that is not known."""
    owner: int
    """Who holds it, or held it last."""
    service: int
    note: int
    """Why it began, for people."""
    leases: int = 0
    """How many leases are drawn together in it; 0 unless it stands for several spans."""
    changes: int = 0
    """How many spans are."""


class Mark(NamedTuple):
    """Something that happened within a span without ending it: `withdrawn`, `held`."""

    start: int
    """Of the span that it happened in."""
    ts: int
    note: int


class Spans:
    """Pieces in any order of ports, those of one port in the order of time."""

    def __init__(self) -> None:
        self.row = array("l")
        self._start, self._end = array("q"), array("q")
        self._state = bytearray()
        self._seq = array("q")
        self._owner, self._service, self._note = array("l"), array("l"), array("l")
        self._order = array("l")

    def add(self, row: int, start: int, end: int, state: int, seq: int, owner: int, service: int, note: int) -> None:
        """Keep the next piece of the port with this row, its fields as those of `Piece`."""
        self.row.append(row)
        self._start.append(start)
        self._end.append(end)
        self._state.append(state)
        self._seq.append(seq)
        self._owner.append(owner)
        self._service.append(service)
        self._note.append(note)

    def lives(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, list[Piece]]]:
        """Each wanted row with all its pieces, oldest first."""
        if len(self._order) != len(self.row):
            self._order = array("l", sorted(range(len(self.row)), key=self.row.__getitem__))
        order = self._order
        start, end, state, seq, owner, service, note = (
            self._start,
            self._end,
            self._state,
            self._seq,
            self._owner,
            self._service,
            self._note,
        )
        for row, group in groupby(order, self.row.__getitem__):
            if wanted(row):
                yield row, [Piece(start[n], end[n], state[n], seq[n], owner[n], service[n], note[n]) for n in group]

    def __len__(self) -> int:
        return len(self.row)


Ranges = tuple[range, ...]


@attrs.define
class PlaceFound:
    """A pool on a node, as far as the window tells."""

    node: str
    pool: str
    since: int
    """When it was used first, or the window begins; UTC ns."""
    rows: dict[int, int] = attrs.field(factory=dict)
    """Port to row, for ports that have a life."""
    ranges: list[tuple[int, Ranges]] = attrs.field(factory=list)
    """The pool's ranges, each from a moment on."""
    lost: list[tuple[int, int | None]] = attrs.field(factory=list)
    """From when to when ports without a history of their own were held, because it was lost; None while that lasts."""

    def follow(self, pool: Pool, ts: int) -> None:
        """Something happened that concerns no port: note it if the pool's ranges or its lost history changed by it."""
        if pool.spec.ports != self.ranges[-1][1]:
            self.ranges.append((ts, pool.spec.ports))
        last = self.lost[-1] if self.lost else None
        if last is not None and last[1] is None and (pool.lost is None or pool.lost.since > last[0]):
            self.lost[-1] = last = (last[0], ts)
        if pool.lost is not None and (last is None or last[1] is not None):
            self.lost.append((pool.lost.since, None))

    def inside(self, port: int) -> list[tuple[int, int | None]]:
        """From when to when `port` belonged to the pool; None when it did so at the end."""
        found: list[tuple[int, int | None]] = []
        edges = [*(start for start, _ in self.ranges[1:]), None]
        for (start, ranges), stop in zip(self.ranges, edges, strict=True):
            if start == stop or not any(port in piece for piece in ranges):
                continue
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((start, stop))
        return found
