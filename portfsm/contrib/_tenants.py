"""Ports that belong to processes: each is released when its process dies, also one that died while nobody looked.

Rule: the log is the register. A lease's owner names the process by pid, start time and boot, so whoever opens the log knows whom to watch;
nothing is kept beside it, nothing is adopted. When in doubt a process lives: that only keeps its ports longer.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm.contrib._leases import lease_of
from portfsm.contrib._peers import Process
from portfsm.errors import CommandRejected
from portfsm.states import PortState
from portfsm.witnesses._exits import Exits, Sight, Tracked

if TYPE_CHECKING:
    from portfsm.manager import PortManager
    from portfsm.values import Lease

__all__ = ["Tenants"]

_SIGHT = Sight()
_MANY = 1 << 20


@attrs.define
class _Tenant:
    life: Tracked
    leases: list[Lease] = attrs.field(factory=list)


class Tenants:
    """The processes that hold ports of `manager` on `node`. `boot` is this boot's id, as `Process` has it."""

    def __init__(self, manager: PortManager, *, node: str, boot: str, sight: Sight = _SIGHT, poll_s: float = 1.0) -> None:
        self._manager = manager
        self._boot = boot
        self._sight, self._poll_s = sight, poll_s
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most_watched = _MANY if files == resource.RLIM_INFINITY else files // 2
        self._living: dict[Process, _Tenant] = {}
        self._exits = Exits()
        for view in manager.ports(node=node, state=PortState.ALLOCATED):
            if (process := Process.of_owner(view.owner)) is not None:
                self.keep(process, lease_of(view))

    def keep(self, process: Process, lease: Lease) -> None:
        """`lease` ends with `process`; soon, if that has died already."""
        tenant = self._living.get(process)
        if tenant is None:
            tenant = self._living[process] = _Tenant(Tracked(process.pid, started=process.started, sight=self._open_while_there_is_room()))
            self._look_out(process, tenant.life)
        tenant.leases.append(lease)

    def _look_out(self, process: Process, life: Tracked) -> None:
        if process.boot != self._boot:
            life.exited = True
            life.close()
        if life.exited:
            self._exits.ring()
        else:
            self._exits.watch(life)

    def _open_while_there_is_room(self) -> Sight:
        """Half of our file descriptors are for other things: the processes beyond are asked after."""
        return self._sight if len(self._living) < self._most_watched else attrs.evolve(self._sight, open=lambda _: None)

    async def watch(self) -> None:
        """Release the ports of those that die, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask_after)
            await self._clear_out()
            async for _ in self._exits.changed():
                await self._clear_out()

    def close(self) -> None:
        """Let go of the descriptors."""
        self._exits.close()

    async def _ask_after(self) -> None:
        """Those that have no descriptor to wait on."""
        while True:
            await anyio.sleep(self._poll_s)
            if any(tenant.life.fd is None for tenant in self._living.values()):
                await self._clear_out()

    async def _clear_out(self) -> None:
        self._exits.settle()
        lives = {process: tenant.life for process, tenant in self._living.items()}
        gone = [process for process, life in lives.items() if life.exited or (life.fd is None and life.look())]
        leases = [lease for process in gone for lease in self._living.pop(process).leases]
        async with anyio.create_task_group() as tasks:  # all at once: they share a sync
            for lease in leases:
                tasks.start_soon(self._release, lease)

    async def _release(self, lease: Lease) -> None:
        with suppress(CommandRejected):  # it ended otherwise, and the port has had another since
            await self._manager.release(lease)
