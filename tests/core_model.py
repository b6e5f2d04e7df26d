"""A naive model of the core, written from the contract's tables: it knows nothing of columns, indexes, heaps or notes."""

from __future__ import annotations

from portfsm import errors

SECOND = 1_000_000_000

FRESH = {"state": "FREE", "owner": "", "service": "", "token": 0, "hold": 0, "end": None, "mixed": 0, "nth": 0} | {
    "ttl": None,
    "times": 0,
    "as": "",
}


class Model:
    """Rows are dicts {state, owner, service, token, hold, end}: `hold` ends a hold, `end` a block (None: never)."""

    def __init__(self):
        self.specs, self.rows = {}, {}

    def row(self, node, pool, port):
        return self.rows.setdefault((node, pool, port), dict(FRESH))

    def inside(self, pool, port):
        return any(port in piece for piece in self.specs[pool].ports)

    def known(self, pool, port, node):
        if not self.inside(pool, port) and self.row(node, pool, port)["state"] == "FREE":
            raise errors.PortOutOfRange("")
        return self.row(node, pool, port)

    def of(self, node, pool):
        return {port: row for (n, p, port), row in self.rows.items() if (n, p) == (node, pool)}

    def begin_hold(self, row, until, now):
        row.update(state="QUARANTINED", hold=max(until, row["hold"]), end=None)
        self.forget_mixture(row, now)
        if row["hold"] <= now:
            self.free(row)

    def forget_mixture(self, row, now):
        """What is over when an event concerns the port does not begin anew with a reboot."""
        row["mixed"] = row["mixed"] if row["mixed"] > now else 0

    def mix(self, row, service):
        """Another service takes a port within its hold: by its last owner's hand, or by an adopter's."""
        if service != row["service"]:
            row["mixed"] = max(row["mixed"], row["hold"])

    def free(self, row):
        row.update(state="FREE", owner="", service="", hold=0, end=None, mixed=0)

    def notice(self, row, hold, now):
        if row["state"] == "QUARANTINED" and row["hold"] <= now:
            self.free(row)
        elif row["state"] == "BLOCKED" and row["end"] is not None and row["end"] <= now:
            self.begin_hold(row, now + hold, now)

    def held(self, node, pool, owner):
        rows = self.of(node, pool).items()
        return next((port for port, row in rows if row["state"] == "ALLOCATED" and row["owner"] == owner and not row["nth"]), None)

    def choices(self, c, hold, now):
        """The ports this allocate may give (None: it holds one already), and whether they are a reuse."""
        if (held := self.held(c.node, c.pool, c.owner)) is not None:
            row = self.row(c.node, c.pool, held)
            if row["service"] != c.service or c.port not in (None, held) or row["ttl"] != c.ttl_s:
                raise errors.OwnerConflict("")
            return None, True
        self.check_quota(c)
        if c.port is not None and not self.inside(c.pool, c.port):
            raise errors.PortOutOfRange("")
        numbers = [n for piece in self.specs[c.pool].ports for n in piece if c.port in (None, n)]
        quarantined = {n: self.row(c.node, c.pool, n) for n in numbers if self.row(c.node, c.pool, n)["state"] == "QUARANTINED"}
        mine = [n for n, row in quarantined.items() if row["owner"] == c.owner]
        same = [n for n, row in quarantined.items() if c.service and row["service"] == c.service and row["mixed"] <= now]
        rows = {n: dict(self.row(c.node, c.pool, n)) for n in numbers}
        for row in rows.values():
            self.notice(row, hold, now)
        free = [n for n, row in rows.items() if row["state"] == "FREE"]
        if not (mine or same or free):
            raise (errors.PoolExhausted if c.port is None else errors.PortUnavailable)("")
        return mine or same or (self.above_the_band(c, free) if c.port is None else free), bool(mine or same)

    def above_the_band(self, c, free):
        """Of the free ports those that a pick without a number takes: the lowest ones of the pool come last."""
        numbers = [n for piece in self.specs[c.pool].ports for n in piece]
        return [n for n in free if n in numbers[self.specs[c.pool].static :]] or free

    def check_quota(self, c):
        """A service above its hard quota takes nothing, whatever there is."""
        held = sum(row["state"] == "ALLOCATED" and row["service"] == c.service for row in self.of(c.node, c.pool).values())
        for quota in self.specs[c.pool].quotas:
            if quota.service == c.service and held >= quota.hard:
                raise errors.QuotaExceeded("")


class Obedience:
    """Guarantee 3, read off the events alone: who may take over a port that was somebody else's."""

    def __init__(self):
        self.last = {}

    def see(self, event):
        place = (event.node, event.pool, event.port)
        owner, service, hold, token, mixed = self.last.get(place, ("", "", 0, 0, 0))
        if event.kind == "allocated":
            mine = event.owner == owner or (event.service and event.service == service and event.ts >= mixed)
            assert mine or event.ts >= hold, (
                f"{place} went from {owner}/{service} to {event.owner}/{event.service} {hold - event.ts} ns early"
            )
        if event.kind in ("allocated", "adopted"):
            assert event.token == event.seq > token
            mixed = max(mixed, hold) if event.service != service else mixed
            owner, service, token = event.owner, event.service, event.token
        if event.kind in ("released", "held", "unblocked"):
            assert event.until >= hold, "a hold was shortened"
            hold = event.until
        if event.kind == "freed":
            assert event.cause == "operator" or event.ts >= hold
            hold = mixed = 0  # an operator's word ends both
        self.last[place] = (owner, service, hold, token, mixed)
