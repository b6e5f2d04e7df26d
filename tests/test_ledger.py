"""The record of all ports: views, counts, digests, dumps, and the index against a look at every row."""

from __future__ import annotations

import random

import attrs
import pytest

from portfsm import _dump
from portfsm._index import index_of
from portfsm._ledger import Ledger, apply_all
from portfsm._replay import replay
from portfsm.commands import Adopt, Allocate, Block, DefinePool, Free, Hold, Open, Release, ReleaseOwner, Sweep, Unblock, Withdraw
from portfsm.errors import CommandRejected, PoolExhausted, PortOutOfRange, UnknownPool
from portfsm.events import Event
from portfsm.specs import PoolSpec
from portfsm.states import EventKind, PortState
from portfsm.values import PoolStatistics


def scenario(world):
    """One of everything that a dump can carry."""
    world.do(Open(1, "holder", "boot", 5, 5))
    world.define("q", ports="50-60,70", order="random", seed="seed", hold_s=0.0)
    world.do(Adopt("p", 7, owner="outside below", service="ä"))
    world.do(Adopt("p", 200, owner="outside above"))
    world.do(Withdraw(world.allocate("a", service="s", node="n")))
    world.release(world.allocate("b", service="s", node="n"), cause="expired")
    world.do(Block("p", 103, node="n", reason='a "reason"', for_s=9))
    world.do(Hold("p", 102, node="n", hold_s=99, reason="asked for"))
    world.do(Block("p", 102, node="n", reason="kept"))
    world.do(Block("p", 101, reason="r"))
    world.do(Unblock("p", 101, reason="mended"))
    world.release(world.allocate("c", "q"))
    world.ledger.fold([event := Event(world.ledger.seq + 1, world.now, EventKind.PROXY_JOINED, data={"proxy": "one"})])
    world.events.append(event)
    world.define(ports="100-103,105")


def reloaded(ledger) -> Ledger:
    other = Ledger()
    _dump.load(other, list(_dump.dump(ledger)))
    return other


# ---------------------------------------------------------------------- digests and dumps


GOLDEN = {1: "61844945048068a1"}


def test_a_state_that_digests_otherwise_on_another_platform_or_version(world):
    """Heads that people keep elsewhere would fit no more: who changes the form raises `SCHEMA`, and this table grows."""
    scenario(world)
    assert world.ledger.digest()[:16] == GOLDEN[_dump.SCHEMA]


def test_a_dump_that_loses_something(world):
    scenario(world)
    other = reloaded(world.ledger)
    assert list(_dump.dump(other)) == list(_dump.dump(world.ledger))
    assert list(other.ports()) == list(world.ledger.ports())
    assert other.statistics() == world.ledger.statistics()
    assert (other.opened, other.epoch, other.proxies, other.seeds) == (
        world.ledger.opened, world.ledger.epoch, world.ledger.proxies, world.ledger.seeds,
    )  # fmt: skip
    for pool in world.ledger.select():
        twin = other.pool(pool.name, pool.node)
        for view in world.ledger.ports(pool.name, node=pool.node):
            assert twin.note(twin.row(view.port)) == pool.note(pool.row(view.port))
            assert twin.until[twin.row(view.port)] == pool.until[pool.row(view.port)]


@pytest.mark.parametrize("copied", [Ledger.copy, reloaded])
def test_a_copy_that_goes_on_otherwise(world, copied):
    """Both meet the same commands; what one does does not reach the other."""
    scenario(world)
    other = copied(world.ledger)
    assert other.digest() == world.ledger.digest()
    frozen = copied(world.ledger)
    before = frozen.digest()
    after = world.ledger.seq
    for owner in ("x", "y", "z"):
        world.allocate(owner, service="s", node="n" if owner == "x" else "")
    world.pass_time(3600)
    for command in (
        Sweep(),
        ReleaseOwner("outside below"),
        DefinePool(PoolSpec("p", ports="100-110")),
        Withdraw(world.ledger.find("y")[0]),
    ):
        world.do(command)
    apply_all(other, [event for event in world.events if event.seq > after])
    assert other.digest() == world.ledger.digest() == world.replayed().digest()
    assert list(other.ports()) == list(world.ledger.ports())
    assert frozen.digest() == before


