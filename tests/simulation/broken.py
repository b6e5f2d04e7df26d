"""The library with one safeguard off at a time. The simulation must notice each of them, or it proves nothing.

Rule: a break replaces one function of the library, while the context lasts, by what a plausible mistake would have made of it.
"""

from contextlib import contextmanager

BREAKS = {}
EXPECTED = {}


@contextmanager
def broken(name):
    yield
