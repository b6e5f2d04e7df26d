"""How full a pool on a node was: means over steps of equal length, and the episodes in which it had no port to give, which are exact."""

from __future__ import annotations

from itertools import accumulate, groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import attrs

from portfsm._pool import ALLOCATED, BLOCKED, FREE, QUARANTINED

if TYPE_CHECKING:
    from portfsm.audit.report._columns import Piece, PlaceFound

__all__ = ["Grid", "Occupancy", "grid"]

_HELD = (ALLOCATED, QUARANTINED, BLOCKED)


@attrs.frozen
class Grid:
    """A window in steps of equal length; the last may reach beyond its end. Times in UTC ns."""

    begins_ns: int
    ends_ns: int
    step_ns: int
    count: int


def grid(begins_ns: int, ends_ns: int, steps: int) -> Grid:
    """The window in at most so many steps."""
    length = max(1, ends_ns - begins_ns)
    step = -(-length // steps)
    return Grid(begins_ns, max(ends_ns, begins_ns + 1), step, -(-length // step))


class Occupancy:
    """Of one pool on one node, from the lives of its ports."""

    def __init__(self, place: PlaceFound, steps: Grid) -> None:
        self._place, self._grid = place, steps
        self._parts = {state: [0] * (steps.count + 1) for state in _HELD}
        """Time spent in steps that were not spent whole in that state."""
        self._whole = {state: [0] * (steps.count + 2) for state in _HELD}
        """By how much more ports a step is spent whole in that state than the one before."""
        self._turns: list[int] = []
        """Twice the time at which a port stopped being FREE; and one more for each that began to be."""

    def add(self, port: int, pieces: list[Piece]) -> None:
        """Take in a port's life, as far as it belonged to the pool."""
        steps = self._grid
        inside = self._place.inside(port)
        for piece in pieces:
            if piece.state == FREE:
                continue
            for first, last in inside:
                lasts = piece is pieces[-1] and last is None
                start = max(piece.start, first, steps.begins_ns)
                end = steps.ends_ns if lasts else min(piece.end, piece.end if last is None else last)
                if start < end or lasts:
                    self._turns += [2 * start] if lasts else [2 * start, 2 * end + 1]
                    self._spent(piece.state, start, end)

    def _spent(self, state: int, start: int, end: int) -> None:
        steps = self._grid
        first, into = divmod(start - steps.begins_ns, steps.step_ns)
        last, beyond = divmod(end - steps.begins_ns, steps.step_ns)
        parts = self._parts[state]
        if first == last:
            parts[first] += end - start
            return
        parts[first] += steps.step_ns - into
        parts[last] += beyond
        whole = self._whole[state]
        whole[first + 1] += 1
        whole[last] -= 1

    def means(self) -> dict[int, list[float]]:
        """State code to how many ports were in it, on the mean of each step."""
        steps = self._grid
        lengths = [steps.step_ns] * (steps.count - 1) + [steps.ends_ns - steps.begins_ns - (steps.count - 1) * steps.step_ns]
        return {
            state: [part / length + whole for part, whole, length in zip(self._parts[state], accumulate(self._whole[state]), lengths)]  # noqa: B905
            for state in _HELD
        }

    def exhausted(self) -> tuple[list[tuple[int, int | None]], int]:
        """The episodes without a FREE port, the last with None if it lasts; and the fewest ports that were FREE at any moment."""
        first, *later = self._place.ranges
        size = free = least = sum(map(len, first[1]))
        turns = [(turn // 2, 1 if turn % 2 else -1) for turn in self._turns]
        for start, ranges in later:
            turns.append((start, sum(map(len, ranges)) - size))
            size += turns[-1][1]
        episodes: list[tuple[int, int | None]] = []
        began: int | None = None
        for ts, several in groupby(sorted(turns), itemgetter(0)):
            free += sum(change for _, change in several)
            least = min(least, free)
            if free <= 0 and began is None:
                began = ts
            elif free > 0 and began is not None:
                episodes.append((began, ts))
                began = None
        return [*episodes, (began, None)] if began is not None else episodes, least
