"""What can be asked of a ledger: one frozen value per call, with that call's parameters.

`decide(ledger, command, now_ns=...)` turns a command into events or raises `CommandRejected`. A command
checks its own arguments when it is made (`InvalidValue`), so a decision only meets usable ones.
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from portfsm.errors import InvalidValue
from portfsm.groups import Request, check_group
from portfsm.specs import PoolSpec, check_port, check_seconds, check_text, check_ttl
from portfsm.values import Lease

__all__ = [
    "Adopt",
    "Allocate",
    "AllocateGroup",
    "Block",
    "Clear",
    "Close",
    "Command",
    "DefinePool",
    "Free",
    "Hold",
    "Join",
    "Leave",
    "Open",
    "Release",
    "ReleaseOwner",
    "Renew",
    "Sweep",
    "Unblock",
    "Withdraw",
]

REASON_LIMIT = 1024
"""Free text for people may be longer than a name, in UTF-8 bytes."""


def _check_reason(value: str, *, required: bool, name: str = "reason") -> None:
    check_text(name, value, required=required, limit=REASON_LIMIT)


def check_lease(value: object) -> None:
    """Raise `InvalidValue` unless `value` is a lease."""
    if not isinstance(value, Lease):
        raise InvalidValue(f"lease must be what allocate() or adopt() returned, not {value!r}", name="lease", value=value)


@attrs.frozen(slots=False)  # built on every call, and a fifth faster without slots
class Allocate:
    """Give `owner` a port of `pool` on `node`: the one it holds, or one it or its `service` held, or a free one."""

    pool: str
    owner: str = attrs.field(kw_only=True)
    node: str = attrs.field(kw_only=True, default="")
    service: str = attrs.field(kw_only=True, default="")
    port: int | None = attrs.field(kw_only=True, default=None)
    ttl_s: float | None = attrs.field(kw_only=True, default=None)
    """How long the lease lasts after each renewal, in seconds; None for ever."""

    def __attrs_post_init__(self) -> None:
        if type(self.pool) is not str:  # a name in any other shape is looked up and not found
            check_text("pool", self.pool)
        check_text("owner", self.owner, required=True)
        if self.node != "":
            check_text("node", self.node)
        if self.service != "":
            check_text("service", self.service)
        if self.port is not None:
            check_port(self.port)
        if self.ttl_s is not None:
            check_ttl(self.ttl_s)

    @property
    def ttl_ns(self) -> int:
        """`ttl_s` in nanoseconds, rounded up; 0 for no end."""
        return 0 if self.ttl_s is None else math.ceil(self.ttl_s * 1e9)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The one (node, pool) that it is about."""
        return ((self.node, self.pool),)


@attrs.frozen
class AllocateGroup:
    """Give all of these requests their ports, or none of them any; those they hold already stay."""

    requests: tuple[Request, ...] = attrs.field(converter=check_group)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """Each (node, pool) that it is about, once."""
        return tuple(dict.fromkeys(request.place for request in self.requests))


@attrs.frozen(slots=False)  # as Allocate
class Release:
    """End `lease`. With `block`, send the port to BLOCKED instead, for `for_s` seconds or until unblocked."""

    lease: Lease
    block: str | None = attrs.field(kw_only=True, default=None)
    for_s: float | None = attrs.field(kw_only=True, default=None)
    cause: str = attrs.field(kw_only=True, default="released")
    evidence: str = attrs.field(kw_only=True, default="")
    """That every proxy has let go since the port was withdrawn: the port needs no hold. Proxies and generations, for people."""
    errno: int = attrs.field(kw_only=True, default=0)
    """With `block`: what the system said, if it did. Such a block has the cause `address-in-use`, others `holder`."""

    def __attrs_post_init__(self) -> None:
        if type(self.lease) is not Lease:
            check_lease(self.lease)
        if self.block is not None:
            _check_reason(self.block, required=True, name="block")
        if self.for_s is not None:
            check_seconds("for_s", self.for_s)
            if self.block is None:
                raise InvalidValue("for_s is how long a block lasts: pass block= too, or leave it out", name="for_s", value=self.for_s)


@attrs.frozen
class Renew:
    """The owner is alive: the ttl of `lease` starts again. Leads to no event, only to `StaleLease` where the lease has ended."""

    lease: Lease = attrs.field(validator=lambda _, __, value: check_lease(value))


@attrs.frozen
class Withdraw:
    """The proxies were told to stop routing to the lease's port; its owner still drains."""

    lease: Lease = attrs.field(validator=lambda _, __, value: check_lease(value))


@attrs.frozen
class ReleaseOwner:
    """End all leases of `owner`, on every node or on one."""

    owner: str
    node: str | None = attrs.field(kw_only=True, default=None)
    cause: str = attrs.field(kw_only=True, default="released")

    def __attrs_post_init__(self) -> None:
        check_text("owner", self.owner, required=True)
        if self.node is not None:
            check_text("node", self.node)


