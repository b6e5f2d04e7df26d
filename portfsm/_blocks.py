"""Searching a line of ports for blocks: `count` of them at one distance, from a number that is a multiple of another.

A line is bytes, one a number, 1 where it will do. Whole lines are compared at once as one long integer, shifted and masked
(doubling the stretch each time), so a search takes as long in a full pool as in an empty one and never looks port by port.
"""

from __future__ import annotations

import sys
from array import array

__all__ = ["aligned", "both", "easiest", "either", "inverted", "starts"]

_INVERT = bytes((1,)) + bytes(255)
_HARD = 8
"""What a port that no time frees weighs in the lane's second byte: more than all others of a group."""


def both(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """1 where both lines have it; they are equally long."""
    return (int.from_bytes(one, "little") & int.from_bytes(other, "little")).to_bytes(len(one), "little")


def either(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """1 where one of the lines has it; they are equally long."""
    return (int.from_bytes(one, "little") | int.from_bytes(other, "little")).to_bytes(len(one), "little")


def inverted(line: bytes | bytearray) -> bytes:
    """1 where the line has none."""
    return bytes(line.translate(_INVERT))


def starts(line: bytes | bytearray, count: int, stride: int) -> bytes:
    """1 at each place from which `count` places at distance `stride` will all do."""
    found, reach = int.from_bytes(line, "little"), 1
    while reach < count and found:
        step = min(reach, count - reach)
        found &= found >> (8 * stride * step)
        reach += step
    return found.to_bytes(len(line), "little")


def aligned(line: bytes, first: int, align: int) -> bytes:
    """`line`, whose first place is number `first`, with nothing but multiples of `align` left."""
    if align == 1:
        return line
    kept = bytearray(len(line))
    kept[-first % align :: align] = line[-first % align :: align]
    return bytes(kept)


def easiest(soon: bytes | bytearray, hard: bytes | bytearray, candidates: bytes, count: int, stride: int) -> int:
    """The candidate with the fewest `hard` places in its block, then the fewest `soon` ones; -1 when there is no candidate.

    `candidates` has 1 at each place where a block may begin; at most 1,024 places of either kind are in one.
    """
    size = len(candidates)
    wide = bytearray(4 * size)  # four bytes a place, so that sums have room
    wide[0::4] = soon
    wide[1::4] = hard.translate(bytes((0, _HARD)) + bytes(254))
    total = int.from_bytes(wide, "little")
    total = _sums(total, count, 32 * stride)
    barred = bytearray(4 * size)
    barred[3::4] = inverted(candidates)
    found = array("I", (total + int.from_bytes(barred, "little")).to_bytes(4 * size, "little"))
    if sys.byteorder == "big":
        found.byteswap()
    best = min(found, default=1 << 24)
    return found.index(best) if best < 1 << 24 else -1


def _sums(lanes: int, count: int, width: int) -> int:
    """For each lane the sum of `count` lanes at distance `width` bits from it."""
    total, done, size = 0, 0, 1
    while True:
        if count & size:
            total += lanes >> (width * done)
            done += size
        if done == count:
            return total
        lanes += lanes >> (width * size)
        size *= 2
