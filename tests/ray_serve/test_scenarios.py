"""What went wrong in Ray Serve's port manager, put to this machine: ports given, recovered, blocked and reclaimed.

`ray#N` is a thread of ray-project/ray; `Measured as` names a run of its code. Ray's own cases are in `test_cases.py`.
"""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from portfsm.commands import Adopt, Allocate, Block, Release, ReleaseOwner, Sweep, Unblock, Withdraw
from portfsm.errors import InvalidValue, OwnerConflict, PoolExhausted, PortOutOfRange, StaleLease
from portfsm.specs import PoolSpec, check_overlaps
from tests.ray_serve.controller import crash

# ---------------------------------------------------------------------- allocation and recovery


def test_a_recovered_port_handed_to_a_new_replica(ray):
    """ray#60118: recovery filled the table and left the ports in the heap."""
    ray.do(Adopt("http", 8000, owner="alive"))
    assert ray.allocate("new", "http").port == 8001


def test_a_recovered_port_handed_out_of_its_quarantine(ray):
    """ray#63628: recovered, released, and still in the heap of free ones."""
    ray.do(Adopt("http", 8000, owner="alive"))
    ray.do(ReleaseOwner("alive"))
    assert ray.allocate("new", "http").port == 8001
    ray.pass_time(150)
    assert ray.allocate("later", "http").port == 8000


def test_containers_that_disagree_after_ten_thousand_steps(immediate):
    """ray#60118, measured as A6: five recoveries of one port made a heap of eight for a pool of three."""
    dice, world = random.Random(6), immediate
    for step in range(10_000):
        owner, port = f"r{dice.randrange(6)}", dice.randrange(8000, 8004)
        command = dice.choice([Allocate("http", owner=owner), Adopt("http", port, owner=owner), ReleaseOwner(owner), ReleaseOwner(owner)])
        try:
            world.do(command)
        except (OwnerConflict, PoolExhausted):
            continue
        if step % 50 == 0:
            counts = world.ledger.statistics("http")
            assert counts.free + counts.allocated == 4
            held = [lease.port for number in range(6) for lease in world.ledger.find(f"r{number}")]
            assert len(held) == len(set(held)) == counts.allocated
    assert len(world.ledger.pools["", "http"].state) == 4


def test_live_ports_handed_out_while_the_replicas_have_not_reported_yet(ray):
    """Measured as R2 (ray#60118): four live ports went to a newcomer and then were blocked for ever."""
    for number in range(3):
        ray.allocate(f"live {number}", "http")
    crash(ray)
    assert ray.allocate("newcomer", "http").port == 8003
    with pytest.raises(PoolExhausted):
        ray.allocate("another", "http")
    assert ray.ledger.statistics("http").blocked == 0


def test_a_live_port_blocked_for_ever_by_somebody_else(ray):
    """ray#60118, measured as A3: a block was recorded against a port of another owner. Only its holder's lease can do that here."""
    live = ray.allocate("live", "http")
    other = ray.allocate("other", "http")
    with pytest.raises(InvalidValue):
        ray.decide(Release(attrs.evolve(other, port=live.port), block="in use"))
    assert ray.state(live.port, "http") == "ALLOCATED"


def test_a_blocked_port_whose_owner_is_alive_and_cannot_say_so(ray):
    """ray#60118, measured as A3: the later claim of the owner must win over the old note."""
    ray.allocate("live", "http")
    ray.do(Block("http", 8000, reason="bind failed"))
    ray.do(Adopt("http", 8000, owner="live"))
    assert "bind failed" in ray.events[-1].reason
    assert ray.state(8000, "http") == "ALLOCATED"


def test_two_replicas_that_claim_one_port(ray):
    """Measured as A7 (#60118): both were accepted, and the port was quarantined while one still had it."""
    ray.do(Adopt("http", 8001, owner="first"))
    with pytest.raises(OwnerConflict) as caught:
        ray.do(Adopt("http", 8001, owner="second"))
    assert (caught.value.holder, caught.value.claimant) == ("first", "second")
    assert ray.ledger.port("http", 8001).owner == "first"


