"""Events met by `apply`: every cell of the table, and every detail that contradicts a port's record."""

from __future__ import annotations

import msgspec
import pytest

from portfsm._index import index_of
from portfsm._ledger import Ledger, apply, apply_all
from portfsm._table import TRANSITIONS
from portfsm.commands import Block, DefinePool, Free, Hold, Open, Sweep
from portfsm.errors import CommandRejected, IllegalTransition
from portfsm.events import Event
from portfsm.specs import PoolSpec
from portfsm.states import PORT_KINDS, EventKind, PortState

SECOND = 1_000_000_000
HOLDS = (EventKind.RELEASED, EventKind.HELD, EventKind.UNBLOCKED)


def craft(world, kind, *, port=100, pool="p", **changed):
    """The event of that kind that would be right for the port's present lease, save for what is `changed`."""
    seq, ts = world.ledger.seq + 1, world.now
    fields = {"token": 0, "owner": "", "service": ""}
    row = world.ledger.pools.get(("", "p"))
    if row is not None and row.row(port) >= 0:
        offset = row.row(port)
        fields = {"token": row.token[offset], "owner": row.owner[offset], "service": row.service[offset]}
    if kind in (EventKind.ALLOCATED, EventKind.ADOPTED):
        fields = {"token": seq, "owner": fields["owner"] or "somebody", "service": fields["service"]}
    if kind in HOLDS:
        fields["until"] = ts + 10 * SECOND
    if kind is EventKind.FREED:
        fields = {"cause": "operator"}
    return Event(**{"seq": seq, "ts": ts, "kind": kind, "pool": pool, "port": port} | fields | changed)


def refused(world, event):
    """Apply and see it refused, with nothing changed: not the digest, not the counts, not what is known of pools."""
    before = world.ledger.digest(), world.ledger.statistics(), set(world.ledger.pools), list(world.ledger.ports())
    with pytest.raises(IllegalTransition) as caught:
        apply(world.ledger, event)
    assert (world.ledger.digest(), world.ledger.statistics(), set(world.ledger.pools), list(world.ledger.ports())) == before
    assert (world.ledger.seq, world.ledger.ts) == (world.replayed().seq, world.replayed().ts)
    return caught.value


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "index"])
@pytest.mark.parametrize("kind", PORT_KINDS)
@pytest.mark.parametrize("state", PortState)
def test_a_cell_that_the_code_treats_otherwise_than_the_table(world, state, kind, indexed):
    last, _ = world.put(state.value)
    pool = world.ledger.pools["", "p"]
    pool.index = index_of(pool) if indexed else None
    event = craft(world, kind)
    if (state, kind) in TRANSITIONS:
        apply(world.ledger, event)
        assert world.state(100) == TRANSITIONS[state, kind].value
        assert world.ledger.seq == event.seq
        assert world.ledger.port("p", 100).token == (event.seq if kind in ("allocated", "adopted") else last.token)
    else:
        error = refused(world, event)
        assert (error.state, error.kind, error.seq, error.port, error.pool, error.node) == (state, kind, event.seq, 100, "p", "")
        assert isinstance(error, CommandRejected)


@pytest.mark.parametrize("kind", PORT_KINDS)
@pytest.mark.parametrize("first", [True, False], ids=["pool untouched", "pool in use"])
def test_a_port_never_used_that_behaves_otherwise_than_free(world, kind, first):
    if not first:
        world.allocate("other", port=101)
    event = craft(world, kind, port=103)
    if (PortState.FREE, kind) in TRANSITIONS:
        apply(world.ledger, event)
        assert world.state(103) == TRANSITIONS[PortState.FREE, kind].value
    else:
        assert refused(world, event).state is PortState.FREE


@pytest.mark.parametrize("kind", PORT_KINDS)
@pytest.mark.parametrize("port", [99, 104, 200, 100])
def test_a_port_outside_the_ranges_that_is_anything_but_adopted(world, port, kind):
    """100 was inside once and has retired."""
    world.put("FREE")
    world.do(DefinePool(PoolSpec("p", ports="101-103")))
    event = craft(world, kind, port=port)
    if kind is EventKind.ADOPTED:
        apply(world.ledger, event)
        assert world.state(port) == "ALLOCATED"
        assert world.ledger.statistics("p").retired == 1
    else:
        refused(world, event)


