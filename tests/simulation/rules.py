"""What the contract adds to the life of a port, rule by rule: machines that restart, proxies that must let go, pools under pressure,
quotas, and logs that were lost.

Rule: each class judges an event before the model takes it, and knows of nothing but what it notes itself and of those above it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from .model import Model


class Openings(Model):
    """A hold goes on over a restart of the machine; what waits behind a lease or a block goes by the wall clock."""

    boot = ""

    def take(self, e, now):
        if e.kind == "opened":
            self.slip()
            self.boot, before = e.data["boot"], self.boot
            for p in self.ports.values() if self.boot != before else ():
                p.free_at, p.end = p.free_at if p.state == "QUARANTINED" else 0, min(p.end, 0)
        super().take(e, now)

    def slip(self):
        """An opening may be told as 1 ns after the last event, and nothing of that has passed."""
        for p in self.ports.values():
            p.free_at, p.end = p.free_at - 1, p.end - 1


CAUSES = {
    "released": {"released", "expired", "reconciled", "cancelled", "shutdown"},
    "freed": {"elapsed", "evidence", "operator", "pressure"},
    "held": {"operator", "reboot", "lost"},
    "unblocked": {"operator", "elapsed"},
}


class Causes(Openings):
    """An end says which of the contract's causes it has."""

    def judge(self, p, e, now):
        super().judge(p, e, now)
        assert e.cause in CAUSES.get(e.kind, {e.cause}), f"{e.kind} for {e.cause!r}"


class Evidence(Causes):
    """A hold ends early by evidence of every proxy, past its floor; without any, as the pool's policy says."""

    def __init__(self):
        super().__init__()
        self.required, self.policy = {}, {}  # proxy -> seq of its joining; pool -> its floor and what silence does
        self.floors, self.owing = defaultdict(int), set()  # true time before which no evidence counts; ports that need some

    def kept(self, pool):
        """Whether silence keeps its ports."""
        return bool(self.required) and self.policy[pool][1] == "keep"

    def take(self, e, now):
        if e.kind == "pool_defined":
            self.policy[e.pool] = round(e.data["floor_s"] * 1e9), e.data.get("on_silence", "keep")
        elif e.kind == "proxy_joined":
            self.required[e.data["proxy"]] = e.seq
        elif e.kind == "proxy_left":
            del self.required[e.data["proxy"]]
        super().take(e, now)

    def slip(self):
        super().slip()
        self.floors = defaultdict(int, {key: floor - 1 for key, floor in self.floors.items()})

    def judge(self, p, e, now):
        super().judge(p, e, now)
        key = e.node, e.pool, e.port
        if e.cause in ("evidence", "pressure"):
            assert now >= self.floors[key], f"freed by {e.cause} before its floor"
        if e.cause == "evidence":
            assert self.required, "freed by evidence of nobody"
        if e.kind == "freed" and e.cause == "elapsed":
            assert not (self.kept(e.pool) and key in self.owing), "freed by time, and proxies are required"

    def move(self, p, e, now):
        key, was = (e.node, e.pool, e.port), p.state
        super().move(p, e, now)
        if p.state == "QUARANTINED":
            begins = was != "QUARANTINED" or e.cause in ("reboot", "lost")
            floor = self.hold_of(e) if (e.kind, e.cause) == ("held", "operator") else self.policy[e.pool][0] if begins else 0
            self.floors[key] = max(self.floors[key], now + floor)
        elif e.kind != "withdrawn":
            self.floors[key] = 0
        if p.state == "FREE":
            self.owing.discard(key)
        elif p.state != "ALLOCATED" and e.cause != "cancelled":
            self.owing.add(key)


