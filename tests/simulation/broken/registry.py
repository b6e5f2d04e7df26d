"""How a safeguard is taken off, and the list of those that can be."""

from __future__ import annotations

from contextlib import nullcontext
from unittest import mock

BREAKS = {}
"""name -> a function that returns the context."""
SHARED = {}
"""The same for those that only stories of a shared log can notice."""


def breaks(function):
    BREAKS[function.__name__] = function
    return function


def breaks_shared(function):
    SHARED[function.__name__] = function
    return function


def broken(name):
    """The context in which the safeguard `name` is off; with no name, none is."""
    return {**BREAKS, **SHARED}[name]() if name else nullcontext()


def replaced(place, name, make):
    """`make` gets the function that stands there and returns another."""
    return mock.patch.object(place, name, make(getattr(place, name)))


def nothing(*_, **__):
    return None
