"""A holder that follows the log: closed to everybody but replicas that hold a lease."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from portfsm._log import warn
from portfsm.errors import BindFailed, PortfsmError, PortOutOfRange
from portfsm.sockets import Holder
from portfsm.states import PortState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from portfsm.events import Event
    from portfsm.manager import PortManager

__all__ = ["hold_ports"]


@asynccontextmanager
async def hold_ports(manager: PortManager, pool: str, *, node: str = "", host: str = "127.0.0.1") -> AsyncIterator[Holder]:
    """Hold every port of `pool` on this machine, strictly: a port can be bound while it is ALLOCATED on `node`, and else by nobody.

    Ports are shut by themselves when their lease has ended, whoever ended it; those that a replica from before was listening on are
    taken over then. Opening must not come late: pass the holder to `listen`, or call `holder.open(lease.port)` before a replica
    starts that binds by itself (with SO_REUSEADDR). Raises what `Holder` does, and `UnknownPool`.
    """
    manager.statistics(pool, node=node)  # which looks at the names
    with Holder(manager.pools[pool].ports, host=host, strict=True) as holder:
        events = manager.watch()
        for view in manager.ports(pool, node=node, state=PortState.ALLOCATED):
            holder.open(view.port)
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        tasks.start_soon(_follow, holder, manager, events, (node, pool))
        raised = False
        try:
            yield holder
        except BaseException:
            raised = True
            raise
        finally:  # by hand: the group's own way wraps what the block raised in an `ExceptionGroup`
            tasks.cancel_scope.cancel()
            try:
                await tasks.__aexit__(None, None, None)
            except anyio.get_cancelled_exc_class():
                if not raised:
                    raise


async def _follow(holder: Holder, manager: PortManager, events: AsyncIterator[Event], place: tuple[str, str]) -> None:
    with suppress(PortfsmError):  # the log has failed: every call says so, and nothing is opened or shut any more
        async for event in events:
            if event.port and (event.node, event.pool) == place:
                _set(holder, manager, event)


def _set(holder: Holder, manager: PortManager, event: Event) -> None:
    """By the present state and not by the event: a newer lease may have begun, and its port been opened."""
    with suppress(PortOutOfRange):  # it has retired
        if manager.port(event.pool, event.port, node=event.node).state is PortState.ALLOCATED:
            holder.open(event.port)
            return
    try:
        holder.shut(event.port)
    except BindFailed as error:
        warn("port_not_held", port=event.port, error=str(error))
