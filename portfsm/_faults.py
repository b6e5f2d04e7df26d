"""Whose fault an `OSError` is: the port's, or something that another port would meet as well.

Rule: only "somebody else sits on the number" speaks against a port. No permission, an address that this host does not have, a
certificate that cannot be read: with such trouble every port would fail, and blocking them one after the other empties a pool.
"""

from __future__ import annotations

import errno
from typing import overload

from portfsm.errors import InvalidValue

__all__ = ["blocks", "finding", "remedy"]

_TEXT_BYTES = 1024

_REMEDIES = {
    errno.EACCES: "below net.ipv4.ip_unprivileged_port_start it takes the capability CAP_NET_BIND_SERVICE: grant it, or take a pool above",
    errno.EPERM: "a security policy of this machine forbids it: allow it, or take another pool",
    errno.EADDRNOTAVAIL: "{host} is no address of this machine: name one of its own, or 0.0.0.0 or :: for all",
    errno.EAFNOSUPPORT: "this machine does not speak IPv6: name an IPv4 address",
    errno.EINVAL: "a link-local address needs its interface, as in fe80::1%eth0",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
}


def remedy(error: OSError, *, host: str = "the host that was named") -> str:
    """What to do about an error that is not the port's fault, met while listening on `host`."""
    return _REMEDIES.get(error.errno or 0, "see to the cause").format(host=host)


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
        raise InvalidValue(
            f"{name}={value!r} is not the port's fault, and any other port would meet it, too: do not block the port; {remedy(value)}",
            name=name, value=value,
        )  # fmt: skip
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value))
    return text.encode()[:_TEXT_BYTES].decode(errors="ignore"), value.errno or 0
