"""A controller that compares the record with the world now and then; and what must have been seen before it ends a lease.

Rule: the judge keeps a list of its own of who was missed when, and knows nothing of how the library counts.
"""

from __future__ import annotations

from itertools import combinations

from portfsm.observation import Observation, Sighting

SECOND = 1_000_000_000
GRACE_S = 0.4


class Observer:
    """The part of the world that looks at the replicas."""

    async def reconcile(self, chance):
        """One look, or a few of them in which the same replicas are missing."""
        gone = {owner for owner in self.plan.owners if chance.random() < 0.25}
        for _ in range(chance.choice((1, 4))):
            await self.drain()
            controller = await self.ready(chance)
            if controller is None or not controller.open:
                return
            self.advance_ns(chance.choice((SECOND // 5, SECOND // 2)))
            self._look(chance, controller, gone)

    def _look(self, chance, controller, gone):
        ports = self.record.ahead.ports.items()
        live = [Sighting(p.owner, *key, p.service) for key, p in ports if p.state == "ALLOCATED" and p.owner not in gone]
        if chance.random() < 0.2:
            (node, pool), (owner, service) = self.place(chance), self.replica(chance)
            live.append(Sighting(owner, node, pool, self.number(chance, pool), service))
        nodes = [node for node in self.plan.nodes if chance.random() < 0.9]
        observation = Observation(nodes, live, controller.engine.now(), complete=chance.random() < 0.9)
        self.call(controller, "reconcile", observation, leak_grace_s=GRACE_S, then=self._adopt_unknown)

    def _adopt_unknown(self, call):
        for seen in call.result.unknown[:1]:
            self.call(call.controller, "adopt", seen.pool, seen.port, owner=seen.owner, node=seen.node, service=seen.service)

    # ------------------------------------------------------------------ judging

    def looked(self, call):
        """Note for each lease whether this look missed it, or saw its port or its owner."""
        (observation,) = call.args
        ports = {(each.node, each.pool, each.port) for each in observation.live}
        owners = {(each.node, each.pool, each.owner) for each in observation.live}
        for key, port in self.record.ahead.ports.items():
            missed = self.missed.setdefault((call.controller.number, port.token), [])
            if key in ports or (*key[:2], port.owner) in owners:
                missed.clear()
            elif observation.complete and key[0] in observation.nodes and port.token:
                missed += [observation.started_at_ns] * (self.record.events[port.token - 1].ts < observation.started_at_ns)

    def was_missed(self, controller, token):
        """Whether three looks, far enough apart, missed the lease and none since saw it."""
        times = self.missed.get((controller.number, token), ())
        return any(b - a >= GRACE_S * SECOND and c - b >= GRACE_S * SECOND for a, b, c in combinations(times, 3))

    def _check_reconcile(self, call, report):
        for lease in report.released:
            self._durable(call, self.record.ended.get(lease.token), f"the end of lease {lease.token}")
