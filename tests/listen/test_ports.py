"""`PortManager.listen` on real sockets: strangers on the ports, connections that linger, children that inherit.

What Ray Serve's replicas did in the same places, with a permanent block each time: TIME_WAIT (ray-project/ray#61830, #62929, #62974), the
source port of an outgoing connection, and any other error of a bind, which used the pool up (#64623).
"""

from __future__ import annotations

import os
import socket
import sys

import anyio
import pytest

from portfsm import BindFailed, Holder, PoolSpec, PortState, open_manager
from portfsm.sockets import occupants
from tests.listen.endpoints import answers
from tests.strangers import closed_by_server, heir, in_time_wait, named, outgoing, skip_without_ipv6, stranger

pytestmark = pytest.mark.anyio


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
