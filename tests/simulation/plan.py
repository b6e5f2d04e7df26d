"""What a seed decides before anything happens: pools, owners, proxies, how fast the disk is, how the machine restarts; and the steps.

Rule: a step carries its own seed. Leaving one out of a story changes nothing about the choices of the others, which is what lets a
failing story be shortened.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from portfsm.specs import PoolSpec, Quota

POOLS = {
    "low": ("lowest", ("100-103", "100-101,104", "102-106", "100-103")),
    "old": ("longest-idle", ("200-202", "200-205", "201-202", "200-202")),
    "rnd": ("random", ("300-303", "300-302,304", "299-301", "300-303")),
}
HOLDS = (0.0, 0.25, 2.5, 10.0, 10.0)

WEIGHTS = {
    "allocate": 40,
    "group": 6,
    "release": 16,
    "release_block": 3,
    "late": 5,
    "withdraw": 4,
    "renew": 5,
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

FLEET = {
    "drain_port": 9,
    "wait_clear": 2,
    "flap": 8,
    "freeze": 2,
    "thaw": 3,
    "restart_proxy": 10,
    "proxy_leaves": 1,
    "proxy_joins": 1,
}
"""And those that only come where proxies are asked."""

OBSERVER = {"reconcile": 12}
"""And those where the record is compared with the world."""

OPERATOR = {"define": 8, "crowd": 8, "release": 30}
"""And those where pools change while a controller runs, and run out."""

QUOTAS = ((), (), (Quota("x", hard=1),), (Quota("x", hard=2), Quota("y", soft=1)), (Quota("y", soft=2), Quota("*", hard=2)))

LOSSES = {"back_up": 6, "lose_history": 3}
"""And those where the log may be lost, or come back from an older copy."""

SHARES = (0.0, 0.5, 1.0, 3.0, 8.0)


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
        self.watched = random.Random(f"observer {seed}").random() < 0.3
        self._ask(random.Random(f"evidence {seed}"))
        self._police(random.Random(f"policy {seed}"))

    def _police(self, chance):
        """What the pools say of too much that is held back, of a band for hands, and of how much one service may have."""
        self.policed = chance.random() < 0.4
        self.loses = not self.evidence and random.Random(f"losses {self.seed}").random() < 0.3
        """Without proxies that are asked: their generations would go back with the log."""
        self.policies = {name: self._policy(chance, name) if self.policed else {} for name in self.pools}
        for name, policy in self.policies.items():
            if policy.get("on_pressure") == "free-earliest":
                self.floors[name] = 0.5

    def _policy(self, chance, name):
        modes = ("refuse", "wait", "free-earliest") if self.holds[name] and not self.evidence else ("refuse", "wait")
        return {
            "on_pressure": chance.choice(modes), "held_max": chance.choice((0.0, 0.3, 0.5)), "static": chance.choice((0, 0, 1, 2)),
            "quotas": chance.choice(QUOTAS),
        }  # fmt: skip

    def _ask(self, chance):
        """Whether proxies are asked, and then how far behind they may be: further than any hold lasts."""
        self.evidence = chance.random() < 0.5
        self.bounded = self.evidence and chance.random() < 0.3
        """No proxy ever stands still or goes back, so that time bounds can be given."""
        self.silence = {name: chance.choice(("keep", "free")) if self.bounded else "keep" for name in self.pools}
        self.floors = {name: chance.choice((0.0, 0.0, 0.5)) if self.evidence else 0.0 for name in self.pools}
        """The floor of each pool, as a part of its hold."""
        if self.evidence:
            self.lags = [chance.choice(SHARES) for _ in range(chance.choice((1, 2, 2, 3)))]

    def lags_ns(self, share):
        """Pool -> how far behind a proxy is with it. The same for all where proxies are asked: a table is as old as its generation says."""
        if not self.evidence:  # where pressure cuts holds off, a proxy must have heard of the end when the floor is over
            return {name: round(share * hold_s * (self.floors[name] or 1.0) * 1e9) for name, hold_s in self.holds.items()}
        timed = [hold_s for name, hold_s in self.holds.items() if self.silence[name] == "free"]
        lag_s = min(share * (max(self.holds.values()) or 1.0), *timed) if timed else share * (max(self.holds.values()) or 1.0)
        return dict.fromkeys(self.holds, round(lag_s * 1e9))

    def fallback(self, proxy):
        """Seconds after which its silence counts."""
        trusted = self.bounded and random.Random(f"bound {self.seed} {proxy}").random() < 0.5
        return SHARES[-1] * max(*self.holds.values(), 1.0) + 0.5 if trusted else None

    def specs(self, chance, *, same):
        """The pools as the next controller has them configured: often the same, now and then grown, shrunk, or held for longer."""
        return [self.spec(name, chance, same=same) for name in self.pools]

    def spec(self, name, chance, *, same):
        """One of them."""
        order, ranges = POOLS[name]
        ports = ranges[0] if same else chance.choice(ranges)
        hold_s = self.holds[name] * (1 if same else chance.choice((1, 1, 2)))
        floor_s = self.holds[name] * self.floors[name]  # which goes by the present policy, whatever it was at the release
        policy = dict(self.policies[name])
        if policy and not same:
            policy |= {"static": chance.choice((0, 1)), "quotas": chance.choice(QUOTAS)}
        return PoolSpec(name, ports=ports, hold_s=hold_s, floor_s=floor_s, order=order, on_silence=self.silence[name], **policy)

    def steps(self, count):
        chance = random.Random(f"steps {self.seed}")
        extra = ((FLEET, self.evidence), (OBSERVER, self.watched), (OPERATOR, self.policed), (LOSSES, self.loses))
        weights = dict(WEIGHTS)
        for more, wanted in extra:
            weights |= more if wanted else {}
        kinds = chance.choices(list(weights), list(weights.values()), k=count)
        return [Step(kind, chance.getrandbits(32)) for kind in kinds]