@pytest.mark.parametrize("rows", [1, 511, 512, 513, 1024, 1300])
def test_a_dump_that_loses_rows_where_a_line_ends(empty, rows):
    empty.define(ports="1000-2999")
    for number in range(rows):
        empty.do(Hold("p", 1000 + number, hold_s=number))
    empty.do(Hold("p", 1000, hold_s=5))
    assert reloaded(empty.ledger).digest() == empty.ledger.digest()
    assert reloaded(empty.ledger).statistics().quarantined == rows


def test_equal_states_that_digest_differently_because_their_columns_reach_differently(world):
    """A refused event may have made rows; an adopted port that retired may have moved the base."""
    world.put("QUARANTINED")
    digest = world.ledger.digest()
    world.ledger.pools["", "p"].reach(103)
    assert world.ledger.digest() == digest
    world.ledger.pools["", "p"].reach(50)
    assert world.ledger.digest() == digest
    assert list(world.ledger.ports(state=PortState.FREE)) == []
    assert world.allocate("x").port == 101


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.do(Hold("p", 100, hold_s=11)),
        lambda world: world.do(Withdraw(world.allocate("a"))),
        lambda world: world.allocate("b"),
        lambda world: world.define(hold_s=11.0),
        lambda world: world.define(order="random", seed="x"),
        lambda world: world.define("q", ports="7"),
        lambda world: world.do(Open(world.ledger.epoch + 1, "h", "b", 1, 1)),
    ],
)
def test_different_states_that_digest_alike(world, change):
    world.do(Hold("p", 103, hold_s=5))
    twin = reloaded(world.ledger)
    change(world)
    twin.seq, twin.ts = world.ledger.seq, world.ledger.ts
    assert twin.digest() != world.ledger.digest()


@pytest.mark.parametrize(
    "lines",
    [[], [b"[]\n"], [b"junk\n"], [b"{}\n"], [b"[1,2,3]\n"], [b"[99,0,0,0,{},{},{}]\n"], [b'[1,1,1,1,{},{"p":{"ports":"2-1"}},{}]\n']],
)
def test_a_snapshot_of_another_schema_read_on_a_guess(lines):
    with pytest.raises((ValueError, KeyError, TypeError)):
        _dump.load(Ledger(), lines)


# ---------------------------------------------------------------------- views


def test_a_port_shown_with_facts_of_another_time(world):
    view = world.ledger.port("p", 103)
    assert (view.node, view.pool, view.port, view.state) == ("", "p", 103, PortState.FREE)
    assert (view.owner, view.service, view.token, view.since, view.until, view.reason) == ("", "", 0, None, None, "")
    lease = world.allocate("a", service="s", port=103)
    assert world.ledger.port("p", 103).until is None
    world.release(lease)
    released = world.now
    world.pass_time(1)
    assert world.ledger.port("p", 103).since == released
    assert world.ledger.port("p", 103).reason == "released"
    second = world.allocate("b", service="s")
    view = world.ledger.port("p", 103)
    assert (view.since, view.until, view.token, view.owner, view.reason) == (world.now, None, second.token, "b", ""), (
        "the old hold is not the lease's end"
    )


def test_a_hold_that_seems_to_begin_anew_when_it_is_lengthened(world):
    world.release(world.allocate("a"))
    since = world.now
    world.pass_time(1)
    world.do(Hold("p", 100, hold_s=60))
    assert world.ledger.port("p", 100).since == since


def test_a_lease_that_seems_to_begin_with_its_withdrawal(world):
    lease = world.allocate("a")
    world.pass_time(1)
    world.do(Withdraw(lease))
    assert world.ledger.find("a") == (lease,)
    assert world.ledger.port("p", 100).since == lease.since_ns


def test_a_view_of_another_node_or_pool(world):
    world.define("q", ports="100-103")
    world.allocate("a", node="n")
    assert world.state(100) == "FREE"
    assert world.state(100, node="n") == "ALLOCATED"
    assert world.state(100, pool="q", node="n") == "FREE"
    assert [view.node for view in world.ledger.ports("p")] == ["n"]
    assert list(world.ledger.ports("q")) == list(world.ledger.ports(node="")) == []


