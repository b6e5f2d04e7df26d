"""What one `reconcile` costs when 10 ports differ, at 4,000 and at 40,000 leases, and which part of that grows with them.

    python benchmarks/bench_reconcile.py

Four nodes, all leases of one pool, the same 10 differences: 5 leases that were not seen, 5 sightings of ports not recorded. The
parts: making the sightings and the observation (the caller's, may be done in a thread), and `reconcile` itself, all of whose growth is
columns compared in C. Beside them a yardstick: what it costs to ask the ledger about each sighting in turn, as a plain loop does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from common import Core, machine, owner, rounds, spread

from portfsm import Allocate, Observation, PoolSpec, Sighting
from portfsm._reconcile import Census

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm import Ledger

NODES = ("a", "b", "c", "d")
ROUNDS = 9


def filled(leases: int) -> Core:
    """A ledger with `leases` leases, spread over the nodes."""
    core = Core(PoolSpec("http", ports="20000-39999", hold_s=10.0))
    for number in range(leases):
        core.do(Allocate("http", owner=owner(number), node=NODES[number % len(NODES)], service="checkout"))
    return core


def sightings(core: Core, *, told: bool) -> list[Sighting]:
    """Everything that lives: all but five, and five strangers."""
    held = [pool.lease(offset) for pool in core.ledger.select() for offset in pool.offsets()]
    live = [Sighting(each.owner, each.node, each.pool, each.port, each.service if told else "") for each in held[5:]]
    return live + [Sighting(f"stranger-{n}", "a", "http", 39_990 + n, "checkout") for n in range(5)]


def taken_ms(run: Callable[[], object]) -> float:
    """Milliseconds of one run."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def one_by_one(ledger: Ledger, observation: Observation) -> int:
    """The yardstick: each sighting looked up, each lease looked up."""
    there = {(each.node, each.pool, each.port): each.owner for each in observation.live}
    odd = sum(ledger.port(each.pool, each.port, node=each.node).owner != each.owner for each in observation.live)
    return odd + sum((view.node, view.pool, view.port) not in there for view in ledger.ports())


def measure(leases: int) -> dict[str, list[float]]:
    """The parts, each in milliseconds a round."""
    core = filled(leases)
    now_ns = core.now_ns + 1_000_000_000
    told, untold = sightings(core, told=True), sightings(core, told=False)
    looks = {live is told: Observation(NODES, live, now_ns, complete=True) for live in (told, untold)}

    def plan(observation: Observation) -> object:
        return Census().plan(observation, core.ledger, now_ns=now_ns, leak_grace_s=60.0)

    plan(looks[True])  # which builds the indexes that the report of an unknown replica needs
    return rounds(
        ROUNDS,
        reconcile=lambda: taken_ms(lambda: plan(looks[True])),
        reconcile_no_service_told=lambda: taken_ms(lambda: plan(looks[False])),
        make_the_sightings=lambda: taken_ms(lambda: sightings(core, told=True)),
        make_the_observation=lambda: taken_ms(lambda: Observation(NODES, told, now_ns, complete=True)),
        yardstick_one_by_one=lambda: taken_ms(lambda: one_by_one(core.ledger, looks[True])),
    )


def main() -> None:
    """Both sizes, and how each part grows from the one to the other."""
    print(machine())
    small, large = measure(4_000), measure(40_000)
    for name, figures in large.items():
        ratio = min(figures) / min(small[name])
        print(f"{name}: 4,000 leases {spread(small[name], ' ms')}; 40,000 {spread(figures, ' ms')}; grows {ratio:.1f}x")
    best, plain = min(large["reconcile"]), min(large["yardstick_one_by_one"])
    print(f"reconcile at 40,000: {best / 40:.3f} us a lease, {plain / best:.0f}x as fast as one by one")


if __name__ == "__main__":
    main()
