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
_NICE_S = (*(part * scale for scale in (0.001, 0.01, 0.1, 1) for part in (1, 2, 3, 5)), 10, 15, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


def step_for(samples: Sequence[list[Piece]], share: float, most_ns: int) -> tuple[int, float]:
    """The least step that leaves at most that share of the pieces of the sampled lives, up to `most_ns`; and the share that it leaves."""
    total = sum(map(len, samples)) or 1
    step_ns, left = 0, 1.0
    for nice_s in _NICE_S:
        if left <= share or nice_s * 1e9 > most_ns:
            break
        step_ns = round(nice_s * 1e9)
        left = sum(len(condensed(pieces, step_ns)) for pieces in samples) / total
    return step_ns, left


def condensed(pieces: list[Piece], step_ns: int) -> list[Piece]:
    """The life with the spans shorter than the step drawn together, those of each step of the clock as one; all as they are for step 0."""
    if not step_ns:
        return pieces
    found: list[Piece] = []
    run: list[Piece] = []
    for piece in pieces:
        short = piece.end - piece.start < step_ns
        if run and (not short or piece.start // step_ns != run[0].start // step_ns):
            found += _drawn(run)
            run = []
        if short:
            run.append(piece)
        else:
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