def test_a_list_of_ports_out_of_order(world):
    scenario(world)
    places = [(view.node, view.pool, view.port) for view in world.ledger.ports()]
    assert places == sorted(places)
    assert len(places) == 7
    assert [view.port for view in world.ledger.ports(state=PortState.BLOCKED)] == [102, 103]
    assert {view.state for view in world.ledger.ports(state=PortState.QUARANTINED)} == {PortState.QUARANTINED}
    assert [(view.pool, view.owner) for view in world.ledger.ports(state=PortState.FREE)] == [("q", "")]


def test_a_pool_or_port_that_is_made_up(world):
    for call in (
        world.ledger.spec,
        world.ledger.statistics,
        lambda name: list(world.ledger.ports(name)),
        lambda name: world.ledger.port(name, 100),
    ):
        with pytest.raises(UnknownPool, match="'nope'"):
            call("nope")
    for port in (99, 104, 0, -1, 70_000):
        with pytest.raises(PortOutOfRange, match="100-103"):
            world.ledger.port("p", port)


def test_looking_that_leaves_a_trace(world):
    """A pool that was never touched costs nothing, and asking after it does not touch it."""
    digest = world.ledger.digest()
    world.ledger.port("p", 100, node="elsewhere")
    assert world.ledger.statistics("p", node="elsewhere") == PoolStatistics(4, 4, 0, 0, 0, 0)
    with pytest.raises(PortOutOfRange):
        world.ledger.port("p", 5, node="elsewhere")
    assert not world.ledger.pools
    assert world.ledger.statistics() == PoolStatistics(0, 0, 0, 0, 0, 0)
    assert world.ledger.digest() == digest


def test_counts_that_mix_up_what_has_retired(world):
    """Held outside the ranges: not in the size, not in its state's count."""
    for owner in "abcd":
        world.allocate(owner)
    world.release(world.ledger.find("b")[0])
    world.do(Block("p", 102, reason="r"))
    counts = PoolStatistics(size=4, free=0, allocated=2, quarantined=1, blocked=1, retired=0, next_free_at=world.now + 10_000_000_000)
    assert world.ledger.statistics("p") == counts
    world.define(ports="103-104")
    assert world.ledger.statistics("p") == PoolStatistics(size=2, free=1, allocated=1, quarantined=0, blocked=0, retired=3)
    world.allocate("e", node="n")
    assert world.ledger.statistics("p") == PoolStatistics(size=4, free=2, allocated=2, quarantined=0, blocked=0, retired=3)
    world.define(ports="100-104")
    assert world.ledger.statistics("p", node="") == attrs.evolve(counts, size=5, free=1)


def test_leases_of_one_owner_lost_among_many(world):
    world.define("q", ports="1-9")
    expected = [world.allocate("a", pool, node=node) for node in ("", "n") for pool in ("p", "q")]
    world.allocate("b")
    assert list(world.ledger.find("a")) == expected
    assert world.ledger.find("nobody") == ()


# ---------------------------------------------------------------------- the index, against a look at every row


def by_hand(world, owner, service):
    """The port that the contract's rules choose, found by looking at every row; None if there is none."""
    pool, spec = world.ledger.pool("p", ""), world.ledger.specs["p"]
    views = [pool.view(number) for piece in spec.ports for number in piece]
    held = [view for view in views if view.state is PortState.QUARANTINED]
    kin = [view for view in held if service and view.service == service and pool.note(pool.row(view.port)).mixed_until <= world.now]
    for found in ([view for view in held if view.owner == owner], kin):
        if found:
            return max(found, key=lambda view: (view.since, view.port)).port
    free = [view for view in views if view.state is PortState.FREE]
    due = [view for view in held if view.until <= world.now]
    if not spec.hold_s:
        ended = [view for view in views if view.state is PortState.BLOCKED and view.until is not None and view.until <= world.now]
        due += [view for view in ended if pool.note(pool.row(view.port)).held_until <= world.now]
    if spec.order == "lowest":
        return min((view.port for view in free + due), default=None)
    if free:
        return min(free, key=lambda view: (view.since or 0, view.port)).port
    return min(due, key=lambda view: (view.until, view.port)).port if due else None


def given(world, owner, service):
    """What an allocate gives; None for a refusal."""
    try:
        return world.allocate(owner, service=service).port
    except PoolExhausted:
        return None


