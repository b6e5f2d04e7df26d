"""`hold_ports`: the pool's ports closed to everybody but replicas with a lease, whoever ends it."""

from __future__ import annotations

import socket

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import InvalidValue, OutcomeUnknown, PoolSpec, UnknownPool, hold_ports, open_manager
from portfsm.testing import GatedJournal
from tests.strangers import free_range

pytestmark = pytest.mark.anyio


@pytest.fixture
def ports() -> range:
    return free_range(3)


@pytest.fixture
def opened(memory_log, clock, ports):
    return open_manager(memory_log.memory, pools=[PoolSpec("http", ports=ports, hold_s=10)], clock=clock)


def can_bind(port: int) -> bool:
    """As a replica would, or a stranger as well-behaved."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def until(condition) -> None:
    with anyio.fail_after(5):
        while not condition():
            await checkpoint()


async def test_a_port_stays_open_to_strangers_when_its_lease_has_ended(opened, clock, ports):
    async with opened as manager, hold_ports(manager, "http") as holder:
        assert not any(can_bind(port) for port in ports)
        with await manager.listen("http", owner="r1", holder=holder) as bound:
            socket.create_connection(("127.0.0.1", bound.port)).close()
        assert can_bind(bound.port)
        await manager.release_owner("r1")  # and not by the one who opened it
        await until(lambda: not can_bind(bound.port))
        clock.advance(10)
        await manager.sweep()
        assert not any(can_bind(port) for port in ports)


async def test_a_replica_that_binds_by_itself_is_kept_out(opened, ports):
    async with opened as manager, hold_ports(manager, "http"):
        lease = await manager.allocate("http", owner="r1")
        await until(lambda: can_bind(lease.port))
        assert [can_bind(port) for port in ports] == [True, False, False]


async def test_a_new_lease_on_a_port_is_shut_for_the_end_of_the_one_before(opened, ports):
    """The follower reads of the release after the next replica was let in: what counts is what is so now."""
    async with opened as manager, hold_ports(manager, "http") as holder:
        for _ in range(5):
            with await manager.listen("http", owner="r1", holder=holder) as bound:
                assert bound.port == ports[0]
            for _ in range(10):
                assert can_bind(ports[0])
                await checkpoint()
            await manager.release(bound.lease)


async def test_a_replica_that_was_about_to_bind_is_kept_out(opened, ports):
    async with opened as manager:
        await manager.allocate("http", owner="r1")
        async with hold_ports(manager, "http"):
            assert [can_bind(port) for port in ports] == [True, False, False]


async def test_a_replica_that_drains_or_was_adopted_is_kept_out(opened, ports):
    async with opened as manager, hold_ports(manager, "http"):
        lease = await manager.allocate("http", owner="r1")
        await manager.withdraw(lease)
        await manager.adopt("http", ports[2], owner="r2")
        await until(lambda: can_bind(ports[2]))
        for _ in range(20):
            await checkpoint()
        assert [can_bind(port) for port in ports] == [True, False, True]


async def test_ports_of_replicas_from_before_are_never_held(opened, ports):
    """A controller that restarts finds them listening: nothing to hold yet, and nothing to complain of."""
    async with opened as manager:
        bound = await manager.listen("http", owner="r1")
        async with hold_ports(manager, "http") as holder:
            assert holder.held == tuple(ports[1:])
            bound.close()
            await manager.release(bound.lease)
            await until(lambda: holder.held == tuple(ports))
            assert not can_bind(ports[0])


async def test_a_port_of_another_node_or_pool_is_opened(memory_log, clock, ports):
    pools = [PoolSpec("http", ports=ports[:2]), PoolSpec("grpc", ports=ports[2:])]
    async with open_manager(memory_log.memory, pools=pools, clock=clock) as manager, hold_ports(manager, "http", node="a"):
        await manager.allocate("http", owner="r1", node="b")
        await manager.allocate("grpc", owner="r1", node="a")
        for _ in range(20):
            await checkpoint()
        assert not any(can_bind(port) for port in ports[:2])
        assert can_bind(ports[2])


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [(("no",), {}, UnknownPool), (("http",), {"node": 7}, InvalidValue), (("http",), {"host": "h"}, InvalidValue)],
)
async def test_junk_that_holds_nothing_and_says_nothing(opened, arguments, options, error):
    async with opened as manager:
        with pytest.raises(error):
            async with hold_ports(manager, *arguments, **options):
                pass


async def test_what_the_block_raises_comes_out_wrapped(opened, ports):
    async with opened as manager:
        with pytest.raises(ZeroDivisionError):
            async with hold_ports(manager, "http"):
                raise ZeroDivisionError
        with anyio.move_on_after(0) as scope:
            async with hold_ports(manager, "http"):
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(ZeroDivisionError), anyio.CancelScope() as scope:
            async with hold_ports(manager, "http"):
                scope.cancel()
                raise ZeroDivisionError
        assert all(can_bind(port) for port in ports)


async def test_a_log_that_fails_brings_the_block_down(clock, ports):
    """Whoever calls the manager hears of it; the holder just stays as it is."""
    journal = GatedJournal()
    with pytest.raises(OutcomeUnknown, match="gone"):
        async with open_manager(journal, pools=[PoolSpec("http", ports=ports)], clock=clock) as manager, hold_ports(manager, "http"):
            journal.fail(OutcomeUnknown("the disk is gone", path=None, errno=None))
            with pytest.raises(OutcomeUnknown):
                await manager.allocate("http", owner="r1")
            for _ in range(20):
                await checkpoint()
            assert not any(can_bind(port) for port in ports)
            await manager.allocate("http", owner="r1")
