"""The cases of Ray Serve's `test_node_port_manager.py` (HTTP 8000-8003, gRPC 9000-9003; its ranges are half-open), in its order."""

from __future__ import annotations

import attrs
import pytest

from portfsm.commands import Adopt, Allocate, Block, Free, Release, ReleaseOwner, Sweep
from portfsm.errors import InvalidValue, PoolExhausted
from tests.ray_serve.controller import crash


def test_ray_01_a_released_port_that_is_not_reused(immediate):
    """test_node_port_manager 1."""
    lease = immediate.allocate("r1", "http")
    assert 8000 <= lease.port <= 8003
    immediate.release(lease)
    assert immediate.allocate("r2", "http").port == lease.port


def test_ray_02_a_blocked_port_given_again(immediate):
    """test_node_port_manager 2."""
    bad = immediate.allocate("ra", "grpc")
    immediate.release(bad, block="bind failed")
    others = [immediate.allocate(f"r{number}", "grpc").port for number in range(3)]
    assert len({*others, bad.port}) == 4
    with pytest.raises(PoolExhausted):
        immediate.allocate("r9", "grpc")


def test_ray_03_a_second_port_for_one_replica(immediate):
    """test_node_port_manager 3."""
    assert immediate.allocate("rx", "http") == immediate.allocate("rx", "http")
    assert immediate.ledger.statistics("http").allocated == 1


def test_ray_04_a_dead_replica_that_keeps_its_port(immediate):
    """test_node_port_manager 4."""
    leases = {owner: immediate.allocate(owner, "http").port for owner in ("r0", "r1", "r2", "r3")}
    for dead in ("r2", "r3"):
        immediate.do(ReleaseOwner(dead))
    assert immediate.allocate("new", "http").port in {leases["r2"], leases["r3"]}


def test_ray_05_a_node_that_was_never_used_and_costs_something(immediate):
    """test_node_port_manager 5: there is no manager of a node to prune."""
    immediate.ledger.statistics("http", node="node-5")
    assert immediate.do(ReleaseOwner("nobody", node="node-5")) == []
    assert not immediate.ledger.pools


def test_ray_06_a_full_pool_that_gives(immediate):
    """test_node_port_manager 6."""
    for number in range(4):
        immediate.allocate(f"r{number}", "http")
    with pytest.raises(PoolExhausted, match="no free port"):
        immediate.allocate("r5", "http")


def test_ray_07_a_release_of_another_port(immediate):
    """test_node_port_manager 7; there an assert."""
    lease = immediate.allocate("r1", "http")
    digest = immediate.ledger.digest()
    with pytest.raises(InvalidValue):
        immediate.decide(Release(attrs.evolve(lease, port=lease.port + 1)))
    assert immediate.ledger.digest() == digest


def test_ray_08_one_port_for_two_of_many(immediate):
    """test_node_port_manager 8; there a plain loop as well. With tasks and threads: `tests/manager`."""
    assert sorted(immediate.allocate(f"r{number}", "http").port for number in range(4)) == [8000, 8001, 8002, 8003]


def test_ray_09_two_protocols_that_share_a_range(immediate):
    """test_node_port_manager 9."""
    assert (immediate.allocate("r1", "http").port, immediate.allocate("r1", "grpc").port) == (8000, 9000)


def test_ray_10_a_blocked_port_that_comes_back_after_a_few_rounds(immediate):
    """test_node_port_manager 10."""
    immediate.release(immediate.allocate("r1", "http"), block="bind failed")
    for _ in range(3):
        lease = immediate.allocate("r2", "http")
        assert lease.port != 8000
        immediate.release(lease)


def test_ray_11_a_port_asked_for_by_its_owner(immediate):
    """test_node_port_manager 11; an unknown owner holds nothing, which is no error."""
    lease = immediate.allocate("r1", "http")
    assert immediate.ledger.find("r1") == (lease,)
    assert immediate.ledger.find("unknown") == ()


def test_ray_12_a_quarantined_port_that_is_available(ray):
    """test_node_port_manager 12."""
    ray.release(ray.allocate("r1", "http"))
    assert ray.allocate("r2", "http").port == 8001
    assert ray.state(8000, "http") == "QUARANTINED"


def test_ray_13_a_quarantine_without_end(empty):
    """test_node_port_manager 13; also exactly at the deadline and a nanosecond before it."""
    empty.define("http", ports="8000", hold_s=0.05)
    empty.release(empty.allocate("r1", "http"))
    empty.now += 50_000_000 - 1
    with pytest.raises(PoolExhausted):
        empty.allocate("r2", "http")
    empty.now += 1
    assert empty.allocate("r2", "http").port == 8000


def test_ray_14_a_block_that_ends_up_in_quarantine(ray):
    """test_node_port_manager 14."""
    ray.release(ray.allocate("r1", "http"), block="bind failed")
    assert ray.state(8000, "http") == "BLOCKED"
    ray.pass_time(1000)
    assert ray.do(Sweep()) == []


def test_ray_15_no_quarantine_that_quarantines(immediate):
    """test_node_port_manager 15."""
    immediate.release(immediate.allocate("r1", "http"))
    assert immediate.allocate("r2", "http").port == 8000


def test_ray_16_the_lowest_port_recovered_and_given(immediate):
    """test_node_port_manager 16."""
    immediate.do(Adopt("http", 8000, owner="live"))
    assert immediate.allocate("r2", "http").port == 8001


def test_ray_25_a_redeployment_that_scatters(immediate):
    """test_direct_ingress 25: four replicas, deleted, deployed again: the same ports. Keeps EndpointSlices few."""
    for generation in range(3):
        ports = [immediate.allocate(f"g{generation} r{number}", "http").port for number in range(4)]
        assert ports == [8000, 8001, 8002, 8003]
        for number in range(4):
            immediate.do(ReleaseOwner(f"g{generation} r{number}"))


def test_ray_28_a_controller_that_comes_back_with_other_ports(ray):
    """test_direct_ingress 28; with quarantined and blocked ports equal too, and an allocate during the recovery."""
    for number in range(2):
        ray.allocate(f"live {number}", "http")
    ray.release(ray.allocate("gone", "http"))
    ray.do(Block("http", 8003, reason="bind failed"))
    before = list(ray.ledger.ports())
    crash(ray)
    assert list(ray.ledger.ports()) == before
    with pytest.raises(PoolExhausted):
        ray.decide(Allocate("http", owner="new"))
    assert ray.do(Adopt("http", 8000, owner="live 0")) == [], "a live replica that reports what the log knows changes nothing"
    ray.do(Free("http", 8002, reason="the proxy is known to be gone"))
    assert ray.allocate("new", "http").port == 8002
