"""What went wrong with the quarantine in Ray Serve's port manager, put to this machine. References: see `test_scenarios.py`."""

from __future__ import annotations

import pytest

from portfsm.commands import Allocate, Block, Hold, ReleaseOwner, Sweep
from portfsm.errors import PoolExhausted
from tests.ray_serve.controller import crash

SECOND = 1_000_000_000


def test_a_released_port_given_while_proxies_still_route_there(ray):
    """ray#63628: wrong-app 404s under churn, since a released port went straight back to the pool."""
    ray.release(ray.allocate("r1", "http", service="shop"))
    assert ray.allocate("r2", "http", service="blog").port == 8001


def test_a_quarantine_lost_when_its_node_emptied(ray):
    """ray#63920: the manager of an emptied node was pruned with its quarantine; reuse after 42 s instead of 300 s."""
    ray.define("http", ports="8000-8003", hold_s=300.0)
    ray.release(ray.allocate("r1", "http", node="node-a", service="shop"))
    ray.pass_time(42)
    ray.do(Sweep())
    assert ray.allocate("r2", "http", node="node-a", service="blog").port == 8001


def test_a_hold_that_can_only_have_one_length(ray):
    """ray#64021: ten seconds were twelve times too short. The length is the pool's, may change, and may be lengthened for one port."""
    ray.release(ray.allocate("r1", "http"))
    ray.do(Hold("http", 8000, hold_s=630))
    ray.pass_time(150)
    ray.do(Sweep())
    assert ray.state(8000, "http") == "QUARANTINED"
    ray.pass_time(480)
    ray.do(Sweep())
    assert ray.state(8000, "http") == "FREE"


@pytest.mark.parametrize("step", [-3600, -1, 0])
def test_a_clock_step_that_ends_a_quarantine_early(ray, step):
    """ray#63628: the first version measured by the wall clock."""
    ray.release(ray.allocate("r1", "http"))
    until = ray.ledger.port("http", 8000).until
    ray.pass_time(step)
    crash(ray)
    ray.do(Sweep())
    assert ray.ledger.port("http", 8000).until >= until


def test_a_reboot_that_ends_a_quarantine_early(ray):
    """ray#63628: deadlines on a monotonic clock mean nothing after a restart, so each hold starts over."""
    crash(ray, boot="one")
    ray.release(ray.allocate("r1", "http"))
    ray.pass_time(100_000)
    crash(ray, boot="two")
    ray.do(Sweep())
    assert ray.ledger.port("http", 8000).until == ray.now + 150 * SECOND


def test_a_quarantine_that_dies_with_the_controller(ray):
    """A checkpoint that keeps what is assigned and forgets what cools down (amazon-vpc-cni-k8s#1127).

    Measured as R1: port 27000 was given to another app 9.6 s after its release, with a quarantine of 150 s. Here at each event."""
    for number in range(3):
        ray.release(ray.allocate(f"r{number}", "http", service=f"s{number}"))
        ray.pass_time(1)
    ray.do(Block("http", 8003, reason="bind failed"))
    views, digest = list(ray.ledger.ports()), ray.ledger.digest()
    ray.ledger = ray.replayed()
    assert list(ray.ledger.ports()) == views
    assert ray.ledger.digest() == digest
    with pytest.raises(PoolExhausted):
        ray.decide(Allocate("http", owner="new", service="new"))


def test_a_timer_of_an_earlier_quarantine_that_ends_the_present_one(ray):
    """ray#64508: a stale entry of the timer heap. Quarantined, claimed back, quarantined again."""
    ray.release(ray.allocate("r1", "http"))
    ray.pass_time(100)
    ray.release(ray.allocate("r1", "http"))
    ray.pass_time(100)
    assert ray.do(Sweep()) == []
    ray.pass_time(50)
    assert ray.do(Sweep()) == ["freed"]


def test_a_question_that_ends_a_quarantine(ray):
    """Measured as B2: asking whether any quarantine was pending drained it."""
    ray.release(ray.allocate("r1", "http"))
    ray.pass_time(1000)
    digest = ray.ledger.digest()
    for question in (
        lambda: ray.ledger.port("http", 8000),
        ray.ledger.statistics,
        lambda: list(ray.ledger.ports()),
        lambda: ray.ledger.find("r1"),
    ):
        question()
    assert ray.ledger.digest() == digest
    assert ray.state(8000, "http") == "QUARANTINED"


def test_exhaustion_by_quarantine_that_looks_like_exhaustion_by_use(ray):
    """Measured as A12: one bare error for both."""
    for number in range(4):
        lease = ray.allocate(f"r{number}", "http")
        ray.release(lease) if number else None
    with pytest.raises(PoolExhausted) as caught:
        ray.decide(Allocate("http", owner="new"))
    assert caught.value.counts == {"FREE": 0, "ALLOCATED": 1, "QUARANTINED": 3, "BLOCKED": 0}
    assert caught.value.next_free_at == ray.now + 150 * SECOND


def test_a_restarted_replica_that_waits_out_its_own_quarantine(ray):
    """Ray's tests set the quarantine to nothing to keep immediate reuse; the same owner or service may have its port at once."""
    ray.release(ray.allocate("r1", "http", service="shop"))
    assert ray.allocate("r2", "http", service="shop").port == 8000
    ray.do(ReleaseOwner("r2"))
    assert ray.allocate("r2", "http").port == 8000