@pytest.mark.parametrize("hold_s", [0.0, 3.0])
@pytest.mark.parametrize("order", ["lowest", "longest-idle", "random"])
def test_a_choice_that_a_look_at_every_row_would_not_make(empty, order, hold_s):
    """Ten thousand random steps in a pool that is nearly always full; ranges come and go."""
    dice = random.Random(f"{order} {hold_s}")
    world = empty
    world.define(ports="100-119,125", order=order, hold_s=hold_s, seed="s")
    refused = 0
    for step in range(10_000):
        roll = dice.random()
        port = dice.randrange(98, 127)
        if roll < 0.45:
            owner, service = f"o{dice.randrange(30)}", dice.choice(["", "", "s1", "s2", "s3"])
            if not world.ledger.find(owner):
                expected, twin = by_hand(world, owner, service), type(world)()
                twin.ledger, twin.now = reloaded(world.ledger), world.now
                if order != "random":
                    assert given(world, owner, service) == expected, f"step {step}"
                elif (got := given(world, owner, service)) is None:
                    assert expected is None, f"step {step}"
                else:
                    assert got == given(twin, owner, service), f"step {step}"
        elif roll < 0.8:
            held = list(world.ledger.ports(state=PortState.ALLOCATED))
            if held:
                view = dice.choice(held)
                lease = world.ledger.find(view.owner)[0]
                block = {"block": "r", "for_s": dice.choice([None, 0.0, 2.0])} if dice.random() < 0.15 else {}
                world.do(Release(lease, cause=dice.choice(["released", "released", "cancelled"]), **block))
        elif roll < 0.9:
            world.pass_time(dice.choice([0.0, 0.5, 1.0, 3.0]))
        elif roll < 0.98:
            if port in {101, 125, 119} or roll < 0.95:
                attempt = dice.choice(
                    [Hold("p", port, hold_s=2), Free("p", port, reason="r"), Unblock("p", port), Adopt("p", port, owner=f"x{step}")]
                )
                try:
                    world.do(attempt)
                except CommandRejected:
                    refused += 1
        elif roll < 0.985:
            world.do(Sweep())
        else:
            world.define(ports=dice.choice(["100-119,125", "100-119,125", "110-125", "98-105"]), order=order, hold_s=hold_s, seed="s")
        pool = world.ledger.pools.get(("", "p"))
        if pool is not None and step % 7 == 0:
            index = index_of(pool)
            views = [pool.view(pool.base + offset) for offset in pool.offsets()]
            assert {owner: pool.base + offset for owner, offset in index.holders.items()} == {
                view.owner: view.port for view in views if view.state is PortState.ALLOCATED
            }
            ends = [view.until for view in views if view.until is not None]
            assert index.next_due(pool) == min(ends, default=None)
            due = sorted((view.until, view.port) for view in views if view.until is not None and view.until <= world.now)
            for limit in (0, 1, 3, 1000):
                assert [pool.base + offset for offset in index.due_by(pool, world.now, limit)] == [port for _, port in due[:limit]]
    assert world.replayed().digest() == world.ledger.digest()
    assert refused < 1000, "most steps lead somewhere"


def test_an_index_that_grows_for_ever(empty):
    """Ports that move on leave entries behind; they are cleared away now and then."""
    empty.define(ports="100-103", order="longest-idle", hold_s=10.0)
    largest = 0
    for number in range(4000):
        lease = empty.allocate("a", service="s")
        empty.release(lease)
        empty.do(Hold("p", lease.port, hold_s=20 + number))
        index = index_of(empty.ledger.pools["", "p"])
        largest = max(
            largest, len(index.due), *map(len, index.by_owner.values()), *map(len, index.by_service.values()), len(index.idle or ())
        )
    assert largest < 1100


def test_an_index_that_does_not_hear_of_events_folded_in(world):
    """A ledger that has decided keeps an index; `fold` and `replay(onto=)` are ways to change it too."""
    lease = world.allocate("a", service="s")
    events = world.decide(Release(lease))
    world.ledger.fold(events)
    world.events += events
    assert world.do(ReleaseOwner("a")) == []
    events = world.decide(Allocate("p", owner="b", service="s"))
    replay(events, onto=world.ledger)
    world.events += events
    assert world.do(Allocate("p", owner="b", service="s")) == []
    assert world.do(ReleaseOwner("b")) == ["released"]
    assert world.ledger.digest() == world.replayed().digest()