@pytest.mark.parametrize("kind", [EventKind.ALLOCATED, EventKind.ADOPTED])
@pytest.mark.parametrize("state", ["FREE", "QUARANTINED", "BLOCKED"])
@pytest.mark.parametrize("changed", [{"token": 1}, {"token": 0}, {"owner": ""}], ids=["earlier token", "no token", "no owner"])
def test_a_lease_begun_without_its_own_token_or_an_owner(world, kind, state, changed):
    world.put(state)
    refused(world, craft(world, kind, **changed))


@pytest.mark.parametrize("kind", [EventKind.ALLOCATED, EventKind.ADOPTED])
def test_a_refused_first_event_that_leaves_an_empty_pool_behind(world, kind):
    """Counts over all pools would grow by a pool that nothing ever happened to."""
    refused(world, craft(world, kind, token=7))
    assert not world.ledger.pools


@pytest.mark.parametrize(
    ("owner", "service", "legal"),
    [("last", "", True), ("last", "s9", True), ("new", "s2", True), ("new", "", False), ("new", "s1", False), ("former", "s1", False)],
)
def test_a_quarantined_port_given_to_a_stranger(world, owner, service, legal):
    """Only the last owner or the last service may have it; the one before the last is a stranger too."""
    world.put("QUARANTINED")
    event = craft(world, EventKind.ALLOCATED, owner=owner, service=service)
    if legal:
        apply(world.ledger, event)
    else:
        assert "not over" in str(refused(world, event))


def test_two_owners_without_service_taken_for_one_service(world):
    world.release(world.allocate("a", port=100))
    refused(world, craft(world, EventKind.ALLOCATED, owner="b", service=""))


def test_a_hold_without_last_owner_given_to_one_without_service(world):
    world.do(Hold("p", 100, hold_s=5))
    refused(world, craft(world, EventKind.ALLOCATED, owner="b", service=""))


@pytest.mark.parametrize(
    "changed",
    [{"token": 3}, {"token": 0}, {"token": 10**6}, {"owner": "another"}, {"owner": ""}],
    ids=["former token", "no token", "future token", "another owner", "no owner"],
)
def test_a_lease_ended_by_somebody_else(world, changed):
    world.put("ALLOCATED")
    refused(world, craft(world, EventKind.RELEASED, **changed))


@pytest.mark.parametrize("kind", [EventKind.WITHDRAWN, EventKind.BLOCKED])
def test_an_event_that_follows_another_lease(world, kind):
    _, former = world.put("ALLOCATED")
    refused(world, craft(world, kind, token=former.token))


def test_a_lease_withdrawn_twice(world):
    world.put("ALLOCATED")
    apply(world.ledger, event := craft(world, EventKind.WITHDRAWN))
    world.events.append(event)
    refused(world, craft(world, EventKind.WITHDRAWN))


def test_a_withdrawal_that_outlives_its_lease(world):
    """Else the next lease could not be withdrawn."""
    for owner in ("a", "b"):
        lease = world.allocate(owner, service="s", port=100)
        apply(world.ledger, event := craft(world, EventKind.WITHDRAWN))
        world.events.append(event)
        world.release(lease)
    assert world.replayed().digest() == world.ledger.digest()


@pytest.mark.parametrize("kind", [EventKind.RELEASED, EventKind.HELD])
def test_a_hold_that_is_shortened(world, kind):
    """Released: by a second lease of the same service that ends within the first one's hold."""
    world.put("QUARANTINED")
    until = world.ledger.port("p", 100).until
    if kind is EventKind.RELEASED:
        world.allocate("last", service="s2")
    refused(world, craft(world, kind, until=until - 1))
    apply(world.ledger, craft(world, kind, until=until))
    assert world.ledger.port("p", 100).until == until


