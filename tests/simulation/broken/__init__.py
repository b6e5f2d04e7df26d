"""The library with one safeguard off at a time. The simulation must notice each of them, or it proves nothing.

Rule: a break replaces one function of the library, while the context lasts, by what a plausible mistake would have made of it.
`python -m tests.simulation --broken NAME` shows what comes of it.
"""

from . import in_engine, in_rules, on_disk, on_server
from .registry import BREAKS, SHARED, broken

__all__ = ["BREAKS", "SHARED", "broken", "in_engine", "in_rules", "on_disk", "on_server"]
