"""The reference: what the contract says a port does, in a few lines that read events and the true time each was decided at (ns that
really passed, whatever any clock says). No index, no order, no log time, no journal."""

from collections import defaultdict
from typing import NamedTuple

from portfsm.specs import normalise_ports


class Broken(Exception):
    """An event that the contract does not allow."""


def need(so, what):
    if not so:
        raise Broken(what)


class Lost(NamedTuple):
    seq: int  # ports that no later event tells of are held
    free_at: int  # until then, true time
    until: int  # and by the log's time


class Port:
    seq = 0  # of the last event on it
    state, owner, service, token, withdrawn, index = "FREE", "", "", 0, False, 0
    floor_at, owed = 0, False  # true time before which no evidence counts; whether evidence is needed once there are proxies
    free_at, end, until = 0, None, 0  # true time before which no other may have it; at which a block ends; what the event said of either


class Model:
    def __init__(self):
        self.ports, self.pools, self.seq = defaultdict(Port), {}, 0
        self.required, self.policy = {}, {}  # proxy -> seq of its joining; pool -> its floor and what silence does
        self.holders, self.ended, self.boot, self.boots = {}, set(), "", 0  # (node, pool, owner) -> number; tokens of leases that are over
        self.indexed = {}  # (node, pool, owner, index) -> number
        self.relief, self.quotas, self.bands = {}, {}, {}  # pool -> held share above which holds are cut off; hard, soft; lowest ports
        self.lost, self.loss = {}, None  # pool -> until when its history is taken as lost; the opening that said so

    def kept(self, pool):
        return bool(self.required) and self.policy[pool][1] == "keep"

    def is_lost(self, key):
        p, lost = self.ports.get(key, Port), self.lost.get(key[1])
        return lost is not None and p.state == "FREE" and p.seq < lost.seq and key[2] in self.pools[key[1]][0]

    def hold_lost(self, pool, event, now, hold):  # for a full hold from an opening on, and never shorter than before
        seq, free_at, until = self.lost.get(pool, (event.seq, 0, 0))
        self.lost[pool] = Lost(seq, max(free_at, now + hold), max(until, event.ts + hold))

    def open_anew(self, e, now):
        history = e.data.get("history")
        self.loss = (e, now) if history == "lost" else None
        held = {"lost": list(self.pools), "held anew": list(self.lost)}.get(history, ())
        if history == "lost":
            self.lost = {}
        for pool in held:
            if history == "held anew":  # by the present policy, as the wall clock may have leapt over the hold of before
                self.lost[pool] = self.lost[pool]._replace(free_at=0)
            self.hold_lost(pool, e, now, self.pools[pool][1])

    def define_lost(self, e, now, *, known):
        if e.data.get("history") == "kept":
            need(now >= self.lost.pop(e.pool).free_at - self.boots, "the hold after a loss ended too early")
        elif self.loss and (e.pool in self.lost or not known):
            self.hold_lost(e.pool, *self.loss, self.pools[e.pool][1])

    def count(self, node, pool, state, service=None):
        ports = ((n, self.ports[node, pool, n]) for n in self.pools[pool][0])
        held = sum(self.is_lost((node, pool, n)) for n in self.pools[pool][0]) if pool in self.lost else 0
        held = {"QUARANTINED": held, "FREE": -held}.get(state, 0)
        return held + sum(p.state == state and service in (None, p.service) for _, p in ports)

    def held_by(self, node, pool, service):
        return sum(p.state == "ALLOCATED" and p.service == service for key, p in self.ports.items() if key[:2] == (node, pool))

    def owed(self, node, pool, service):  # ports that other services have yet to take up to their soft quotas
        soft = {name: quota.get("soft", 0) for name, quota in self.quotas[pool].items() if name != service}
        return sum(max(0, count - self.held_by(node, pool, name)) for name, count in soft.items())

    def quota(self, pool, service):
        quotas = self.quotas[pool]
        return quotas.get(service) or (quotas.get("*", {}) if service else {})

    def check_quota(self, e, fresh):
        held, quota = self.held_by(e.node, e.pool, e.service), self.quota(e.pool, e.service)
        need(held <= quota.get("hard", held), "a service has more than its hard quota")
        left = self.count(e.node, e.pool, "FREE")
        need(not fresh or held <= quota.get("soft", 0) or left >= self.owed(e.node, e.pool, e.service), "what others are owed was given")

    def define(self, e, now):
        known = e.pool in self.pools
        self.pools[e.pool] = {n for piece in normalise_ports(e.data["ports"]) for n in piece}, round(e.data["hold_s"] * 1e9)
        self.policy[e.pool] = round(e.data["floor_s"] * 1e9), e.data.get("on_silence", "keep")
        self.relief[e.pool] = e.data.get("held_max", 0.5) if e.data.get("on_pressure") == "free-earliest" else 1
        self.quotas[e.pool], self.bands[e.pool] = e.data.get("quotas", {}), sorted(self.pools[e.pool][0])[: e.data.get("static", 0)]
        self.define_lost(e, now, known=known)

    def restart(self, boot):
        if boot == self.boot:
            return
        self.boot, self.boots = boot, self.boots + 1  # a new boot begins at least 1 ns after the last event
        for p in self.ports.values():  # what waits behind a lease or a block goes by the wall clock over a restart of the machine
            p.free_at, p.end = p.free_at if p.state == "QUARANTINED" else 0, p.end and 0

    def end(self, p, e):
        need(p.token == e.token, "a lease was ended by the token of another")
        self.ended.add(p.token)
        del self.indexed[e.node, e.pool, p.owner, p.index]
        if not p.index:
            del self.holders[e.node, e.pool, p.owner]

    def take(self, e, now):
        need(e.seq == self.seq + 1, "the log has a gap")
        self.seq = e.seq
        if e.kind == "pool_defined":
            self.define(e, now)
        if e.kind in ("proxy_joined", "proxy_left"):
            self.required.update({e.data["proxy"]: e.seq}) if e.kind == "proxy_joined" else self.required.pop(e.data["proxy"])
        if e.kind == "opened":
            self.open_anew(e, now)
            self.restart(e.data["boot"])
        if not e.port:
            return
        lost = self.is_lost((e.node, e.pool, e.port))
        anew = e.kind == "held" and e.cause == "lost"
        need(not lost or anew, "its history was lost, and it was not held for it")
        p, (numbers, hold), was = self.ports[e.node, e.pool, e.port], self.pools[e.pool], self.ports[e.node, e.pool, e.port].state
        if was == "ALLOCATED" and e.kind in ("released", "blocked"):
            self.end(p, e)
        if e.kind in ("allocated", "adopted"):
            same = p.owner == e.owner or (e.service and p.service == e.service)
            allowed = (was == "FREE" and e.port in numbers) or (was == "QUARANTINED" and same)
            need(allowed if e.kind == "allocated" else was != "ALLOCATED", f"given while {was} of {p.owner}/{p.service}")
            need(e.token == e.seq > p.token, "a token did not grow")
            p.index = (e.data or {}).get("index", 0)
            need(self.indexed.setdefault((e.node, e.pool, e.owner, p.index), e.port) == e.port, "its owner holds another port there")
            if not p.index:
                self.holders[e.node, e.pool, e.owner] = e.port
            p.state, p.owner, p.service, p.token, p.withdrawn, p.end = "ALLOCATED", e.owner, e.service, e.token, False, None
            p.floor_at = 0
            if e.kind == "allocated":
                self.check_quota(e, was == "FREE")
        elif e.kind == "withdrawn":
            need((was, p.token, p.withdrawn) == ("ALLOCATED", e.token, False), "withdrawn without a lease")
            p.withdrawn = True
        elif e.kind == "freed":
            need(was == "QUARANTINED", f"freed while {was}")
            least = {"elapsed": p.free_at, "evidence": p.floor_at, "pressure": p.floor_at, "operator": 0}[e.cause] - self.boots
            pressed = self.count(e.node, e.pool, "QUARANTINED") > self.relief[e.pool] * len(numbers)
            need(e.cause != "pressure" or (pressed and not self.required), "a hold was cut off without need or leave")
            need(now >= least, f"freed by {e.cause} {(least - now) / 1e9:.3f} s too early")
            need(e.cause != "elapsed" or not (self.kept(e.pool) and p.owed), "freed by time, and proxies are required")
            need(e.cause != "evidence" or self.required, "freed by evidence of nobody")
            p.state, p.owner, p.service, p.free_at, p.floor_at, p.owed = "FREE", "", "", 0, 0, False
        elif e.kind == "blocked":
            need(was != "BLOCKED", "blocked twice")
            p.state, p.end, p.floor_at, p.owed = "BLOCKED", now + e.until - e.ts if e.until else None, 0, True
        else:
            before = {"released": ("ALLOCATED",), "held": ("FREE", "QUARANTINED"), "unblocked": ("BLOCKED",)}[e.kind]
            need(was in before, f"{e.kind} while {was}")
            need(e.cause != "elapsed" or (p.end is not None and now >= p.end - self.boots), "a block ended before its time")
            hold = e.hold_ms * 1_000_000 if e.kind == "held" else 0 if e.cause == "cancelled" else hold
            if anew:
                hold = e.until - e.ts
                need(now + hold >= self.lost[e.pool].free_at - self.boots, "a hold after a loss was shortened")
            p.state, p.end, p.free_at, p.owed = "QUARANTINED", None, max(p.free_at, now + hold), p.owed or e.cause != "cancelled"
            begins = was != "QUARANTINED" or e.cause in ("reboot", "lost")
            floor = hold if e.kind == "held" and e.cause == "operator" else self.policy[e.pool][0] if begins else 0
            p.floor_at = max(p.floor_at, now + floor)
        p.seq = e.seq
        p.until = e.until if p.state in ("QUARANTINED", "BLOCKED") else 0
