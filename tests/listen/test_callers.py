"""`PortManager.listen` on real sockets: when it does not go on, owners that have a port already, callers that go away."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import BindFailed, InvalidValue, OwnerConflict, PoolExhausted, PoolSpec, PortState, UnknownPool, open_manager
from tests.listen.endpoints import answers, open_sockets
from tests.strangers import named, stranger
from tests.tasks import at_each_step, stepped
from tests.unmeasured import UNMEASURED

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------- when it does not go on


async def test_attempts_without_end_or_an_end_without_reasons(opened, ports):
    with stranger(ports[0]) as one, stranger(ports[1]) as two, stranger(ports[2]):
        async with opened as manager:
            with pytest.raises(BindFailed) as caught:
                await manager.listen("http", owner="r1", attempts=2)
            assert list(caught.value.tried) == [ports[0], ports[1]]
            assert all(named(each) in str(caught.value) for each in (one, two))
            assert "2 ports of pool 'http' in a row are in use" in str(caught.value)
            assert manager.find("r1") == ()
            assert (manager.statistics().free, manager.statistics().blocked) == (2, 2)
            with await manager.listen("http", owner="r1", attempts=2) as bound:
                assert bound.port == ports[3], "a second call goes on where the first gave up"


async def test_a_block_that_ends_at_once_tries_one_port_for_ever(opened, ports):
    with stranger(ports[0]):
        async with opened as manager:
            with pytest.raises(BindFailed):
                await manager.listen("http", owner="r1", attempts=3, block_s=0)
            assert manager.find("r1") == ()


async def test_a_pool_that_is_full_of_strangers_and_does_not_say_so(memory_log, clock, ports):
    async with open_manager(memory_log.memory, pools=[PoolSpec("http", ports=ports[:2])], clock=clock) as manager:
        with stranger(ports[0]) as one, stranger(ports[1]):
            with pytest.raises(PoolExhausted) as caught:
                await manager.listen("http", owner="r1")
            assert caught.value.counts["BLOCKED"] == 2
            assert named(one) in caught.value.__notes__[0]
            assert len(caught.value.__notes__) == 2


async def test_an_address_of_another_machine_uses_the_pool_up(memory_log, clock, ports):
    """The lease is given back as if it had never been asked for: no block, and no hold, though the pool has one."""
    async with open_manager(memory_log.memory, pools=[PoolSpec("http", ports=ports, hold_s=30)], clock=clock) as manager:
        for _ in range(10):
            with pytest.raises(BindFailed, match=r"192\.0\.2\.1 is no address of this machine") as caught:
                await manager.listen("http", owner="r1", host=("127.0.0.1", "192.0.2.1"))
        assert (caught.value.errno, caught.value.host, caught.value.port) == (errno.EADDRNOTAVAIL, "192.0.2.1", ports[0])
        assert isinstance(caught.value.__cause__, OSError)
        assert manager.find("r1") == ()
        assert manager.statistics().free == 4
        assert memory_log.kinds() == ["allocated", "released", "freed"] * 10
        memory_log.check(manager)


async def test_a_lease_given_back_cuts_the_hold_of_its_service_short(memory_log, clock, ports):
    """The port was quarantined for the service, which may have it early; who gives it back unused must leave the hold to others."""
    async with open_manager(memory_log.memory, pools=[PoolSpec("http", ports=ports[:1], hold_s=30)], clock=clock) as manager:
        await manager.release(await manager.allocate("http", owner="r1", service="checkout"))
        with pytest.raises(BindFailed):
            await manager.listen("http", owner="r2", service="checkout", host="192.0.2.1")
        assert manager.port("http", ports[0]).state is PortState.QUARANTINED
        with pytest.raises(PoolExhausted):
            await manager.listen("http", owner="r3", service="search")


PRIVILEGED = """
import os, sys
import anyio
import portfsm

async def main():
    async with portfsm.open_manager("memory:", pools=[portfsm.PoolSpec("http", ports="1-4", hold_s=0)]) as manager:
        if os.getuid() == 0:  # now that all is imported
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            await manager.listen("http", owner="r1")
        except portfsm.BindFailed as error:
            print(error.errno, manager.statistics().free, error)

