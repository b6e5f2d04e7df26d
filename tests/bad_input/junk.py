"""What no call may take, and what a log holds byte by byte."""

from __future__ import annotations

import math
from pathlib import Path

from portfsm import PoolSpec

HTTP = PoolSpec("http", ports="30000-30003", hold_s=10.0)
NAN, INF = math.nan, math.inf

CONTROLS = [
    *("\x00", "\x07", "\t", "\n", "\r", "\x1b[2J", "\x1f", "\x7f"),  # C0 and DEL
    *("\x80", "\x85", "\x9b", "\x9f"),  # C1: NEL and CSI among them
    *("\u2028", "\u2029"),  # lines that some terminals and JSON readers break
    *("\u202a", "\u202e", "\u2066", "\u2069", "\u200e", "\u200f", "\u061c"),  # text that shows in another order than it is
    *("\ud800", "\udfff"),  # half a character: no UTF-8 has it
]
NO_PORTS = [-1, 0, 65_536, 10**30, True, False, 30_000.0, NAN, "30000", b"30000", [30_000], object()]
NO_SECONDS = [-1, -1e-9, NAN, INF, -INF, 1e300, True, "10", b"1", [], object()]
NO_TEXTS = [5, 1.5, True, b"name", ["name"], {"a": 1}, object()]
TOO_LONG = ["x" * 257, "ä" * 129, "€" * 86, "🙂" * 65]


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def named(value: object) -> str:
    """The value as an id of a test."""
    return f"{type(value).__name__}-{str(value)[:12]!a}".replace("object at", "")[:28]
