"""What a mutant is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    name: str
    file: str
    """Inside the package."""
    old: str
    new: str
    tests: tuple[str, ...]
    """What pytest is told to run, those first that are expected to fail."""