anyio.run(main, backend=sys.argv[1])
"""


UNPRIVILEGED = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


@pytest.mark.skipif(UNPRIVILEGED <= 4, reason="here everybody may bind every port")
async def test_a_missing_right_blocks_port_after_port(anyio_backend_name):
    program = [sys.executable, "-c", PRIVILEGED, anyio_backend_name]
    outcome = await anyio.run_process(program, stderr=subprocess.STDOUT, env=UNMEASURED)
    assert outcome.stdout.decode().startswith(f"{errno.EACCES} 4 cannot listen: 127.0.0.1:1: Permission denied; ")
    assert b"CAP_NET_BIND_SERVICE" in outcome.stdout


@pytest.mark.parametrize(
    "options",
    [
        {"host": "localhost"}, {"host": ""}, {"host": "300.1.1.1"}, {"host": ()}, {"host": None}, {"host": "::ffff:127.0.0.1"},
        {"host": "fe80::1%nowhere"}, {"host": ("127.0.0.1", "127.0.0.1")}, {"host": ("0.0.0.0", "127.0.0.1")}, {"host": ("::1", "::")},
        {"kind": "sctp"}, {"kind": ()}, {"kind": ("tcp", "tcp")}, {"attempts": 0}, {"attempts": True}, {"attempts": 1.5},
        {"block_s": -1}, {"wait_s": -1}, {"block_s": float("nan")}, {"holder": "h"}, {"owner": ""}, {"owner": "r\n"}, {"service": 7}, {"pool": ["http"]},
    ],
    ids=repr,
)  # fmt: skip
async def test_junk_that_reaches_the_log(opened, memory_log, options):
    async with opened as manager:
        with pytest.raises((InvalidValue, UnknownPool)) as caught:
            await manager.listen(**({"pool": "http", "owner": "r1"} | options))
        (name,) = options
        if isinstance(caught.value, InvalidValue):
            assert caught.value.name == name
        assert memory_log.kinds() == []


async def test_a_call_that_cannot_wait_for_its_turn(memory_log, clock, ports):
    """The only port comes free while it waits, and a stranger sits on it: the rest of its time goes on."""
    async with open_manager(memory_log.memory, pools=[PoolSpec("http", ports=ports[:1], hold_s=10)], clock=clock) as manager:
        await manager.release(await manager.allocate("http", owner="r1"))
        found = []

        async def call():
            try:
                (await manager.listen("http", owner="r2", wait_s=15)).close()
            except PoolExhausted as error:
                found.append(error.__notes__)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with stranger(ports[0]):
                await anyio.wait_all_tasks_blocked()
                clock.advance(10)
                while manager.port("http", ports[0]).state is not PortState.BLOCKED:
                    await checkpoint()
                await anyio.wait_all_tasks_blocked()
                assert found == []
                clock.advance(5)
        assert len(found) == 1
        assert "is in use" in found[0][0]


# ---------------------------------------------------------------------- an owner that has a port already


async def test_a_repeat_ends_the_lease_of_a_replica_that_serves(opened, memory_log, ports):
    """Its own socket is no stranger's: blocking the port would take it away from a live replica."""
    async with opened as manager:
        with await manager.listen("http", owner="r1") as bound:
            with pytest.raises(BindFailed, match="it serves already") as caught:
                await manager.listen("http", owner="r1")
            assert f"(pid {os.getpid()}) listens on" in str(caught.value)
            assert (caught.value.errno, caught.value.port) == (errno.EADDRINUSE, ports[0])
            assert manager.find("r1") == (bound.lease,)
            assert memory_log.kinds() == ["allocated"]


async def test_a_replica_that_restarts_gets_another_port(opened, memory_log):
    async with opened as manager:
        with await manager.listen("http", owner="r1") as bound:
            pass
        with await manager.listen("http", owner="r1") as again:
            assert again.lease == bound.lease
            assert answers("127.0.0.1", again.port)
        assert memory_log.kinds() == ["allocated"]


async def test_a_wrong_address_ends_a_lease_from_before(opened):
    async with opened as manager:
        lease = await manager.allocate("http", owner="r1")
        with pytest.raises(BindFailed, match="keeps it, but cannot listen"):
            await manager.listen("http", owner="r1", host="192.0.2.1")
        assert manager.find("r1") == (lease,)


async def test_two_calls_for_one_owner_take_each_other_for_strangers(opened, ports):
    async with opened as manager:
        found = []

        async def call():
            try:
                with await manager.listen("http", owner="r1") as bound:
                    found.append(bound.port)
            except OwnerConflict as error:
                found.append(str(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            tasks.start_soon(call)
        assert ports[0] in found
        assert any("is under way" in str(each) for each in found)
        assert manager.statistics().blocked == 0


# ---------------------------------------------------------------------- callers that go away


async def test_a_cancelled_listen_leaks_a_lease_or_a_socket(clock, ports):
    """At every step, with a stranger on the first port: what it had is given back, what it found out is kept, no socket stays open."""
    seen = set()

    async def attempt(step):
        with stranger(ports[0]):
            async with open_manager("memory:", pools=[PoolSpec("http", ports=ports, hold_s=0)], clock=clock) as manager:
                before, bound = open_sockets(), None
                with anyio.CancelScope() as scope:
                    bound = await stepped(manager.listen("http", owner="r1"), step, scope.cancel)
                    bound.close()
                for _ in range(10):
                    await checkpoint()
                await manager.release_owner("nobody")  # waits for all that was decided
                assert open_sockets() == before
                if bound is None:
                    assert manager.find("r1") == ()
                    assert manager.statistics().allocated == 0
                    seen.add(manager.port("http", ports[0]).state.value)
                    assert manager.port("http", ports[1]).state is PortState.FREE
                return scope.cancel_called

    await at_each_step(attempt)
    assert seen == {"FREE", "BLOCKED"}


async def test_a_port_that_an_operator_took_meanwhile_is_taken_from_him(opened, ports):
    """While the system is asked who sits on the port: its lease is over by then, and so is our business with it."""
    with stranger(ports[0]):
        async with opened as manager, anyio.create_task_group() as tasks:
            bound = []

            async def call():
                bound.append(await manager.listen("http", owner="r1"))

            tasks.start_soon(call)
            while not manager.find("r1"):
                await checkpoint()
            await manager.release_owner("r1")
            await manager.allocate("http", owner="r2", port=ports[0])
        with bound[0]:
            assert manager.find("r1") == (bound[0].lease,)
            assert [lease.port for lease in manager.find("r2")] == [ports[0]]
