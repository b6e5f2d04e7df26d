"""Whose fault an `OSError` is: the port's, or something that another port would meet as well.

Rule: only "somebody else sits on the number" speaks against a port. No permission, an address that this host does not have, a
certificate that cannot be read: with such trouble every port would fail, and blocking them one after the other empties a pool.
"""

from __future__ import annotations

import errno

__all__ = ["blocks"]


def blocks(error: OSError) -> bool:
    """Whether `error`, met while listening on a port, is evidence that the port is in use by somebody else."""
    return error.errno == errno.EADDRINUSE
