"""A controller that starts, adopts what already lives, and from then on compares the record with the world on a period."""

import anyio

from portfsm import Observation, PoolSpec, PortManager, Sighting, open_manager

PERIOD_S = 0.05
"""A minute in life: `leak_grace_s` says how far apart two looks must be to count as two."""


class Cluster:
    """What stands for the world here: replicas that somebody else started, and that die without a word."""

    def __init__(self) -> None:
        live = [Sighting(f"replica-{number}", "node-a", "http", 30000 + number, "checkout") for number in range(4)]
        self.live = {sighting.owner: sighting for sighting in live}

    async def look(self, manager: PortManager) -> Observation:
        """Stamp first, then ask; complete only if every question was answered."""
        started_at_ns = manager.now_ns
        await anyio.sleep(0.001)  # the nodes are asked
        return Observation(["node-a"], list(self.live.values()), started_at_ns, complete=True)


async def adopt_what_lives(manager: PortManager, cluster: Cluster) -> None:
    """At the start: whatever lives keeps its port, or nobody else may have it. Conflicts are for a person."""
    report = await manager.reconcile(await cluster.look(manager))
    for seen in report.unknown:
        lease = await manager.adopt(seen.pool, seen.port, owner=seen.owner, node=seen.node, service=seen.service)
        print(f"adopted {lease.owner} on {lease.port}")
    for conflict in report.conflicts:
        print(conflict.reason)


async def keep_in_step(manager: PortManager, cluster: Cluster) -> None:
    """From then on: what died comes back, after three looks and a hold."""
    while True:
        await anyio.sleep(PERIOD_S)
        report = await manager.reconcile(await cluster.look(manager), leak_grace_s=PERIOD_S)
        for lease in report.leaked:
            print(f"{lease.owner} was not seen{': released' if lease in report.released else ''}")
        if report.released:
            return
        if report.breaker:
            print(f"most of {', '.join(report.breaker)} is not seen: look at the observer first")


async def main() -> None:
    """Four replicas live before the log begins; one of them dies later, and nobody says so."""
    cluster = Cluster()
    pools = [PoolSpec("http", ports="30000-30999", hold_s=10.0)]
    async with open_manager("memory:", pools=pools) as manager:  # a directory in life
        await adopt_what_lives(manager, cluster)
        dead = cluster.live.pop("replica-2")
        await keep_in_step(manager, cluster)
        print(manager.explain("http", dead.port, node=dead.node))


if __name__ == "__main__":
    anyio.run(main)
