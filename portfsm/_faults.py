"""Whose fault it is when a port cannot be bound: the port's, or the machine's and the caller's."""

from __future__ import annotations

import errno

__all__ = ["blocks"]


def blocks(error: OSError) -> bool:
    """Whether `error` says that somebody else sits on the port, so that the next one may do.

    A right that is missing, an address of another machine or a limit of open files is no port's fault: every other
    port would fail in the same way.
    """
    return error.errno == errno.EADDRINUSE
