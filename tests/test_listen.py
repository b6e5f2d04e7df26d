"""`PortManager.listen` on real sockets: strangers on the ports, connections that linger, rights that are missing, callers that go away.

What Ray Serve's replicas did in the same places, with a permanent block each time: TIME_WAIT (ray-project/ray#61830, #62929, #62974), the
source port of an outgoing connection, and any other error of a bind, which used the pool up (#64623).
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import BindFailed, Holder, InvalidValue, OwnerConflict, PoolExhausted, PoolSpec, PortState, UnknownPool, open_manager
from portfsm.sockets import occupants
from tests.strangers import closed_by_server, free_range, heir, in_time_wait, named, outgoing, skip_without_ipv6, stranger
from tests.tasks import at_each_step, stepped

pytestmark = pytest.mark.anyio


@pytest.fixture
def ports() -> range:
    return free_range(4)


@pytest.fixture
def opened(memory_log, clock, ports):
    """A manager of four free ports that holds no released one back."""
    return open_manager(memory_log.memory, pools=[PoolSpec("http", ports=ports, hold_s=0)], clock=clock)


@pytest.fixture(autouse=True)
def no_socket_left_open():
    before = open_sockets()
    yield
    assert open_sockets() == before


def open_sockets() -> int:
    return sum(os.path.realpath(f"/proc/self/fd/{fd}").rpartition("/")[2].startswith("socket:") for fd in os.listdir("/proc/self/fd"))


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return False
    return True


# ---------------------------------------------------------------------- the lease and its sockets


async def test_a_lease_whose_port_nobody_listens_on(opened, ports):
    async with opened as manager:
        with await manager.listen("http", owner="r1", service="checkout") as bound:
            assert manager.find("r1") == (bound.lease,)
            assert bound.port == bound.lease.port == ports[0]
            assert bound.fds == tuple(each.fileno() for each in bound.sockets)
            assert bound.lease.service == "checkout"
            assert answers("127.0.0.1", bound.port)
        assert not answers("127.0.0.1", bound.port)
        assert manager.find("r1") == (bound.lease,), "the sockets are closed, the lease goes on"


@pytest.mark.parametrize(
    ("host", "kind", "expected"),
    [
        ("::1", "tcp", [("::1", socket.SOCK_STREAM)]),
        (("127.0.0.1", "::1"), "tcp", [("127.0.0.1", socket.SOCK_STREAM), ("::1", socket.SOCK_STREAM)]),
        (["0.0.0.0", "::"], "tcp", [("0.0.0.0", socket.SOCK_STREAM), ("::", socket.SOCK_STREAM)]),
        ("127.0.0.1", "udp", [("127.0.0.1", socket.SOCK_DGRAM)]),
        ("::1", ("tcp", "udp"), [("::1", socket.SOCK_STREAM), ("::1", socket.SOCK_DGRAM)]),
        ("127.0.0.9", "tcp", [("127.0.0.9", socket.SOCK_STREAM)]),
    ],
)
async def test_an_address_or_a_kind_that_is_left_out(opened, ports, host, kind, expected):
    skip_without_ipv6(host)
    async with opened as manager:
        with await manager.listen("http", owner="r1", host=host, kind=kind) as bound:
            assert [(each.getsockname()[:2], each.type) for each in bound.sockets] == [
                ((name, ports[0]), type_) for name, type_ in expected
            ]
            listening = [bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) for each in bound.sockets]
            assert listening == [type_ is socket.SOCK_STREAM for _, type_ in expected]


# ---------------------------------------------------------------------- others on the port


async def test_a_port_that_a_stranger_listens_on_is_given_out(opened, memory_log, clock, ports):
    """Between the pick and the bind another took the port (google/python_portpicker#35)."""
    with stranger(ports[0]) as other:
        async with opened as manager:
            with await manager.listen("http", owner="r1") as bound:
                assert bound.port == ports[1]
            view = manager.port("http", ports[0])
            assert view.state is PortState.BLOCKED
            assert view.until == clock.wall_ns() + 600_000_000_000
            assert view.reason == f"127.0.0.1:{ports[0]} is in use (EADDRINUSE, errno 98): {named(other)} listens on 127.0.0.1:{ports[0]}"
            assert memory_log.kinds() == ["allocated", "blocked", "allocated"]
            assert [event.cause for event in memory_log.events() if event.kind == "blocked"] == ["address-in-use"]
            memory_log.check(manager)


async def test_a_stranger_that_shares_its_port_gets_half_of_our_connections(opened, ports):
    """With SO_REUSEPORT on both sides the system splits them, and nobody notices."""
    with stranger(ports[0], "127.0.0.1", "SO_REUSEPORT", "SO_REUSEADDR"):
        async with opened as manager:
            with await manager.listen("http", owner="r1") as bound:
                assert bound.port == ports[1]


@pytest.mark.parametrize(
    ("theirs", "ours", "collides"),
    [
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),  # a socket of both families
        ("::1", "::", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "127.0.0.1", False),
    ],
)
async def test_another_address_is_probed_than_the_replica_binds(opened, ports, theirs, ours, collides):
    """A wildcard meets each address of its family (moby/moby#44136)."""
    skip_without_ipv6(theirs, ours)
    with stranger(ports[0], theirs) as other:
        async with opened as manager:
            with await manager.listen("http", owner="r1", host=ours) as bound:
                assert bound.port == ports[1 if collides else 0]
            assert (named(other) in manager.port("http", ports[0]).reason) is collides


