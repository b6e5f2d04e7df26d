"""The reference: what the contract says a port does, folded from events and the true time each was decided at (ns that really
passed, whatever a clock says). No index, no order, no log time, no journal. What proxies, policies and lost logs add: `rules.py`."""

from collections import defaultdict

from portfsm.specs import normalise_ports

LEADS = {
    "FREE": {"allocated": "ALLOCATED", "adopted": "ALLOCATED", "held": "QUARANTINED", "blocked": "BLOCKED"},
    "ALLOCATED": {"withdrawn": "ALLOCATED", "released": "QUARANTINED", "blocked": "BLOCKED"},
    "QUARANTINED": {"allocated": "ALLOCATED", "adopted": "ALLOCATED", "held": "QUARANTINED", "freed": "FREE", "blocked": "BLOCKED"},
    "BLOCKED": {"adopted": "ALLOCATED", "unblocked": "QUARANTINED"},
}
NEVER = float("inf")


class Port:
    state, owner, service, token, index, withdrawn, seq, until = "FREE", "", "", 0, 0, False, 0, 0
    free_at, end = 0, NEVER  # true time before which no stranger may have it; at which a block ends


class Model:
    def __init__(self):
        self.ports, self.pools, self.holders, self.seq = defaultdict(Port), {}, {}, 0  # holders: (node, pool, owner, index) -> number

    def take(self, e, now):
        assert e.seq == self.seq + 1, "the log has a gap"
        self.seq = e.seq
        if e.kind == "pool_defined":
            self.pools[e.pool] = {n for piece in normalise_ports(e.data["ports"]) for n in piece}, round(e.data["hold_s"] * 1e9)
        if e.port:
            self.judge(self.ports[e.node, e.pool, e.port], e, now)
            self.move(self.ports[e.node, e.pool, e.port], e, now)

    def judge(self, p, e, now):
        fits = e.port in self.pools[e.pool][0] if p.state == "FREE" else p.owner == e.owner or (e.service and p.service == e.service)
        allowed = e.kind in LEADS[p.state] and (fits or e.kind != "allocated") and not (p.withdrawn and e.kind == "withdrawn")
        assert allowed, f"{e.kind} while {p.state} of {p.owner}/{p.service}"
        begins = e.kind in ("allocated", "adopted")
        assert e.token == (e.seq if begins else p.token) or (p.state != "ALLOCATED" and not begins), "the token of another lease"
        if begins:
            assert (e.node, e.pool, e.owner, (e.data or {}).get("index", 0)) not in self.holders, "its owner holds another port there"
        elif e.cause == "elapsed":
            assert now >= (p.free_at if e.kind == "freed" else p.end), f"{e.kind} before its time"

    def move(self, p, e, now):
        if e.kind in ("allocated", "adopted"):
            p.owner, p.service, p.token, p.index = e.owner, e.service, e.token, (e.data or {}).get("index", 0)
            self.holders[e.node, e.pool, p.owner, p.index] = e.port
        elif p.state == "ALLOCATED" and e.kind != "withdrawn":
            del self.holders[e.node, e.pool, p.owner, p.index]
        p.state, p.seq, p.withdrawn = LEADS[p.state][e.kind], e.seq, e.kind == "withdrawn"
        p.until, p.end = e.until, now + e.until - e.ts if e.until else NEVER
        if p.state == "QUARANTINED":
            p.free_at = max(p.free_at, now + self.hold_of(e))
        elif p.state == "FREE":
            p.owner, p.service, p.free_at = "", "", 0

    def hold_of(self, e):
        return 0 if e.cause == "cancelled" else e.hold_ms * 1_000_000 if e.kind == "held" else self.pools[e.pool][1]