def test_a_hold_forgotten_over_a_block(world):
    world.put("QUARANTINED")
    until = world.ledger.port("p", 100).until
    world.do(Block("p", 100, reason="broken"))
    refused(world, craft(world, EventKind.UNBLOCKED, until=until - 1))
    apply(world.ledger, craft(world, EventKind.UNBLOCKED, until=until))


def test_a_hold_ended_by_time_before_its_time(world):
    world.put("QUARANTINED")
    view = world.ledger.port("p", 100)
    refused(world, craft(world, EventKind.FREED, cause="elapsed", ts=view.until - 1))
    apply(world.ledger, craft(world, EventKind.FREED, cause="elapsed", ts=view.until))
    assert world.state(100) == "FREE"


@pytest.mark.parametrize("seq", [0, 1, 2, 4, 10**9])
def test_a_gap_or_a_repetition_in_the_numbers(world, seq):
    world.do(Open(1, "h", "boot", 1, 1))
    assert world.ledger.seq + 1 == 3
    refused(world, craft(world, EventKind.ALLOCATED, seq=seq, token=seq))


@pytest.mark.parametrize("seq", [1, 3])
def test_a_gap_before_an_event_that_concerns_no_port(world, seq):
    refused(world, Event(seq, world.now, EventKind.CLOSED))


def test_time_that_goes_back(world):
    world.put("ALLOCATED")
    refused(world, craft(world, EventKind.BLOCKED, ts=world.ledger.ts - 1))
    apply(world.ledger, craft(world, EventKind.BLOCKED, ts=world.ledger.ts))


@pytest.mark.parametrize("ts", [0, -5, 1 << 62, 1 << 63, 1 << 80])
def test_a_time_that_the_columns_cannot_hold_or_that_means_never(empty, ts):
    refused(empty, Event(1, ts, EventKind.POOL_DEFINED, pool="p", data={"ports": "1-2", "hold_s": 1.0, "floor_s": 0.0, "order": "lowest"}))


@pytest.mark.parametrize("until", [-1, 1 << 62, 1 << 63, 1 << 80])
@pytest.mark.parametrize(("state", "kind"), [cell for cell in TRANSITIONS if cell[1] in (*HOLDS, "blocked")])
def test_an_end_that_the_columns_cannot_hold(world, state, kind, until):
    world.put(state.value)
    refused(world, craft(world, kind, until=until))


@pytest.mark.parametrize("port", [0, -1, -70_000, 65_536, 70_000, 1 << 70])
@pytest.mark.parametrize("kind", PORT_KINDS)
@pytest.mark.parametrize("used", [False, True])
def test_a_number_that_is_no_port(world, port, kind, used):
    if used:
        world.put("ALLOCATED")
    refused(world, craft(world, kind, port=port))


@pytest.mark.parametrize("kind", PORT_KINDS)
def test_a_port_of_a_pool_that_is_not_defined(world, kind):
    error = refused(world, craft(world, kind, pool="q"))
    assert error.state is None


@pytest.mark.parametrize("kind", PORT_KINDS)
@pytest.mark.parametrize("state", PortState)
def test_a_kind_given_as_a_bare_string(world, state, kind):
    """It hashes like the member and is none: rules that ask for identity would be passed by."""
    world.put(state.value)
    refused(world, msgspec.structs.replace(craft(world, kind), kind=kind.value))


GOOD = {"ports": "1-2", "hold_s": 1.0, "floor_s": 0.0, "order": "lowest"}


@pytest.mark.parametrize(
    "data",
    [
        None, {}, {**GOOD, "ports": "2-1"}, {**GOOD, "ports": ""}, {**GOOD, "ports": None}, {**GOOD, "hold_s": -1},
        {**GOOD, "hold_s": "1"}, {**GOOD, "hold_s": None}, {**GOOD, "floor_s": 2.0}, {**GOOD, "order": "best"}, {**GOOD, "order": []},
        *({key: value for key, value in GOOD.items() if key != gone} for gone in GOOD),
    ],
)  # fmt: skip
def test_a_definition_that_is_none(world, data):
    refused(world, Event(world.ledger.seq + 1, world.now, EventKind.POOL_DEFINED, pool="p", data=data))
    assert world.ledger.specs["p"] == PoolSpec("p", ports="100-103")