async def test_a_udp_port_of_a_stranger_leaves_half_a_replica(opened, ports):
    """A number is TCP, UDP, or both (kubernetes/kubernetes#20092).

    HTTP/3: both kinds on one number, or neither. The TCP socket that was bound already is closed again.
    """
    with stranger(ports[0], kind="udp") as other:
        async with opened as manager:
            with await manager.listen("http", owner="r1", kind=("tcp", "udp")) as bound:
                assert bound.port == ports[1]
            assert f"{named(other)} has 127.0.0.1:{ports[0]}/udp" in manager.port("http", ports[0]).reason
            assert not answers("127.0.0.1", ports[0])


async def test_two_programs_receive_on_one_udp_port(opened, ports):
    """With SO_REUSEADDR on both sides, UDP lets the second take everything away from the first."""
    with stranger(ports[0], "127.0.0.1", "SO_REUSEADDR", kind="udp"):
        async with opened as manager:
            with await manager.listen("http", owner="r1", kind="udp") as bound:
                assert bound.port == ports[1]


async def test_time_wait_of_the_former_replica_blocks_its_port(opened, ports):
    async with opened as manager:
        with await manager.listen("http", owner="r1") as bound:
            closed_by_server(bound.sockets[0])
        await manager.release(bound.lease)
        with await manager.listen("http", owner="r2") as bound:
            assert bound.port == ports[0]
        assert manager.statistics().blocked == 0


async def test_an_outgoing_connection_blocks_its_port_for_good(opened, clock, ports):
    """It ends by itself, and TIME_WAIT a minute later: its block ends soon after."""
    with socket.create_server(("127.0.0.1", 0)) as server, outgoing(ports[0], server.getsockname()) as client:
        assert client.getsockname()[1] == ports[0]
        async with opened as manager:
            with await manager.listen("http", owner="r1") as bound:
                assert bound.port == ports[1]
            view = manager.port("http", ports[0])
            assert view.state is PortState.BLOCKED
            assert view.until == clock.wall_ns() + 90_000_000_000
            assert f"(pid {os.getpid()}) has a connection from 127.0.0.1:{ports[0]} to 127.0.0.1:{server.getsockname()[1]}" in view.reason


async def test_time_wait_of_a_thief_passes_for_a_listener(opened, clock, ports):
    """An outgoing connection that was closed here first: no process owns what is left, and for a minute no bind gets past it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with outgoing(ports[0], server.getsockname()) as client, server.accept()[0] as peer:
            client.close()
            assert peer.recv(1) == b""
        in_time_wait(ports[0])
        async with opened as manager:
            with await manager.listen("http", owner="r1", block_s=45) as bound:
                assert bound.port == ports[1]
            view = manager.port("http", ports[0])
            assert "TIME_WAIT) stays for up to a minute" in view.reason
            assert view.until == clock.wall_ns() + 45_000_000_000, "never longer than the caller says"


async def test_a_blocked_port_that_is_never_tried_again(opened, clock, ports):
    async with opened as manager:
        with stranger(ports[0]), await manager.listen("http", owner="r1"):
            pass
        clock.advance(601)
        with await manager.listen("http", owner="r2") as bound:
            assert bound.port == ports[0]


async def test_a_stranger_is_forgotten_with_the_controller(file_log, clock, ports):
    """Ray's blocked ports vanish with their manager, and each replica runs into them anew."""
    pools = [PoolSpec("http", ports=ports, hold_s=0)]
    with stranger(ports[0]) as other:
        async with open_manager(file_log.path, pools=pools, clock=clock) as manager:
            (await manager.listen("http", owner="r1")).close()
        async with open_manager(file_log.path, pools=pools, clock=clock) as manager:
            assert named(other) in manager.port("http", ports[0]).reason
            with await manager.listen("http", owner="r2") as bound:
                assert bound.port == ports[2]
            file_log.check(manager)
    assert file_log.kinds() == ["allocated", "blocked", "allocated", "allocated"]


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
    outcome = await anyio.run_process(program, stderr=subprocess.STDOUT)
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


# ---------------------------------------------------------------------- handed to a child

CHILD = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.sendall(b"child")
    connection.close()
"""


def asked(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as client:
        return client.recv(9)


async def test_a_child_that_dies_leaves_a_port_where_nobody_answers(opened):
    async with opened as manager:
        bound = await manager.listen("http", owner="r1")
        with heir([sys.executable, "-S", "-c", CHILD, str(bound.fds[0])], *bound.fds) as child:
            bound.close()
            assert await anyio.to_thread.run_sync(asked, bound.port) == b"child"
            assert [each.pid for each in occupants((bound.port,)) if each.doing == "listens"] == [child.pid]
        assert not answers("127.0.0.1", bound.port)


async def test_a_child_of_the_replica_that_keeps_its_port_is_not_named(opened, ports):
    """The listener is dead, its child inherited the socket: connections succeed and nobody answers."""
    with socket.create_server(("127.0.0.1", ports[0])) as parent, heir(["sleep", "60"], parent.fileno()) as child:
        parent.close()
        async with opened as manager:
            with await manager.listen("http", owner="r1") as bound:
                assert bound.port == ports[1]
            assert f"sleep (pid {child.pid}) listens" in manager.port("http", ports[0]).reason


# ---------------------------------------------------------------------- beside a holder


@pytest.mark.parametrize("strict", [False, True])
async def test_a_holder_is_taken_for_a_stranger(opened, ports, strict):
    with Holder(ports, strict=strict) as holder:
        async with opened as manager:
            with await manager.listen("http", owner="r1", holder=holder) as bound:
                assert bound.port == ports[0]
                assert answers("127.0.0.1", bound.port)


async def test_a_failed_bind_leaves_a_strict_holder_open(opened, ports):
    with Holder(ports, strict=True) as holder:
        async with opened as manager:
            with pytest.raises(BindFailed):
                await manager.listen("http", owner="r1", host=("127.0.0.1", "192.0.2.1"), holder=holder)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", ports[0]))
