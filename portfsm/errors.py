"""Every error this package raises on purpose, and who is at fault in each.

`CommandRejected`: the caller asked for something the state does not allow; nothing was recorded.
`JournalError`: the log, the disk or another writer; the text says what is still known.
`InternalError`: a fault in portfsm itself.
`BindFailed`: the operating system would not give the port, and none of the others.
`MissingExtra`: a library that this use needs is not installed.
`ReloadFailed`: a proxy did not take its configuration over; the former one runs on.

Each error carries its facts as attributes (keyword-only) and a sentence that ends in what to do next.
This file imports nothing of the package.
"""

# ruff: noqa: N818  (the names say what happened: `raise PoolExhausted` needs no suffix)
from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from portfsm.states import EventKind, PortState
    from portfsm.values import PortView

__all__ = [
    "BindFailed",
    "CommandRejected",
    "Fenced",
    "GroupUnavailable",
    "HistoryLost",
    "IllegalTransition",
    "InternalError",
    "InvalidValue",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalTooNew",
    "JournalUnreadable",
    "ManagerClosed",
    "MissingExtra",
    "OutcomeUnknown",
    "OwnerConflict",
    "PoolExhausted",
    "PortOutOfRange",
    "PortUnavailable",
    "PortfsmError",
    "QuotaExceeded",
    "ReloadFailed",
    "StaleGeneration",
    "StaleLease",
    "UnknownPool",
]


class PortfsmError(Exception):
    """Base of all errors of this package; `fields` names the attributes each one carries."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        for name in self.fields:
            setattr(self, name, facts.pop(name, None))
        if facts:
            raise TypeError(f"{type(self).__name__} carries no field {', '.join(sorted(facts))}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the fields, so that an error survives the way through a process pool."""
        return _rebuild, (type(self), str(self), {name: getattr(self, name) for name in self.fields})


def _rebuild(kind: type[PortfsmError], message: str, facts: dict[str, Any]) -> PortfsmError:
    return kind(message, **facts)


class CommandRejected(PortfsmError):
    """The state does not allow the command. Nothing was recorded; asking again later may succeed."""


class InvalidValue(CommandRejected, ValueError):
    """An argument no state could allow: `name` is the parameter, `value` what was given."""

    fields = ("name", "value")
    name: str
    value: object


class PoolExhausted(CommandRejected):
    """No port of the pool can be given now.

    `counts` maps each state's name to its number of ports; `next_free_at` is when time alone brings the next one back
    (UTC ns; None when nothing is held back, or what is waits for proxies); `short_by` is how many more ports the pool needs
    at the present rate of releases.
    """

    fields: ClassVar[tuple[str, ...]] = ("node", "pool", "counts", "next_free_at", "short_by")
    node: str
    pool: str
    counts: Mapping[str, int]
    next_free_at: int | None
    short_by: int


class GroupUnavailable(PoolExhausted):
    """A group, or a block of it, cannot be given now.

    `in_the_way` are the ports that are not to be had of the block (or the number on several nodes) that lacks the fewest, as views; for
    single ports those that end soonest, as many as lack. `free_at` is when time has freed them all (UTC ns, None when
    it does not). `short_by` is how many ports lack; `counts` and `next_free_at` are those of the pool.
    """

    fields: ClassVar[tuple[str, ...]] = (*PoolExhausted.fields, "in_the_way", "free_at")
    in_the_way: tuple[PortView, ...]
    free_at: int | None


class QuotaExceeded(CommandRejected):
    """The pool has ports, and this service has its share of them.

    `service` holds `held` ports on the node and its `quota` is that many: the hard one; or the soft one (0 for a service without), and
    `kept_for_others` of the ports that are free are kept for services below theirs.
    """

    fields = ("node", "pool", "service", "quota", "held", "kept_for_others")
    node: str
    pool: str
    service: str
    quota: int
    held: int
    kept_for_others: int


class PortUnavailable(CommandRejected):
    """The port that was asked for by number is not free: `state`, `owner`, `until` say why."""

    fields = ("node", "pool", "port", "state", "owner", "until")
    node: str
    pool: str
    port: int
    state: PortState
    owner: str
    until: int | None


