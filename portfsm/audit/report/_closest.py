"""Ports that went from one holder to a stranger, the closest first: was any of them reused too early."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from portfsm._pool import ALLOCATED, QUARANTINED

if TYPE_CHECKING:
    from portfsm.audit.report._columns import Piece, PlaceFound

__all__ = ["Change", "Closest"]


class Change(NamedTuple):
    """A port went to somebody for whom its former holder's traffic was not meant. Times in ns, texts as numbers."""

    gap_ns: int
    came_ns: int
    """When the next lease began."""
    node: str
    pool: str
    port: int
    former: tuple[int, int]
    """Owner and service."""
    next: tuple[int, int]
    note: int
    """What ended the time between them."""


class Closest:
    """Counts all of them and keeps the closest."""

    def __init__(self, keep: int, begins_ns: int) -> None:
        self.total = 0
        self._keep, self._begins_ns = keep, begins_ns
        self._found: list[Change] = []

    def add(self, place: PlaceFound, port: int, pieces: list[Piece]) -> None:
        """Look at a port's life."""
        former: Piece | None = None
        left = 0
        between: Piece | None = None
        for piece in pieces:
            if piece.state == ALLOCATED:
                if former is not None and _strangers(former, piece) and piece.start >= self._begins_ns:
                    note = piece.note or (between.note if between is not None else 0)
                    change = Change(piece.start - left, piece.start, place.node, place.pool, port, former[4:6], piece[4:6], note)
                    self._count(change)
                former, left = piece, piece.end
            elif former is None and piece.state == QUARANTINED and piece.owner:
                former, left = piece, piece.start  # its lease ended before the window
            between = piece

    def _count(self, change: Change) -> None:
        self.total += 1
        self._found.append(change)
        if len(self._found) > 4 * self._keep:
            self._found = self.kept()

    def kept(self) -> list[Change]:
        """The closest, closest first."""
        return sorted(self._found)[: self._keep]


def _strangers(former: Piece, piece: Piece) -> bool:
    """Whether traffic for the one would go astray at the other: another owner, and another service or none."""
    return former.owner != piece.owner and (not piece.service or former.service != piece.service)