def test_a_claim_that_differs_from_the_record_and_is_ignored(ray):
    """Measured as A8 (#60118): the broadcast kept the wrong port."""
    ray.allocate("r1", "http")
    with pytest.raises(OwnerConflict) as caught:
        ray.do(Adopt("http", 8003, owner="r1"))
    assert caught.value.port == 8000


def test_a_quarantine_cancelled_by_any_claimant_without_a_word(ray):
    """Measured as A9 (#60118, #63628): here a listening socket is believed, but the log says whose hold it broke."""
    ray.release(ray.allocate("r1", "http", service="shop"))
    ray.do(Adopt("http", 8000, owner="r2", service="blog"))
    assert ray.events[-1].reason == "was quarantined for shop"


def test_a_recovered_port_outside_the_range_that_joins_the_pool(ray):
    """ray#64623: 49999 was recovered, released, and handed out. Also over a crash and a changed range."""
    ray.do(Adopt("http", 49_999, owner="old"))
    crash(ray)
    ray.do(ReleaseOwner("old"))
    ray.pass_time(3600)
    ray.do(Sweep())
    assert sorted(ray.allocate(f"r{number}", "http").port for number in range(4)) == [8000, 8001, 8002, 8003]
    with pytest.raises(PortOutOfRange):
        ray.allocate("r9", "http", port=49_999)


@pytest.mark.parametrize(("ports", "size"), [("30000-30002", 3), ("30000-30000", 1), ("30000", 1), ("65535", 1)])
def test_a_range_with_two_ends(empty, ports, size):
    """Measured as A5 (#64623): half-open pool, closed check; MIN=30000, MAX=30002 gave two ports and recovered a third."""
    empty.define(ports=ports, hold_s=0.0)
    given = [empty.allocate(f"r{number}").port for number in range(size)]
    assert given[-1] == empty.ledger.specs["p"].ports[-1].stop - 1
    with pytest.raises(PoolExhausted):
        empty.allocate("one more")
    with pytest.raises(PortOutOfRange):
        empty.decide(Allocate("p", owner="x", port=min(given[-1] + 1, 65_535) if given[-1] < 65_535 else 1))


def test_overlapping_pools_or_a_range_upside_down():
    """Measured as A10: both were accepted; one number was handed out twice, the other pool was empty."""
    with pytest.raises(InvalidValue):
        check_overlaps([PoolSpec("http", ports="8000-8010"), PoolSpec("grpc", ports="8010-8020")])
    with pytest.raises(InvalidValue):
        PoolSpec("http", ports="8010-8000")


def test_a_release_replayed_after_a_lost_reply_that_fails_or_loses_the_block(ray):
    """Measured as A4: the call is at-least-once, the second release raised, and the block request was lost."""
    lease = ray.allocate("r1", "http")
    assert ray.release(lease) == ["released"]
    assert ray.release(lease) == []
    assert ray.release(lease, block="address in use") == ["blocked"]
    crash(ray)
    assert ray.release(lease, block="address in use") == []
    assert ray.state(8000, "http") == "BLOCKED"


WRONG_PORT = """
from portfsm import PoolSpec, InvalidValue
from portfsm import commands, Ledger, decide, apply
import attrs
assert False, "not under -O"
ledger = Ledger()
def do(command):
    events = decide(ledger, command, now_ns=10**18)
    for event in events: apply(ledger, event)
    return events
do(commands.DefinePool(PoolSpec("http", ports="8000-8003", hold_s=0)))
for owner in ("r1", "r2"): do(commands.Allocate("http", owner=owner))
lease, = ledger.find("r1")
before = ledger.digest()
try:
    do(commands.Release(attrs.evolve(lease, port=lease.port + 1)))
except Exception as error:
    print(type(error).__name__, ledger.digest() == before)
"""


def test_a_release_of_the_wrong_port_that_only_an_assert_forbids():
    """Measured as O1: under `python -O` a live foreign port went back to the pool."""
    done = subprocess.run([sys.executable, "-O", "-c", WRONG_PORT], capture_output=True, text=True, check=False)
    assert done.stdout.split() in (["InvalidValue", "True"], ["StaleLease", "True"]), done.stderr


def test_a_retried_allocation_that_takes_a_second_port(ray):
    """ray#60118: the reply was lost, the new controller gave another port, and the first stayed taken."""
    lease = ray.allocate("r1", "http")
    crash(ray)
    assert ray.do(Allocate("http", owner="r1")) == []
    assert ray.ledger.find("r1") == (lease,)