class OwnerConflict(CommandRejected):
    """Two claims that cannot both be true: `holder` holds `port`, `claimant` asked otherwise.

    `conflict` says in which way: `"owner"`, two of them claim `port`; `"moved"`, the holder of `port` claims `claimed`;
    `"service"` or `"ttl"`, the holder asks for what it has under other terms. `claimed` is the port that was asked for, None for any.
    """

    fields = ("node", "pool", "port", "holder", "claimant", "conflict", "claimed")
    conflict: Literal["owner", "moved", "service", "ttl"]
    claimed: int | None
    node: str
    pool: str
    port: int
    holder: str
    claimant: str


class StaleLease(CommandRejected):
    """The lease was ended and the port has had another since: `token` is the caller's, `current` the port's."""

    fields = ("node", "pool", "port", "token", "current")
    node: str
    pool: str
    port: int
    token: int
    current: int


class StaleGeneration(CommandRejected):
    """A configuration made from an older state than the one in the file: `generation` is its, `current` the file's."""

    fields = ("path", "generation", "current")
    path: str
    generation: int
    current: int


class UnknownPool(CommandRejected):
    """No pool of that name is defined; `known` lists those that are."""

    fields = ("pool", "known")
    pool: str
    known: tuple[str, ...]


class PortOutOfRange(CommandRejected):
    """The number lies outside the pool's present ranges."""

    fields = ("node", "pool", "port", "ranges")
    node: str
    pool: str
    port: int
    ranges: str


class IllegalTransition(CommandRejected):
    """An event the table has no cell for, or whose details contradict the port's record."""

    fields = ("node", "pool", "port", "state", "kind", "seq")
    node: str
    pool: str
    port: int
    state: PortState | None
    kind: EventKind
    seq: int | None


class BindFailed(PortfsmError):
    """No socket could be bound: `errno` as the system gave it, `host` and `port` where (None after several ports).

    `tried` maps each port that others sit on to what is known of them; these are BLOCKED for a while.
    """

    fields = ("pool", "node", "host", "port", "errno", "tried")
    pool: str
    node: str
    host: str
    port: int | None
    errno: int | None
    tried: Mapping[int, str]


class ManagerClosed(PortfsmError):
    """The manager was left (or stopped) before the call could be served."""


class JournalError(PortfsmError):
    """The log or the place it is kept in; `path` names it."""

    fields: ClassVar[tuple[str, ...]] = ("path",)
    path: str


class JournalLocked(JournalError):
    """Another writer has the log open: `pid` and `holder` as it wrote them (None when unreadable)."""

    fields = ("path", "pid", "holder")
    pid: int | None
    holder: str | None


class JournalCorrupt(JournalError):
    """Damage that is not a torn tail. Nothing was changed; `segment`, `offset` and `seq` name the place."""

    fields = ("path", "segment", "offset", "seq")
    segment: str | None
    offset: int | None
    seq: int | None


class JournalTooNew(JournalError):
    """The log was written by a newer version of portfsm; `found` is what this one does not know."""

    fields = ("path", "found")
    found: str


class JournalUnreadable(JournalError):
    """The place cannot be used at all: not a directory, no permission, an unsupported file system."""

    fields = ("path", "errno")
    errno: int | None


class JournalFull(JournalError):
    """No room for more events. Releasing still works while the reserve lasts; growing calls do not."""


class Fenced(JournalError):
    """Another writer took the log over; this one must not append any more."""

    fields = ("path", "epoch", "current")
    epoch: int
    current: int | None


class OutcomeUnknown(JournalError):
    """A write or sync failed, so nobody knows what reached the disk. Reopening replays and is right again."""

    fields = ("path", "errno")
    errno: int | None


class HistoryLost(OutcomeUnknown):
    """The log came back from an older copy: what this writer recorded since is gone, and this time nothing was written.

    Opened as usual, it would give ports to others that live replicas have: open it once with `history="lost"`.
    """

    @classmethod
    def found(cls, path: str, why: str) -> Self:
        """With what to do."""
        advice = "nothing was written this time, and what was recorded since is lost; open the log once with history='lost'"
        return cls(f"{path}: {why}: {advice}", path=path, errno=None)


class MissingExtra(PortfsmError, ImportError):
    """What was asked for needs a library that comes with an extra: `pip install "portfsm[EXTRA]"`."""

    fields = ("extra", "name")
    extra: str
    name: str | None


class InternalError(PortfsmError):
    """A fault in portfsm. Please report it with the log's last lines."""


class ReloadFailed(PortfsmError):
    """The proxy does not run the configuration of `generation`; `running` is the one it runs, None when it does not say."""

    fields = ("generation", "running")
    generation: int
    running: int | None
