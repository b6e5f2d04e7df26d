"""Every state that a few ports, owners and services can get into, breadth first, and every call in each of them.

`python -m tests.small_world` walks the larger worlds and prints the figures in docs/small-world.md.

A state is what the future depends on: times are ticks from now, and what is over is over. Tokens are left out but
for whether the port ever had a lease: the one below its last token stands for any former lease, whether there was
one or not, so the walk makes a few late calls more than the world could. States that differ by the names of owners
or of services only are one state: no rule compares names, and every call is made under each of them.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter, deque
from itertools import permutations, product

from portfsm._decide import decide
from portfsm._dump import dump, load
from portfsm._index import index_of
from portfsm._ledger import Ledger, apply_all
from portfsm._pool import ALLOCATED, BLOCKED, FREE, OUTSIDE, QUARANTINED, STATES
from portfsm._table import TRANSITIONS
from portfsm.commands import Adopt, Allocate, Block, DefinePool, Free, Hold, Open, Release, ReleaseOwner, Sweep, Unblock, Withdraw
from portfsm.errors import CommandRejected, IllegalTransition
from portfsm.specs import PoolSpec
from portfsm.values import Lease

TICK = 1_000_000_000
START = 10**18
OPEN = 1 << 62
"""End of a debt whose lease still runs."""


class World:
    """What there is, and what may be called. `pairs` is who asks for what: "ax" is owner a of service x.

    `alike`: ports may change places too. Every choice of a port is also a call by number, so no state is missed; a
    choice by the pool's order is then seen in one arrangement of the ports only.
    """

    def __init__(self, ports, pairs, *, hold=2, holds=(1,), blocks=(None, 1), adopt=True, numbered=True, withdraw=True, alike=False):
        self.ports, self.hold = range(1, ports + 1), hold * TICK
        self.pairs = [(pair[0], pair[1:]) for pair in pairs]
        self.holds, self.blocks, self.adopt, self.numbered, self.withdraw, self.alike = holds, blocks, adopt, numbered, withdraw, alike
        self.fixed = list(self._fixed())
        self.renamings = list(self._renamings())
        self.codes = {}

    def _fixed(self):
        yield Sweep()
        yield from (ReleaseOwner(owner) for owner in sorted({owner for owner, _ in self.pairs}))
        for owner, service in self.pairs:
            yield from (Allocate("p", owner=owner, service=service, port=port) for port in (None, *self.ports) if self.numbered or not port)
            yield from (Adopt("p", port, owner=owner, service=service) for port in self.ports if self.adopt)
        for port in self.ports:
            yield Free("p", port, reason="r")
            yield Unblock("p", port)
            yield from (Hold("p", port, hold_s=length) for length in self.holds)
            yield from (Block("p", port, reason="r", for_s=length) for length in self.blocks)

    def _renamings(self):
        """Those that leave the same pairs."""
        owners, services = (sorted({pair[place] for pair in self.pairs}) for place in (0, 1))
        for o, s in product(permutations(owners), permutations(services)):
            mine, theirs = {"": "", **dict(zip(owners, o, strict=True))}, {"": "", **dict(zip(services, s, strict=True))}
            if {(mine[owner], theirs[service]) for owner, service in self.pairs} == set(self.pairs):
                yield mine, theirs

    def calls(self, ledger):
        """(call, whether it comes from a former holder)."""
        yield from ((call, False) for call in self.fixed)
        for boot in (ledger.opened["boot"], f"b{ledger.epoch}"):
            yield Open(ledger.epoch + 1, "h", boot, 1, 1), False
        pool = ledger.pool("p", "")
        for offset, token in enumerate(pool.token):
            for late in (False, True) if token else ():
                lease = Lease("p", "", pool.base + offset, "a", "x", token - late, START)
                yield Release(lease), late
                yield Release(lease, cause="cancelled"), late
                if self.withdraw:
                    yield Withdraw(lease), late
                yield from ((Release(lease, block="r", for_s=length), late) for length in self.blocks)

    def start(self):
        ledger = Ledger()
        for command in (Open(1, "h", "b", 1, 1), DefinePool(PoolSpec("p", ports=self.ports, hold_s=self.hold / TICK))):
            apply_all(ledger, decide(ledger, command, now_ns=START))
        return Place(ledger, START, dict.fromkeys(self.ports, ()))

    def key(self, place):
        """The state as a few small numbers, one a port, the least over all renamings."""
        pool, now = place.ledger.pool("p", ""), place.now
        order = sorted({pool.since[offset] for offset in pool.offsets(states=bytes((QUARANTINED,))) if pool.owner[offset]})
        rows = []
        for port in self.ports:
            facts = (_facts(pool, pool.row(port), now, order), tuple((o, s, min(end - now, OPEN // 2)) for o, s, end in place.debts[port]))
            codes = self.codes.get(facts)
            if codes is None:
                codes = self.codes[facts] = [self._code(facts, *names) for names in self.renamings]
            rows.append(codes)
        return min(tuple(sorted(row)) if self.alike else row for row in zip(*rows, strict=True))

    def _code(self, facts, owners, services):
        (state, owner, service, *rest), debts = facts
        renamed = state, owners[owner], services[service], *rest, tuple(sorted((owners[o], services[s], left) for o, s, left in debts))
        return self.codes.setdefault(("code", renamed), len(self.codes))


def _facts(pool, offset, now, order):
    """What the machine itself may still look at in a port's row."""
    if offset < 0 or pool.state[offset] == FREE:
        return FREE, "", "", offset >= 0 and pool.token[offset] > 0
    state, note, until = pool.state[offset], pool.note(offset), pool.until[offset]
    left, names, mixed = max(until - now, 0), (pool.owner[offset], pool.service[offset]), max(note.mixed_until - now, 0)
    if state == ALLOCATED:
        return state, *names, left, mixed, note.withdrawn
    if state == BLOCKED:
        return state, *names, left if until else None, mixed, max(note.held_until - now, 0), pool.token[offset] > 0
    taken = max(pool.spec.hold_ms, note.hold_ms or (until - pool.since[offset]) // 1_000_000)
    return state, *names, left, mixed, taken, order.index(pool.since[offset]) if pool.owner[offset] else None, pool.token[offset] > 0


class Place:
    """A state, with the way to it and whom each port may still get traffic for: (owner, service, until when)."""

    __slots__ = ("came", "debts", "ledger", "now")

    def __init__(self, ledger, now, debts, came=None):
        self.ledger, self.now, self.debts, self.came = ledger, now, debts, came

    def path(self):
        calls, came = [], self.came
        while came:
            came, call = came
            calls.append(str(call))
        return "\n".join(reversed(calls))


class Walk:
    """One walk through one world; what it saw is in its attributes."""

    def __init__(self, world):
        self.world, self.seen, self.depth = world, set(), 0
        self.cells, self.edges = Counter(), Counter()

    def run(self, *, states=1 << 40):
        """Walk until every state was seen, or that many."""
        todo = deque([(self.world.start(), 0)])
        self.seen.add(self.world.key(todo[0][0]))
        while todo and len(self.seen) < states:
            place, self.depth = todo.popleft()
            try:
                reached = list(self.following(place))
            except (AssertionError, IllegalTransition) as fault:
                fault.add_note(f"after\n{place.path()}")
                raise
            for following in reached:
                if (key := self.world.key(following)) not in self.seen:
                    self.seen.add(key)
                    todo.append((following, self.depth + 1))
        return self

    def following(self, place):
        """Where one call or one tick leads; every check of a state and of the calls in it."""
        before, restored = place.ledger.digest(), Ledger()
        load(restored, dump(place.ledger))
        assert restored.digest() == before, "a crash changes the state"
        check_state(self.world, place)
        for call, late in self.world.calls(place.ledger):
            following = self.after(place, call, restored, late=late)
            if following is not None:
                yield following
        assert place.ledger.digest() == restored.digest() == before, "deciding, or being refused, changes the ledger"
        self.edges["tick"] += 1
        now = place.now + TICK
        yield Place(place.ledger.copy(), now, {port: running(debts, now) for port, debts in place.debts.items()}, (place.came, "tick"))

    def after(self, place, call, restored, *, late):
        name = type(call).__name__.lower()
        events = answer(place.ledger, call, place.now)
        assert events == answer(restored, call, place.now), f"{call}: a crash changes the answer"
        if not events:
            self.edges["refused" if events is None else "nothing to do"] += 1
            return None
        assert not late, f"{call} is late and changes something: {events}"
        self.edges[name] += 1
        ledger = place.ledger.copy()
        index_of(ledger.pool("p", ""))  # so that this step keeps it, and the repeated call goes by it
        apply_all(ledger, events)
        if not isinstance(call, Open):
            assert not answer(ledger, call, place.now), f"{call} repeated records something new"
        debts = self.check_edge(place, call, events, ledger)
        return Place(ledger, place.now, debts, (place.came, call))

    def check_edge(self, place, call, events, ledger):
        """Table, debts and blocks along the events; returns the debts after them."""
        old, new, debts = place.ledger.pool("p", ""), ledger.pool("p", ""), dict(place.debts)
        states = {port: STATES[old.code(port)] for port in self.world.ports}
        last = {
            port: (old.owner[o], old.service[o], old.until[o]) if (o := old.row(port)) >= 0 else ("", "", 0) for port in self.world.ports
        }
        for event in events:
            if not event.port:
                continue
            cell = states[event.port], event.kind
            assert cell in TRANSITIONS, f"{call}: {event} in {cell[0]}"
            self.cells[cell] += 1
            states[event.port] = TRANSITIONS[cell]
            debts[event.port] = owed(debts[event.port], event, last[event.port], self.world.hold)
        assert all(STATES[new.code(port)] is states[port] for port in self.world.ports), f"{call}: the rows are not what the table says"
        rebooted = isinstance(call, Open) and call.boot != place.ledger.opened["boot"]
        for port in self.world.ports:
            if old.code(port) == BLOCKED:
                check_block(old, new, port, call, place.now)
            least = place.now + self.world.hold if rebooted and old.code(port) == QUARANTINED else 0
            if (least := max(least, hold_end(old, port))) > place.now and not isinstance(call, Free):
                assert hold_end(new, port) >= least, f"{call} shortens the hold on {port}"
        return debts


def answer(ledger, call, now):
    """The events, or None for a refusal."""
    try:
        return decide(ledger, call, now_ns=now)
    except CommandRejected:
        return None


def check_state(world, place):
    counts, pool = place.ledger.statistics("p"), place.ledger.pool("p", "")
    codes = Counter(pool.code(port) for port in world.ports)
    assert (counts.size, counts.retired, codes[OUTSIDE]) == (len(world.ports), 0, 0)
    assert (counts.free, counts.allocated, counts.quarantined, counts.blocked) == tuple(
        codes[code] for code in (FREE, ALLOCATED, QUARANTINED, BLOCKED)
    ), "the counts do not add up"
    holders = [pool.owner[offset] for offset in pool.offsets(states=bytes((ALLOCATED,)))]
    assert len(set(holders)) == len(holders), f"an owner holds two ports: {holders}"
    for port in world.ports:
        holding = [debt[:2] for debt in place.debts[port] if debt[2] == OPEN]
        row = pool.row(port)
        expected = [(pool.owner[row], pool.service[row])] if pool.code(port) == ALLOCATED else []
        assert holding == expected, f"port {port} is held by {expected}, its events say {holding}"


def check_block(old, new, port, call, now):
    """A block ends by `unblock` and `adopt` on the port, or when its time is up; its end stays."""
    end, after = old.until[old.row(port)], new.row(port)
    if 0 < end <= now:
        return
    if new.code(port) == BLOCKED:
        assert new.until[after] == end, f"{call} moves the end of a block"
    else:
        assert isinstance(call, (Unblock, Adopt)), f"{call} loses a block"
        assert call.port == port, f"{call} loses a block on {port}"


def hold_end(pool, port):
    """Until when the port's row keeps strangers off, or would if its lease or block ended now."""
    if (offset := pool.row(port)) < 0:
        return 0
    return pool.note(offset).held_until if pool.state[offset] == BLOCKED else pool.until[offset]


def is_kin(event, holder):
    """Whether what was meant for `holder` finds what it expects with the new one."""
    return event.owner == holder[0] or event.service == holder[1] != ""


def running(debts, now):
    return tuple(debt for debt in debts if debt[2] > now)


def owed(debts, event, last, hold):
    """The debts after `event`; fails where a stranger gets the port before they are paid. Who had it last may have it again."""
    debts, kind = running(debts, event.ts), event.kind
    if kind in ("allocated", "adopted"):
        strangers = [debt for debt in debts if not is_kin(event, debt)]
        assert not strangers or event.owner == last[0] or event.reason, f"{event} although {debts}"
        return *debts, (event.owner, event.service, OPEN)
    if kind == "freed":
        assert event.cause == "operator" or not debts, f"{event} although {debts}"
        return ()
    if kind not in ("released", "blocked"):
        assert kind not in ("held", "unblocked") or not debts or event.until >= max(until for _, _, until in debts), (
            f"{event} forgets {debts}"
        )
        return debts
    end = event.ts if event.cause == "cancelled" else event.ts + hold
    ended = {debt[:2]: debt[2] for debt in debts if debt[2] != OPEN}
    ended |= {debt[:2]: max(end, ended.get(debt[:2], 0)) for debt in debts if debt[2] == OPEN}
    debts = running(((*names, until) for names, until in ended.items()), event.ts)
    if kind == "released" and event.until < max([end, *(until for _, _, until in debts)]):
        raise AssertionError(f"{event} is short of {debts}")
    return debts


ALL, TWO = ("ax", "ay", "bx", "by"), ("ax", "by")
SMALL = {
    "1 port, all pairs": World(1, ALL, holds=(1, 3)),
    "2 ports alike, 2 pairs": World(2, TWO, alike=True),
    "2 ports alike, all pairs, hold 1, a controller's calls": World(
        2, ALL, hold=1, holds=(), blocks=(None,), adopt=False, withdraw=False, alike=True
    ),
}
LARGE = {
    "2 ports, 2 pairs": World(2, TWO),
    "2 ports, all pairs, hold 1": World(2, ALL, hold=1),
    "3 ports alike, 2 pairs, hold 1": World(3, TWO, hold=1, alike=True),
    "3 ports alike, all pairs, hold 1, a controller's calls": World(
        3, ALL, hold=1, holds=(), blocks=(None,), adopt=False, withdraw=False, alike=True
    ),
}


def main(names):
    gc.disable()  # millions of small tuples, and no cycles
    for name, world in (SMALL | LARGE).items():
        if names and name not in names:
            continue
        start = time.process_time()
        walk = Walk(world).run()
        figures = len(walk.seen), sum(walk.edges.values()), walk.depth, len(walk.cells), round(time.process_time() - start)
        print("{}: {:,} states, {:,} calls, {} deep, {} cells, {} s".format(name, *figures), flush=True)
        print("   ", ", ".join(f"{what} {count:,}" for what, count in walk.edges.most_common()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
