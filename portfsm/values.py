"""What calls return: frozen values, times in UTC nanoseconds, equal by value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from portfsm.errors import InvalidValue

if TYPE_CHECKING:
    from portfsm.states import PortState

__all__ = ["Head", "Lease", "PoolStatistics", "PortView"]


@attrs.frozen(slots=False)  # built on every allocate, and a fifth faster without slots
class Lease:
    """One holding of a port by an owner."""

    pool: str
    node: str
    port: int
    owner: str
    service: str
    token: int
    """The `seq` of the event that began it: strictly grows, so it fences late commands."""
    since_ns: int
    expires_ns: int | None = attrs.field(default=None, eq=False)
    """When it ends unless renewed, UTC ns; None for a lease without a ttl. No part of equality: a renewed lease is the same lease."""


@attrs.frozen
class PortView:
    """One port as it was recorded last."""

    node: str
    pool: str
    port: int
    state: PortState
    owner: str
    """Who holds it, or who held it last while QUARANTINED or BLOCKED; empty when FREE."""
    service: str
    token: int
    """The token of its last lease; 0 when it never had one."""
    since: int | None
    """When it entered this state; None when it was never used."""
    until: int | None
    """When the hold or the block ends; None when nothing ends by time. May lie in the past: time frees nothing."""
    reason: str
    errno: int | None = None
    """What the system said of a BLOCKED port, as in `OSError.errno`; None when nothing."""


@attrs.frozen
class PoolStatistics:
    """Counts over one pool or many. `size = free + allocated + quarantined + blocked`; `retired` is apart.

    A quarantined port is never counted as free; see `PortManager.forecast` for when it will be.
    """

    size: int
    free: int
    allocated: int
    quarantined: int
    blocked: int
    retired: int
    """Ports outside the present ranges that are still held."""
    kept: int = 0
    """Those of the quarantined that wait for proxies to let go: no time brings them back."""
    next_free_at: int | None = None
    """When the next port comes back by time alone (UTC ns, in the past if that is still to be noticed); None when none does."""


@attrs.frozen
class Head:
    """Names a whole history: log id, last seq, digest. As text: `LOGID:SEQ:HEX`."""

    log_id: str
    seq: int
    digest: str

    def __str__(self) -> str:
        return f"{self.log_id}:{self.seq}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head that `text` names. Raises `InvalidValue`."""
        log_id, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
        seq, _, digest = rest.partition(":")
        if not (log_id and seq.isascii() and seq.isdigit() and len(seq) < 20 and digest):  # noqa: PLR2004  (longer than any number of 64 bits)
            raise InvalidValue(f"a head is LOGID:SEQ:HEX as `portfsm head` prints it, not {text!r}", name="head", value=text)
        return cls(log_id, int(seq), digest)
