"""`reconcile` at work: one observation is compared and counted in one step, and what is due is released a few at a time.

Rule: a lease is released only if it still is due when its turn comes. Between two turns it may have been seen, released, or
given again; the command names the lease by its token, and the census is asked once more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from portfsm import commands
from portfsm._log import warn
from portfsm._reconcile import Census
from portfsm.errors import CommandRejected, InvalidValue
from portfsm.observation import Observation

if TYPE_CHECKING:
    from portfsm._engine import Engine
    from portfsm.observation import ReconcileReport
    from portfsm.values import Lease

__all__ = ["Reconciler"]

TURN = 64
"""How many leases are released before others get their turn on the loop."""


class Reconciler:
    """The census of one opening, and the engine that it is about."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._census = Census()

    def saw(self, lease: Lease) -> None:
        """Somebody was just answered with this lease, so it is of use to somebody."""
        if self._census.suspects:
            self._census.saw(lease.token)

    async def reconcile(self, observation: Observation, *, leak_grace_s: float, dry_run: bool) -> ReconcileReport:
        """See `PortManager.reconcile`."""
        _check_observation(observation)
        await checkpoint_if_cancelled()
        engine = self._engine
        engine.check_open()
        plan = self._census.plan(observation, engine.ahead, now_ns=engine.now(), leak_grace_s=leak_grace_s)
        if dry_run:
            await cancel_shielded_checkpoint()
            return plan.report
        self._census.take(plan)
        released = [lease for number, lease in enumerate(plan.report.released, 1) if await self._release(lease, number)]
        await engine.settle()
        _tell(plan.report)
        return attrs.evolve(plan.report, released=tuple(released))

    async def _release(self, lease: Lease, number: int) -> bool:
        """End the lease, unless something came between; whether it ended here."""
        if number % TURN == 0:
            await checkpoint()
        if not self._census.is_due(lease.token) or lease.token in self._engine.grants:
            return False
        with suppress(CommandRejected):  # the port has had another lease since
            return bool(self._engine.submit(commands.Release(lease, cause="reconciled")))
        return False


def _check_observation(value: object) -> None:
    if not isinstance(value, Observation):
        text = f"reconcile takes an Observation(nodes, live, started_at_ns, complete), not {value!r}"
        raise InvalidValue(text, name="observation", value=value)


def _tell(report: ReconcileReport) -> None:
    """What needs a person."""
    if report.breaker:
        warn("reconcile_breaker", pools=report.breaker, leaked=len(report.leaked))
    if report.conflicts:
        warn("reconcile_conflicts", count=len(report.conflicts), first=report.conflicts[0].reason)
