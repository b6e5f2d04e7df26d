"""The lives of all ports, also of those that were held because the history of their pool was lost and that have no event of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._pool import FREE, QUARANTINED, WHY_LOST
from portfsm.audit.report._columns import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.audit.report._collect import Found
    from portfsm.audit.report._columns import PlaceFound

__all__ = ["Life", "lives"]

Life = tuple["PlaceFound", int, list[Piece]]
"""Place, port, and what the port was from when to when."""


def lives(found: Found) -> Iterator[Life]:
    """Every port that has a life in the window."""
    why = found.number("notes", WHY_LOST)
    for row, pieces in found.spans.lives():
        place, port = found.rows[row]
        yield place, port, with_lost(place, port, pieces, found.ends_ns, why) if place.lost else pieces
    for place in found.places.values():
        for port in _without_events(place):
            pieces = with_lost(place, port, [], found.ends_ns, why)
            if pieces:
                yield place, port, pieces


def _without_events(place: PlaceFound) -> Iterator[int]:
    if place.lost:
        numbers = {port for _, ranges in place.ranges for piece in ranges for port in piece}
        yield from sorted(numbers - place.rows.keys())


def with_lost(place: PlaceFound, port: int, pieces: list[Piece], ends_ns: int, why: int) -> list[Piece]:
    """The life with the holds that no event of the port tells of."""
    for since, until in place.lost:
        for first, last in place.inside(port, ends_ns):
            start, stop = max(since, first), ends_ns if until is None else until
            pieces = _held(pieces, since, start, min(stop, last), ends_ns, why)
    return pieces


def _held(pieces: list[Piece], since: int, start: int, stop: int, ends_ns: int, why: int) -> list[Piece]:
    """Held from `start` to `stop`, or to its next event, if it was free and had been so since before `since`."""
    before = [piece for piece in pieces if piece.start <= start]
    after = pieces[len(before) :]
    if start >= stop or (before and (before[-1].state != FREE or before[-1].start >= since)):
        return pieces
    if before:
        before[-1] = before[-1]._replace(end=start)
    goes_on = after[0].start if after else ends_ns
    held = [Piece(start, min(stop, goes_on), QUARANTINED, 0, 0, 0, why)]
    if stop < goes_on:
        held.append(Piece(stop, goes_on, FREE, 0, 0, 0, 0))
    return before + held + after