def test_a_late_release_of_a_former_owner_that_takes_the_port_from_its_successor(ray):
    """No fencing in ray#60118: only the replica's name was compared, and a name can come back."""
    late = ray.allocate("r1", "http", service="s")
    ray.release(late)
    ray.allocate("r2", "http", service="s")
    for command in (Release(late), Release(late, block="in use"), Withdraw(late)):
        with pytest.raises(StaleLease):
            ray.decide(command)
    ray.do(ReleaseOwner("r2"))
    again = ray.allocate("r1", "http", service="s")
    assert again.port == late.port
    with pytest.raises(StaleLease):
        ray.decide(Release(late))


# ---------------------------------------------------------------------- blocking


def test_a_block_for_ever(ray):
    """ray#61830, #62929, #62974: TIME_WAIT blocked ports for good. A block has a reason, may have an end, and an operator may end it."""
    for number in range(2):
        ray.release(ray.allocate(f"r{number}", "http"), block="EADDRINUSE", for_s=60)
    assert ray.ledger.port("http", 8000).reason == "EADDRINUSE"
    ray.pass_time(60)
    assert ray.do(Sweep()) == ["unblocked", "unblocked"]
    assert ray.state(8000, "http") == "QUARANTINED"
    ray.do(Block("http", 8002, reason="by hand"))
    assert ray.do(Unblock("http", 8002)) == ["unblocked"]
    ray.pass_time(150)
    assert ray.allocate("new", "http").port == 8000


@pytest.mark.parametrize("emptied", [False, True])
def test_a_block_that_vanishes_with_the_controller_or_with_the_last_replica(ray, emptied):
    """Measured as A2 and A16."""
    lease = ray.allocate("r1", "http", node="n")
    if emptied:
        ray.do(ReleaseOwner("r1"))
        ray.pass_time(1000)
        ray.do(Sweep())
    ray.release(lease, block="bind failed")
    crash(ray, boot="another")
    assert ray.state(8000, "http", node="n") == "BLOCKED"
    assert ray.allocate("r2", "http", node="n").port == 8001


# ---------------------------------------------------------------------- reclaim


def test_a_cancelled_rollout_that_leaks_its_ports(ray):
    """Measured as R4 (ray#64508, #64676): the replica died before it was ever seen running, and two skip rules kept its port."""
    for number in range(8):
        ray.allocate(f"starting {number}", "http")
        ray.do(ReleaseOwner(f"starting {number}"))
        ray.pass_time(150)
    assert ray.ledger.statistics("http").allocated == 0


def test_an_owner_whose_leases_in_two_pools_part(ray):
    """Measured as A17: the HTTP port stayed held when the gRPC bind failed."""
    ray.allocate("r1", "http")
    ray.release(ray.allocate("r1", "grpc"), block="bind failed")
    assert ray.do(ReleaseOwner("r1")) == ["released"]
    assert ray.ledger.find("r1") == ()


def test_a_batch_stopped_in_the_middle_that_cannot_go_on(ray):
    """ray#64676: reconcile raised half-way. Each event is whole, so what a crash leaves is a state to decide from again."""
    for owner in ("r1", "r2"):
        for pool in ("http", "grpc"):
            ray.allocate(owner, pool)
    batch = ray.decide(ReleaseOwner("r1"))
    assert len(batch) == 2
    ray.ledger.fold(batch[:1])
    ray.events += batch[:1]
    assert ray.do(ReleaseOwner("r1")) == ["released"]
    assert ray.ledger.digest() == ray.replayed().digest()
    assert ray.ledger.statistics().allocated == 2


def test_a_scenario_without_its_source():
    """Each test here says where its case is from."""
    files = [Path(__file__), Path(__file__).with_name("test_quarantine.py")]
    functions = [node for file in files for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    tests = [test for test in functions if test.name.startswith("test_") and test.name != "test_a_scenario_without_its_source"]
    assert len(tests) > 30
    for test in tests:
        assert any(mark in (ast.get_docstring(test) or "") for mark in ("ray#", "#6", "Measured as", "Ray's tests")), test.name
