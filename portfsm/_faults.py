"""Whose fault an `OSError` is: the port's, or something that another port would meet as well.

Rule: only "somebody else sits on the number" speaks against a port. No permission, an address that this host does not have, a
certificate that cannot be read: with such trouble every port would fail, and blocking them one after the other empties a pool.
"""

from __future__ import annotations

import errno
from typing import overload

from portfsm.errors import InvalidValue

__all__ = ["blocks", "finding"]

_TEXT_BYTES = 1024

_ADVICE = {
    errno.EACCES: "this process may not listen there: give it the permission, or the pool other ports",
    errno.EPERM: "this process may not listen there: give it the permission",
    errno.EADDRNOTAVAIL: "this host does not have that address: correct the host",
    errno.EMFILE: "this process has too many files open: raise its limit",
    errno.ENFILE: "this host has too many files open: raise its limit",
}


def blocks(error: OSError) -> bool:
    """Whether `error`, met while listening on a port, is evidence that the port is in use by somebody else."""
    return error.errno == errno.EADDRINUSE


@overload
def finding(name: str, value: str | OSError) -> tuple[str, int]: ...
@overload
def finding(name: str, value: str | OSError | None) -> tuple[str | None, int]: ...
def finding(name: str, value: str | OSError | None) -> tuple[str | None, int]:
    """What to record of a reason to block a port: its text and, of an `OSError`, its number.

    Raises `InvalidValue` for an error that is not the port's fault; `name` is the parameter it was given for.
    """
    if not isinstance(value, OSError):
        return value, 0
    if not blocks(value):
        advice = _ADVICE.get(value.errno or 0, "mend the cause")
        raise InvalidValue(
            f"{name}={value!r} is not the port's fault, and any other port would meet it, too: {advice}, and do not block the port",
            name=name, value=value,
        )  # fmt: skip
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value))
    return text.encode()[:_TEXT_BYTES].decode(errors="ignore"), value.errno or 0
