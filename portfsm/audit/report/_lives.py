"""The lives of all ports, also of those that were held because the history of their pool was lost and that have no event of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._pool import FREE, QUARANTINED, WHY_LOST
from portfsm.audit.report._columns import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from portfsm.audit.report._collect import Found
    from portfsm.audit.report._columns import PlaceFound

__all__ = ["Life", "lives"]

Life = tuple["PlaceFound", int, list[Piece]]
"""Place, port, and what the port was from when to when."""


def lives(found: Found, wanted: Callable[[PlaceFound], bool] = lambda _: True) -> Iterator[Life]:
    """Every port that has a life in the window, of the wanted places."""
    why = found.number("notes", WHY_LOST)
    for row, pieces in found.spans.lives(lambda row: wanted(found.rows[row][0])):
        place, port = found.rows[row]
        yield place, port, with_lost(place, port, pieces, found.ends_ns, why) if place.lost else pieces
    for place in filter(wanted, found.places.values()):
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
        for first, last in place.inside(port):
            start, stop = max(since, first), min((end for end in (until, last) if end is not None), default=None)
            if stop is None or start < stop:
                pieces = _held(pieces, since, start, stop, ends_ns, why)
    return pieces


def _held(pieces: list[Piece], since: int, start: int, stop: int | None, ends_ns: int, why: int) -> list[Piece]:
    """Held from `start` to `stop` (None: to the end), or to its next event, if it was free and had been so since before `since`."""
    before = [piece for piece in pieces if piece.start <= start]
    after = pieces[len(before) :]
    if before and not _untold(before[-1], since):
        return pieces
    if before:
        freed = before.pop()
        before += [freed._replace(end=start)] if freed.start < start else []
    goes_on = after[0].start if after else ends_ns
    if stop is None or (after and stop >= goes_on):
        held = [Piece(start, goes_on, QUARANTINED, 0, 0, 0, why)]
    else:
        held = [Piece(start, stop, QUARANTINED, 0, 0, 0, why), Piece(stop, goes_on, FREE, 0, 0, 0, 0)]
    return before + held + after


def _untold(piece: Piece, since: int) -> bool:
    """Whether no event from `since` on tells that the port is free: it was free before, or only another hold like this ended then."""
    return piece.state == FREE and (piece.start < since or (piece.start == since and not piece.seq))
