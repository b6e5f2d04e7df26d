"""A controller that looks, for the pure core: what it saw, and what the ledger makes of it."""

from __future__ import annotations

import attrs

from portfsm import Lease, Observation, Sighting
from portfsm._reconcile import Census

SECOND = 1_000_000_000
GRACE = 60


@attrs.define
class Controller:
    """Somebody who looks at a world, and has done what each look leads to."""

    world: object
    census: Census = attrs.field(factory=Census)

    def observe(self, *live, nodes=("",), complete=True, started=None):
        """Each of `live`: a lease, a sighting, or (owner, port)."""
        return Observation(nodes, map(as_sighting, live), started or self.world.now, complete=complete)

    def plan(self, observation, *, grace_s=GRACE):
        return self.census.plan(observation, self.world.ledger, now_ns=self.world.now, leak_grace_s=grace_s)

    def take(self, observation, *, grace_s=GRACE):
        plan = self.plan(observation, grace_s=grace_s)
        self.census.take(plan)
        for lease in plan.report.released:
            assert self.census.is_due(lease.token)
            self.world.release(lease, cause="reconciled")
        return plan.report

    def look(self, *live, after_s=GRACE, grace_s=GRACE, **options):
        """Some time later one more look."""
        self.world.pass_time(after_s)
        return self.take(self.observe(*live, **options), grace_s=grace_s)


def as_sighting(what):
    if isinstance(what, Lease):
        return Sighting(what.owner, what.node, what.pool, what.port, what.service)
    return what if isinstance(what, Sighting) else Sighting(what[0], "", "p", what[1])
