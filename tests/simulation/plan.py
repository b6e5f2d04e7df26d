"""What a seed decides before anything happens: pools, owners, proxies, how fast the disk is, how the machine restarts; and the steps.

Rule: a step carries its own seed. Leaving one out of a story changes nothing about the choices of the others, which is what lets a
failing story be shortened.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from portfsm.specs import PoolSpec

POOLS = {
    "low": ("lowest", ("100-103", "100-101,104", "102-106", "100-103")),
    "old": ("longest-idle", ("200-202", "200-205", "201-202", "200-202")),
    "rnd": ("random", ("300-303", "300-302,304", "299-301", "300-303")),
}
HOLDS = (0.0, 0.25, 2.5, 10.0, 10.0)

WEIGHTS = {
    "allocate": 40,
    "release": 16,
    "release_block": 3,
    "late": 5,
    "withdraw": 4,
    "release_owner": 3,
    "adopt": 4,
    "block": 4,
    "unblock": 4,
    "hold": 3,
    "free": 3,
    "sweep": 3,
    "twice": 7,
    "cancel": 12,
    "advance": 18,
    "idle": 8,
    "settle": 7,
    "step_wall": 2,
    "kill": 2,
    "power_cut": 2,
    "die_inside": 2,
    "leave": 1,
    "hang": 1,
    "fail_write": 1,
    "fail_sync": 1,
    "fail_any": 1,
    "fill": 1,
    "make_room": 2,
    "zombie": 1,
    "takeover": 1,
}
"""How often each kind of step comes, more or less."""


class Step(NamedTuple):
    kind: str
    seed: int


class Plan:
    """The lot of one seed."""

    def __init__(self, seed):
        chance = random.Random(f"plan {seed}")
        self.seed = seed
        self.nodes = chance.choice((("",), ("", "n2")))
        self.pools = chance.sample(sorted(POOLS), chance.choice((1, 2, 3)))
        self.holds = {name: chance.choice(HOLDS) for name in self.pools}
        self.services = ("", "x", "y")
        self.owners = {f"r{n}": chance.choice(self.services) for n in range(chance.choice((3, 6, 10)))}
        self.lags = [chance.choice((0.0, 0.5, 1.0)), 1.0]
        """How far behind each proxy may be, as a part of the pool's hold."""
        self.speed = chance.choice((0.15, 0.5, 0.9))
        """How likely the disk does its next job in a turn of the loop."""
        self.after_reboot = "remaining" if chance.random() < 0.2 else "restart"
        self.segment_bytes = chance.choice((1_500, 6_000, 1 << 20))
        self.reserve_bytes = chance.choice((2_000, 20_000))
        self.snapshot_every = chance.choice((5, 40, 10_000))

    def specs(self, chance, *, same):
        """The pools as the next controller has them configured: often the same, now and then grown, shrunk, or held for longer."""
        found = []
        for name in self.pools:
            order, ranges = POOLS[name]
            ports = ranges[0] if same else chance.choice(ranges)
            hold_s = self.holds[name] * (1 if same else chance.choice((1, 1, 2)))
            found.append(PoolSpec(name, ports=ports, hold_s=hold_s, order=order))
        return found

    def steps(self, count):
        chance = random.Random(f"steps {self.seed}")
        kinds = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
        return [Step(kind, chance.getrandbits(32)) for kind in kinds]
