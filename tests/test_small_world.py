"""Every state that two ports, two owners and two services can get into, breadth first, and every call in each of them."""

from __future__ import annotations

from collections import deque

from portfsm._decide import decide
from portfsm._ledger import Ledger, apply_all
from portfsm.commands import Adopt, Allocate, Block, DefinePool, Free, Hold, Open, ReleaseOwner, Sweep, Unblock
from portfsm.errors import CommandRejected
from portfsm.specs import PoolSpec
from portfsm.states import PortState

TICK = 1_000_000_000
PORTS, OWNERS, SERVICES = (1, 2), ("a", "b"), ("x", "y")


def calls():
    yield Sweep()
    for owner in OWNERS:
        yield ReleaseOwner(owner)
        yield ReleaseOwner(owner, cause="cancelled")
        for service in SERVICES:
            yield Allocate("p", owner=owner, service=service)
    for port in PORTS:
        yield Adopt("p", port, owner="b", service="y")
        yield Hold("p", port, hold_s=1)
        yield Free("p", port, reason="r")
        yield Block("p", port, reason="r", for_s=1)
        yield Unblock("p", port)


class Place:
    """A state as one sees it from now on: ends as ticks from now, tokens left out, and whom each port may still get traffic for."""

    def __init__(self, ledger, now, debts):
        self.ledger, self.now, self.debts = ledger, now, debts

    def key(self):
        pool = self.ledger.pool("p", "")
        rows = []
        for port in PORTS:
            offset, (owner, service, until) = pool.row(port), self.debts[port]
            debt = (owner, service, (until - self.now) // TICK) if until > self.now else ()
            if offset < 0:
                rows.append((debt,))
                continue
            left = (pool.until[offset] - self.now) // TICK if pool.until[offset] else None
            held = max(0, pool.note(offset).held_until - self.now) // TICK
            rows.append((pool.state[offset], pool.owner[offset], pool.service[offset], left if left is None else max(left, 0), held, debt))
        return tuple(rows)

    def after(self, call):
        """The next state, or None where the call is refused or changes nothing."""
        try:
            events = decide(self.ledger, call, now_ns=self.now)
        except CommandRejected:
            return None
        if not events:
            return None
        ledger, debts = self.ledger.copy(), dict(self.debts)
        apply_all(ledger, events)
        for event in events:
            debts[event.port] = owed(debts[event.port], event)
        return Place(ledger, self.now, debts)


def owed(debt, event):
    """Whose traffic may still arrive at the port, and until when; fails where a stranger gets it before."""
    owner, service, until = debt
    match event.kind:
        case "allocated":
            assert event.ts >= until or event.owner == owner or event.service == service, f"{event} although {debt}"
            return event.owner, event.service, max(until, 1 << 61)
        case "adopted":
            return event.owner, event.service, 1 << 61
        case "released" if event.cause == "cancelled":
            return owner, service, event.until
        case "released" | "unblocked":
            return owner, service, event.until
        case "freed" if event.cause == "operator":
            return "", "", 0
        case _:
            return debt


def test_a_way_to_give_a_port_to_a_stranger_too_early():
    """In each state each call; the machine itself refuses what its table does not have, and the debts tell the rest."""
    ledger, now = Ledger(), 10**18
    for command in (Open(1, "h", "b", 1, 1), DefinePool(PoolSpec("p", ports="1-2", hold_s=2))):
        apply_all(ledger, decide(ledger, command, now_ns=now))
    start = Place(ledger, now, dict.fromkeys(PORTS, ("", "", 0)))
    seen, todo, kinds = {start.key()}, deque([start]), set()
    while todo:
        place = todo.popleft()
        reached = [Place(place.ledger, place.now + TICK, place.debts), *filter(None, map(place.after, calls()))]
        for following in reached:
            if (key := following.key()) not in seen:
                seen.add(key)
                todo.append(following)
                kinds |= {view.state for view in following.ledger.ports()}
                counts = following.ledger.statistics("p")
                assert counts.free + counts.allocated + counts.quarantined + counts.blocked == counts.size == 2
    assert kinds == {PortState.ALLOCATED, PortState.QUARANTINED, PortState.BLOCKED}
    assert len(seen) > 1000
