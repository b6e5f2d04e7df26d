"""What the engine gives or tells a call that asks for ports: for one and for many, at once or after a wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._decide import decide
from portfsm._group import fits, holdings, never
from portfsm._index import index_of
from portfsm._rejections import overtaken
from portfsm._waiters import Grant
from portfsm.commands import Allocate, AllocateGroup
from portfsm.errors import CommandRejected, PoolExhausted, PortUnavailable, QuotaExceeded

if TYPE_CHECKING:
    from portfsm._engine import Engine
    from portfsm._ledger import Ledger
    from portfsm._waiters import Wish
    from portfsm.errors import PortfsmError
    from portfsm.values import Lease

__all__ = ["MAY_WAIT", "attempt", "grant_group", "has_all", "hopeless", "leases_of", "queue_up", "refusal"]

MAY_WAIT = (PoolExhausted, PortUnavailable, QuotaExceeded)
"""Refusals that time or somebody's release may end."""


def has_all(ledger: Ledger, command: Wish) -> bool:
    """Whether what `command` asks for is held already, so that it takes nothing from anybody."""
    if isinstance(command, AllocateGroup):
        return holdings(command, ledger) is not None
    return command.owner in index_of(ledger.pool(command.pool, command.node)).holders


def grant_group(engine: Engine, command: AllocateGroup) -> tuple[Lease, ...]:
    """As `Engine.grant`, for every lease of the group: the caller owes a `received` or a `dropped` for each token."""
    events = engine.begin(command)
    begun = {event.token for event in events}
    leases = holdings(command, engine.ahead) or ()
    for lease in leases:
        if lease.token in begun:
            engine.grants[lease.token] = Grant(lease)
        if (grant := engine.grants.get(lease.token)) is not None:
            grant.waiting += 1
    return leases


def queue_up(engine: Engine, command: AllocateGroup) -> tuple[Lease, ...]:
    """Nothing yet, as others come first; a refusal where no wait would help, so that it keeps nobody behind it waiting."""
    if (error := hopeless(engine, command)) is not None:
        raise error
    return ()


def hopeless(engine: Engine, command: Wish) -> CommandRejected | None:
    """Why no wait would help a group, or no longer, now that a pool has changed; None while one may. Cheaper than a refusal."""
    return never(command, engine.ahead, engine.now()) if isinstance(command, AllocateGroup) else None


def leases_of(engine: Engine, owner: str, node: str | None) -> tuple[Lease, ...]:
    """What `owner` holds, counting what is on its way to disk."""
    pools = engine.ahead.select(node=node)
    return tuple(pool.lease(offset) for pool in pools for offset in index_of(pool).held(owner).values())


def attempt(engine: Engine, command: Wish) -> tuple[Lease, ...]:
    """What one who waits is given now, or the refusal; for a group without the reasons, as nobody will read them."""
    if isinstance(command, Allocate):
        return (engine.grant(command),)
    if not fits(command, engine.ahead, engine.now()):
        raise PoolExhausted("the group does not fit yet: wait, or ask again to be told why")
    return grant_group(engine, command)


def refusal(engine: Engine, command: Wish) -> PortfsmError:
    """Why `command` gets nothing now."""
    try:
        decide(engine.ahead, command, now_ns=engine.now())
    except CommandRejected as error:
        return error
    node, pool = next(filter(engine.waiters.has, command.places), command.places[0])
    return overtaken(engine.ahead.pool(pool, node), len(engine.waiters))