class Loss(Evidence):
    """After a loss of its history every port not proven live is held for a full hold from the opening that was told so."""

    class Hold(NamedTuple):
        """What is free, and of which no event later than `seq` tells, is held until `free_at` (true time), `until` by the log's time."""

        seq: int
        free_at: int
        until: int

    def __init__(self):
        super().__init__()
        self.lost, self.told = {}, None  # pool -> its hold; the opening that was told of a loss, and when it was

    def is_lost(self, key):
        """Whether the port is held for the loss alone."""
        p, lost = self.ports.get(key), self.lost.get(key[1])
        known = p is not None and (p.state != "FREE" or (lost is not None and p.seq >= lost.seq))
        return lost is not None and not known and key[2] in self.pools[key[1]][0]

    def _hold(self, pool, hold, event, now):  # and never shorter than before
        seq, free_at, until = self.lost.get(pool, (event.seq, 0, 0))
        self.lost[pool] = self.Hold(seq, max(free_at, now + hold), max(until, event.ts + hold))

    def take(self, e, now):
        known = e.pool in self.pools
        super().take(e, now)
        if e.kind == "opened":
            self._open(e, now)
        elif e.kind == "pool_defined" and e.data.get("history") == "kept":
            assert now >= self.lost.pop(e.pool).free_at, "the hold after a loss ended too early"
        elif e.kind == "pool_defined" and self.told and (e.pool in self.lost or not known):
            self._hold(e.pool, self.pools[e.pool][1], *self.told)

    def _open(self, e, now):
        history = e.data.get("history")
        self.told = (e, now) if history == "lost" else None
        if history == "lost":
            self.lost = {}
        elif history == "held anew":  # by the present policy, as the wall clock may have leapt over the hold of before
            self.lost = {pool: hold._replace(free_at=0) for pool, hold in self.lost.items()}
        for pool in {"lost": list(self.pools), "held anew": list(self.lost)}.get(history, ()):
            self._hold(pool, self.pools[pool][1], e, now)

    def slip(self):
        super().slip()
        self.lost = {pool: hold._replace(free_at=hold.free_at - 1) for pool, hold in self.lost.items()}

    def judge(self, p, e, now):
        super().judge(p, e, now)
        assert e.cause == "lost" or not self.is_lost((e.node, e.pool, e.port)), "its history was lost, and it was not held for it"
        lost = self.lost.get(e.pool)
        if lost and (e.kind, p.state) == ("allocated", "QUARANTINED") and p.token < lost.seq:
            assert e.ts >= lost.until and not self.kept(e.pool), "given back, and in what was lost another may have had it"
        if e.cause == "lost":
            assert now + self.hold_of(e) >= self.lost[e.pool].free_at, "a hold after a loss was shortened"

    def hold_of(self, e):
        return e.until - e.ts if e.cause == "lost" else super().hold_of(e)


class Shares(Loss):
    """No service has more than its quota, or what others are owed; and a hold is cut off only where too much of a pool is held."""

    def __init__(self):
        super().__init__()
        self.relief, self.quotas, self.bands = {}, {}, {}  # pool -> held share above which holds are cut off; quotas; lowest ports

    def take(self, e, now):
        super().take(e, now)
        if e.kind == "pool_defined":
            self.relief[e.pool] = e.data.get("held_max", 0.5) if e.data.get("on_pressure") == "free-earliest" else 1
            self.quotas[e.pool], self.bands[e.pool] = e.data.get("quotas", {}), sorted(self.pools[e.pool][0])[: e.data.get("static", 0)]

    def judge(self, p, e, now):
        super().judge(p, e, now)
        if e.kind == "allocated":
            self._judge_quota(e, fresh=p.state == "FREE")
        elif e.cause == "pressure":
            held = self.count(e.node, e.pool, "QUARANTINED")
            assert held > self.relief[e.pool] * len(self.pools[e.pool][0]), "a hold was cut off without need or leave"
            assert not self.required, "a hold was cut off that proxies end"

    def _judge_quota(self, e, *, fresh):
        held, quota = self.held_by(e.node, e.pool, e.service) + 1, self.quota(e.pool, e.service)
        assert held <= quota.get("hard", held), "a service has more than its hard quota"
        left = self.count(e.node, e.pool, "FREE") - 1
        within = held <= quota.get("soft", 0) or left >= self.owed(e.node, e.pool, e.service)
        assert within or not fresh, "what others are owed was given"

    def count(self, node, pool, state):
        """Its present ports in that state, as people see them."""
        keys = [(node, pool, number) for number in self.pools[pool][0]]
        return sum(("QUARANTINED" if self.is_lost(key) else self.ports[key].state) == state for key in keys)

    def held_by(self, node, pool, service):
        """How many ports the service has."""
        return sum(p.state == "ALLOCATED" and p.service == service for key, p in self.ports.items() if key[:2] == (node, pool))

    def owed(self, node, pool, service):
        """Ports that other services have yet to take up to their soft quotas."""
        soft = {name: quota.get("soft", 0) for name, quota in self.quotas[pool].items() if name != service}
        return sum(max(0, count - self.held_by(node, pool, name)) for name, count in soft.items())

    def quota(self, pool, service):
        """What the service has, or any that is not named."""
        quotas = self.quotas[pool]
        return quotas.get(service) or (quotas.get("*", {}) if service else {})


Contract = Shares
"""Every rule."""