def test_a_definition_of_a_pool_with_a_name_that_is_none(world):
    refused(world, Event(world.ledger.seq + 1, world.now, EventKind.POOL_DEFINED, pool="P p", data=GOOD))


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_second_writer(world, epoch):
    world.do(Open(2, "h", "boot", 1, 1))
    data = {"epoch": epoch, "boot": "b", "boot_ns": 1}
    assert "two writers" in str(refused(world, Event(world.ledger.seq + 1, world.now, EventKind.OPENED, data=data)))


@pytest.mark.parametrize(
    "data", [None, {}, {"epoch": 9}, {"epoch": 9, "boot": "b"}, {"boot": "b", "boot_ns": 1}, {"epoch": "9", "boot": "b", "boot_ns": 1}]
)
def test_an_opening_half_taken_in(world, data):
    world.do(Open(2, "h", "boot", 1, 1))
    opened = dict(world.ledger.opened)
    refused(world, Event(world.ledger.seq + 1, world.now, EventKind.OPENED, data=data))
    assert (world.ledger.epoch, world.ledger.opened) == (2, opened)


@pytest.mark.parametrize("data", [None, {}, {"proxy": ""}, {"proxy": 5}, {"proxy": "a\nb"}, {"proxy": []}])
def test_a_proxy_without_a_name(world, data):
    refused(world, Event(world.ledger.seq + 1, world.now, EventKind.PROXY_JOINED, data=data))


def test_a_proxy_that_is_not_remembered(world):
    for kind, expected in ((EventKind.PROXY_JOINED, {"one": 2}), (EventKind.PROXY_LEFT, {})):
        world.events.append(event := Event(world.ledger.seq + 1, world.now, kind, data={"proxy": "one"}))
        apply(world.ledger, event)
        assert world.ledger.proxies == expected
        assert world.replayed().digest() == world.ledger.digest()


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind not in PORT_KINDS])
def test_an_event_of_the_log_that_changes_a_port(world, kind):
    data = {"proxy": "x", "epoch": 9, "boot": "b", "boot_ns": 1, "ports": "100-103", "hold_s": 10.0, "floor_s": 0.0, "order": "lowest"}
    leases = [world.allocate(owner) for owner in "abcd"]
    world.release(leases[1])
    world.release(leases[2], block="broken")
    world.release(leases[3])
    world.do(Free("p", 103, reason="asked for"))
    assert [world.state(port) for port in range(100, 104)] == ["ALLOCATED", "QUARANTINED", "BLOCKED", "FREE"]
    views = list(world.ledger.ports())
    apply(world.ledger, Event(world.ledger.seq + 1, world.now, kind, pool="p" if kind == "pool_defined" else "", data=data))
    assert list(world.ledger.ports()) == views


def test_an_index_that_goes_astray_when_the_second_of_two_events_is_refused(world):
    """The first has happened: it stays, and what is derived from it must know."""
    lease = world.allocate("a", port=100)
    released = craft(world, EventKind.RELEASED)
    freed_early = craft(world, EventKind.FREED, cause="elapsed", seq=released.seq + 1)
    with pytest.raises(IllegalTransition):
        apply_all(world.ledger, (released, freed_early))
    world.events.append(released)
    assert world.ledger.digest() == world.replayed().digest()
    assert world.allocate("a").token == lease.token + 2
    world.pass_time(20)
    world.do(Sweep())


def test_a_fault_that_is_blamed_on_another_place():
    ledger = Ledger()
    with pytest.raises(IllegalTransition) as caught:
        apply(ledger, Event(1, 5, EventKind.FREED, node="n", pool="web", port=80))
    assert "port 80 of pool 'web' on node 'n'" in str(caught.value)
    assert str(caught.value).endswith("Nothing was changed.")
    assert caught.value.fields == ("node", "pool", "port", "state", "kind", "seq")