@attrs.frozen
class Adopt:
    """Record that a live `owner` already uses `port`."""

    pool: str
    port: int
    owner: str = attrs.field(kw_only=True)
    node: str = attrs.field(kw_only=True, default="")
    service: str = attrs.field(kw_only=True, default="")

    def __attrs_post_init__(self) -> None:
        _check_place(self)
        check_text("owner", self.owner, required=True)
        check_text("service", self.service)


def _check_place(command: Any) -> None:
    check_text("pool", command.pool)
    check_port(command.port)
    check_text("node", command.node)


@attrs.frozen
class Hold:
    """Quarantine a free port, or lengthen a quarantine, to at least `hold_s` seconds from now."""

    pool: str
    port: int
    node: str = attrs.field(kw_only=True, default="")
    hold_s: float = attrs.field(kw_only=True)
    cause: str = attrs.field(kw_only=True, default="operator")
    reason: str = attrs.field(kw_only=True, default="")

    def __attrs_post_init__(self) -> None:
        _check_place(self)
        check_seconds("hold_s", self.hold_s)
        _check_reason(self.reason, required=False)


@attrs.frozen
class Free:
    """End a quarantine now, on an operator's word."""

    pool: str
    port: int
    node: str = attrs.field(kw_only=True, default="")
    reason: str = attrs.field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check_place(self)
        _check_reason(self.reason, required=True)


@attrs.frozen
class Block:
    """Take a port out of use, for `for_s` seconds or until unblocked. Ends the lease, if there is one."""

    pool: str
    port: int
    node: str = attrs.field(kw_only=True, default="")
    reason: str = attrs.field(kw_only=True)
    for_s: float | None = attrs.field(kw_only=True, default=None)
    """Exact for an operator; for any other cause doubled with each block for it since the last good lease, up to a day."""
    cause: str = attrs.field(kw_only=True, default="operator")
    errno: int = attrs.field(kw_only=True, default=0)

    def __attrs_post_init__(self) -> None:
        _check_place(self)
        _check_reason(self.reason, required=True)
        if self.for_s is not None:
            check_seconds("for_s", self.for_s)


@attrs.frozen
class Unblock:
    """End a block: a full hold begins."""

    pool: str
    port: int
    node: str = attrs.field(kw_only=True, default="")
    reason: str = attrs.field(kw_only=True, default="")

    def __attrs_post_init__(self) -> None:
        _check_place(self)
        _check_reason(self.reason, required=False)


@attrs.frozen
class Sweep:
    """Free every port whose hold is over and end every block whose time is up; all of them, or those of one pool or node."""

    pool: str | None = attrs.field(kw_only=True, default=None)
    node: str | None = attrs.field(kw_only=True, default=None)


@attrs.frozen
class Clear:
    """Every required proxy has let go of `port` since it was withdrawn or released: end its quarantine, once past the floor."""

    pool: str
    port: int
    node: str = attrs.field(kw_only=True, default="")
    reason: str = attrs.field(kw_only=True)
    """Proxies and generations."""

    def __attrs_post_init__(self) -> None:
        _check_place(self)
        _check_reason(self.reason, required=True)


@attrs.frozen
class Join:
    """`proxy` is about to get its first configuration: from now on its evidence is required."""

    proxy: str

    def __attrs_post_init__(self) -> None:
        check_text("proxy", self.proxy, required=True)


@attrs.frozen
class Leave:
    """`proxy` is gone for good, on an operator's word or by evidence of its exit."""

    proxy: str
    reason: str = attrs.field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_text("proxy", self.proxy, required=True)
        _check_reason(self.reason, required=True)


@attrs.frozen
class DefinePool:
    """Put `spec` in force. Ports that leave the ranges retire once they are free."""

    spec: PoolSpec
    seed: str = attrs.field(kw_only=True, default="")
    """What `order="random"` draws from: recorded, so that replay draws the same."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.spec, PoolSpec):
            raise InvalidValue(f"spec must be a PoolSpec(...), not {self.spec!r}", name="spec", value=self.spec)
        check_text("seed", self.seed)


@attrs.frozen
class Open:
    """A writer opened the log: its epoch, and how log time hangs on the machine's clock."""

    epoch: int
    holder: str
    boot: str
    boot_ns: int
    wall_ns: int
    recovered: str = attrs.field(kw_only=True, default="")
    restart_holds: bool = attrs.field(kw_only=True, default=True)
    """After a restart of the machine every hold starts over in full; otherwise what is left of it by the clock counts."""
    lost: bool = attrs.field(kw_only=True, default=False)
    """What the log says of ports that are not held cannot be relied on: it was lost, or is an older copy."""


@attrs.frozen
class Close:
    """The writer closes the log cleanly."""


_OnPorts = Adopt | Allocate | AllocateGroup | Block | Clear | Free | Hold | Release | ReleaseOwner | Renew | Sweep | Unblock | Withdraw
Command = _OnPorts | Close | DefinePool | Join | Leave | Open
