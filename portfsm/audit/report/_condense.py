"""Lives made shorter, in the open: short spans that follow one another become one piece that says how many they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._pool import ALLOCATED
from portfsm.audit.report._columns import Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["condensed", "step_for"]

_FEWEST = 3
"""Spans that are drawn together: two are no longer than what would stand for them."""
_NICE_S = (*(part * scale for scale in (0.001, 0.01, 0.1, 1) for part in (1, 2, 5)), 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


def step_for(lasted_ns: Sequence[int], ports: int, budget: int) -> int:
    """How short a span may be to stay on its own, if at most about `budget` pieces are to be left; 0 when all may stay."""
    if len(lasted_ns) <= budget:
        return 0
    # Between two spans that stay lies at most one piece of those that do not.
    stay = max(0, (budget - ports) // 2)
    least = sorted(lasted_ns, reverse=True)[stay]
    return next((round(nice * 1e9) for nice in _NICE_S if nice * 1e9 > least), least + 1)


def condensed(pieces: list[Piece], step_ns: int) -> list[Piece]:
    """The life with all runs of spans shorter than the step drawn together."""
    if not step_ns:
        return pieces
    found: list[Piece] = []
    run: list[Piece] = []
    for piece in pieces:
        if piece.end - piece.start < step_ns:
            run.append(piece)
            continue
        found += _drawn(run)
        run = []
        found.append(piece)
    return found + _drawn(run)


def _drawn(run: list[Piece]) -> list[Piece]:
    """One piece in the state in which the port was longest."""
    if len(run) < _FEWEST:
        return run
    spent = [0, 0, 0, 0]
    for piece in run:
        spent[piece.state] += piece.end - piece.start
    state = max(range(4), key=spent.__getitem__)
    leases = sum(piece.state == ALLOCATED for piece in run)
    return [Piece(run[0].start, run[-1].end, state, run[0].seq, 0, 0, 0, leases, len(run))]
