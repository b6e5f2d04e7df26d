"""The operator's half of `PortManager`: which proxies are asked, what is out of use, and how the pools are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from portfsm import commands
from portfsm._faults import finding
from portfsm._views import Views
from portfsm._warden import check_witnesses

if TYPE_CHECKING:
    from portfsm.events import Event
    from portfsm.evidence import Witness
    from portfsm.specs import PoolSpec
    from portfsm.values import PoolStatistics, PortView

__all__ = ["Operator"]


class Operator(Views):
    """Commands that begin and end no lease by themselves."""

    # ------------------------------------------------------------------ proxies

    async def join(self, witness: Witness) -> None:
        """Require this proxy's evidence from now on. Call it before the proxy gets its first configuration.

        The requirement is recorded and outlives the controller: after a restart, join with a witness for the same proxy
        again. A proxy that has no witness holds every port until `leave`. Raises `InvalidValue` when another witness
        speaks for the proxy here.
        """
        check_witnesses([witness])
        await self._warden.join(witness)

    async def leave(self, proxy: str, *, reason: str) -> None:
        """Require the proxy's evidence no more: it is gone for good, as `reason` says. Nothing happens if it never joined."""
        await self._warden.leave(proxy, reason=reason)

    # ------------------------------------------------------------------ the operator's hand

    async def block(self, pool: str, port: int, *, node: str = "", reason: str | OSError, for_s: float | None = None) -> PortView:
        """Take a port out of use, for `for_s` seconds or until unblocked. Ends the lease, if there is one.

        A port blocked already keeps its first reason and end. `reason` may be an `OSError`, as in `release`.
        """
        text, errno = finding("reason", reason)
        await self._submit(commands.Block(pool, port, node=node, reason=text, for_s=for_s, errno=errno))
        return self._left(pool, port, node)

    async def unblock(self, pool: str, port: int, *, node: str = "", reason: str = "") -> PortView:
        """End a block: a full hold begins. Nothing happens to a FREE or QUARANTINED port."""
        await self._submit(commands.Unblock(pool, port, node=node, reason=reason))
        return self._left(pool, port, node)

    async def hold(self, pool: str, port: int, *, node: str = "", hold_s: float, reason: str = "") -> PortView:
        """Quarantine a FREE port, or make a quarantine end `hold_s` seconds from now or later; never earlier."""
        await self._submit(commands.Hold(pool, port, node=node, hold_s=hold_s, reason=reason))
        return self._left(pool, port, node)

    async def free(self, pool: str, port: int, *, node: str = "", reason: str) -> PortView:
        """End a quarantine now, on an operator's word (recorded with `reason`)."""
        await self._submit(commands.Free(pool, port, node=node, reason=reason))
        return self._left(pool, port, node)

    async def define(self, spec: PoolSpec) -> PoolStatistics:
        """Put a pool in force, a new one or another policy for one there is, while everything goes on; its counts over all nodes.

        Ports that are new serve those who wait, at once. Ports that left the ranges are given to nobody any more; those still held
        (`retired` in the counts) stay with their owners and leave when they are freed. A hold that runs keeps its end, another `hold_s`
        counts from the next release on; another `floor_s`, `order` or `on_silence` counts from now on. The same spec again records nothing.

        Raises `InvalidValue` when another pool has one of the ports, or still holds one that left its ranges.
        """
        command = commands.DefinePool(spec, seed=os.urandom(16).hex())
        self._engine.define(command)
        await self._engine.settle()
        return self.statistics(spec.name)

    async def sweep(self) -> tuple[Event, ...]:
        """Free every port whose hold is over, end every block whose time is up, and return the events."""
        swept: list[Event] = []
        while events := await self._submit(commands.Sweep()):
            swept += events
        return tuple(swept)

    def _left(self, pool: str, port: int, node: str) -> PortView:
        """The port as the command left it. One outside the ranges may have retired by it, and nobody else is shown it any more."""
        return self._engine.published.pool(pool, node).view(port)

    async def _submit(self, command: commands.Command) -> tuple[Event, ...]:
        """Decide and record, then wait for the disk. A repeat waits for what it repeats."""
        # No checkpoint before the decision: a release in a `finally:` of a cancelled task must still be recorded.
        engine = self._engine
        events = engine.submit(command)
        await engine.settle()
        return events
