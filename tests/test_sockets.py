"""Holders, binding and the search for who sits on a port: real sockets, and `/proc` as it was written down."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from portfsm import BindFailed, Holder, InvalidValue, PoolSpec
from portfsm._faults import blocks
from portfsm.sockets import NotBound, bind_all, check_targets, occupants
from tests.strangers import choosing, closed_by_server, connect_from, free_range, named, outgoing, skip_without_ipv6, stranger


@pytest.fixture
def ports() -> range:
    return free_range(4)


def binder(port: int, host: str = "127.0.0.1", *, reuse: bool = True) -> socket.socket:
    """A replica's own listening socket. Raises `OSError`."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        sock.bind((host, port))
        sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock


# ---------------------------------------------------------------------- whose fault it is


@pytest.mark.parametrize("name", ["EACCES", "EPERM", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EMFILE", "ENFILE", "EINVAL", "ENOBUFS"])
def test_a_port_is_blocked_for_what_is_no_ports_fault(name):
    assert not blocks(OSError(getattr(errno, name), name))
    assert blocks(OSError(errno.EADDRINUSE, "in use"))


# ---------------------------------------------------------------------- binding


def test_a_port_counts_as_ours_that_another_has_bound_and_listens_on_first(ports):
    """Both bind with SO_REUSEADDR; only the first to listen gets it. Bind alone would have said yes."""
    targets = check_targets("127.0.0.1", "tcp")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", ports[0]))
        (ours,) = bind_all(ports[0], targets)
        with ours, pytest.raises(OSError, match="in use"):
            other.listen()
        other.listen()
        with pytest.raises(NotBound) as caught:
            bind_all(ports[0], targets)
        assert caught.value.error.errno == errno.EADDRINUSE


def test_sockets_left_open_when_a_later_one_fails(ports):
    with binder(ports[0], "127.0.0.2"), pytest.raises(NotBound) as caught:
        bind_all(ports[0], check_targets(("127.0.0.1", "127.0.0.2"), "tcp"))
    assert caught.value.place == f"127.0.0.2:{ports[0]}"
    binder(ports[0], "127.0.0.1").close()


def test_a_socket_that_shares_its_port_or_leaks_into_a_child(ports):
    skip_without_ipv6("::1")
    for sock in bind_all(ports[0], check_targets(("127.0.0.1", "::1"), ("tcp", "udp"))):
        with sock:
            assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is (sock.type is socket.SOCK_STREAM)
            assert not sock.get_inheritable()


# ---------------------------------------------------------------------- who sits there


def test_a_listener_without_its_name(ports):
    with stranger(ports[1], "::1") as one, stranger(ports[0], kind="udp") as two:
        udp, tcp = occupants(ports, kinds=("tcp", "udp"))
        assert (tcp.port, tcp.host, tcp.kind, tcp.pid) == (ports[1], "::1", "tcp", one.pid)
        assert str(tcp) == f"{named(one)} listens on [::1]:{ports[1]}"
        assert (udp.port, udp.kind, udp.pid, udp.uid) == (ports[0], "udp", two.pid, os.getuid())
        assert occupants(ports[2:], kinds=("tcp", "udp")) == ()


def test_a_connection_that_stands_before_the_listener(ports):
    with socket.create_server(("127.0.0.1", ports[1])) as server, socket.create_connection(server.getsockname()) as client:
        with server.accept()[0], outgoing(ports[0], server.getsockname()) as thief, server.accept()[0]:
            found = occupants(ports)
            assert [each.doing for each in found] == ["listens", "connected", "connected", "connected"]
            assert found[0].peer == ""
            assert {each.peer for each in found if each.port == ports[0]} == {f"127.0.0.1:{ports[1]}"}
            assert {each.pid for each in found} == {os.getpid()}
        del client, thief


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:7530 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 4711 1 0 100 0 0 10 0
   1: 0100007F:7531 0200000A:01BB 06 00000000:00000000 03:00000EA6 00000000     0        0 0 3 0
   2: not a line
   3: 0100007F:7532 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4712 1 0 100 0 0 10 0
"""
TABLE6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000100007F:7533 0000000000000000FFFF00000200000A:01BB 01 0:0 0:0 0 101 0 4711 1 0
   1: 00000000000000000000000001000000:7534 00000000000000000000000000000000:0000 0A 0:0 0:0 0 101 0 4713 1 0
"""


@pytest.fixture
def proc(tmp_path):
    """A machine on which nginx has three sockets, and another user one."""
    if sys.byteorder != "little":
        pytest.skip("the tables below are of a little-endian machine")
    for name, text in (("tcp", TABLE), ("tcp6", TABLE6)):
        (tmp_path / "net").mkdir(exist_ok=True)
        (tmp_path / "net" / name).write_text(text)
    (tmp_path / "812" / "fd").mkdir(parents=True)
    (tmp_path / "812" / "comm").write_text("ng\x1b[2Jinx\n")
    (tmp_path / "812" / "fd" / "5").symlink_to("socket:[4711]")
    (tmp_path / "812" / "fd" / "6").symlink_to("socket:[4713]")
    (tmp_path / "90").mkdir()  # another user's: what it has open cannot be seen
    return tmp_path


def test_a_line_of_the_system_that_is_misread(proc):
    assert [str(each) for each in occupants(range(30_000, 30_010), proc=proc)] == [
        "ng?[2Jinx (pid 812) listens on 127.0.0.1:30000",
        "a process of uid 33 listens on 127.0.0.1:30002",
        "ng?[2Jinx (pid 812) listens on [::1]:30004",
        "ng?[2Jinx (pid 812) has a connection from 127.0.0.1:30003 to 10.0.0.2:443",
        "a closed connection (127.0.0.1:30001 to 10.0.0.2:443, TIME_WAIT) stays for up to a minute",
    ]


def test_a_system_without_proc_that_breaks_the_search(tmp_path):
    assert occupants(range(1, 65_536), kinds=("tcp", "udp"), proc=tmp_path / "nowhere") == ()


# ---------------------------------------------------------------------- holding


@pytest.fixture
def ephemeral() -> range:
    """Two ports that the system would give to an outgoing connection."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return free_range(2, first=first, last=last)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("source", ["", "127.0.0.5"])
def test_an_outgoing_connection_takes_a_port_of_the_pool(ephemeral, source, strict):
    """A pool inside ip_local_port_range, and no root to reserve it: the system would give its ports to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with Holder(ephemeral, strict=strict) as holder:
            with pytest.raises(OSError, match="Cannot assign"):
                connect_from(ephemeral, server.getsockname(), source=source)
            holder.open(ephemeral[0])
            with binder(ephemeral[0]), pytest.raises(OSError, match="Cannot assign"):
                connect_from(ephemeral, server.getsockname(), source=source)
        with connect_from(ephemeral, server.getsockname(), source=source) as thief:
            assert thief.getsockname()[1] in ephemeral, "nothing to prevent: this test proved nothing"


def test_a_program_that_takes_any_port_takes_one_of_the_pool(ephemeral):
    with Holder(ephemeral), choosing(ephemeral) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            sock.bind(("127.0.0.1", 0))
    with choosing(ephemeral) as sock:
        sock.bind(("127.0.0.1", 0))
        assert sock.getsockname()[1] in ephemeral, "nothing to prevent: this test proved nothing"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_replica_cannot_bind_its_port_because_of_the_holder(ports, host):
    with Holder(ports) as holder:
        assert holder.held == tuple(ports)
        with binder(ports[0], host):
            socket.create_connection(("127.0.0.1", ports[0])).close()
        with pytest.raises(OSError, match="in use"):
            binder(ports[1], reuse=False)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ports[1]))


def test_a_stranger_gets_a_port_that_is_held_strictly(ports):
    with Holder(ports, strict=True) as holder:
        for reuse in (False, True):
            with pytest.raises(OSError, match="in use"):
                binder(ports[0], reuse=reuse)
        holder.open(ports[0])
        with binder(ports[0]):
            holder.shut(ports[0])
            socket.create_connection(("127.0.0.1", ports[0])).close()
        with pytest.raises(OSError, match="in use"):
            binder(ports[0])
    binder(ports[0]).close()


def test_a_holder_that_is_kept_out_by_time_wait(ports):
    """A strict one, too: it binds as a replica does and shuts the port then."""
    with binder(ports[0]) as server:
        closed_by_server(server)
    with Holder(ports, strict=True) as holder:
        assert holder.missing == {}


def test_a_port_that_is_not_held_and_not_said_to_be(ports):
    with binder(ports[1]) as server, Holder(ports) as holder:
        assert holder.held == (ports[0], ports[2], ports[3])
        assert holder.missing == {ports[1]: "Address already in use"}
        assert holder.retry() == 0
        server.close()
        assert holder.retry() == 1
        assert (holder.held, holder.missing) == (tuple(ports), {})


def test_a_program_without_reuseaddr_never_gets_its_port(ports):
    with Holder(ports) as holder:
        holder.drop(ports[2])
        holder.drop(ports[2])
        with binder(ports[2], reuse=False):
            assert holder.missing == {ports[2]: "dropped"}
            assert holder.retry() == 0
        assert holder.retry() == 1


def test_a_port_of_another_pool_that_is_opened_by_mistake(ports):
    with Holder(ports[:2], strict=True) as holder:
        holder.open(ports[3])
        holder.shut(ports[3])
        holder.drop(ports[3])
        assert holder.missing == {}


def test_a_holder_that_does_not_take_what_a_pool_takes(ports):
    spec = PoolSpec("http", ports=f"{ports[0]}-{ports[1]},{ports[3]}")
    for given in (spec.ports, f"{ports[0]}-{ports[1]},{ports[3]}", [ports[0], ports[1], ports[3]]):
        with Holder(given) as holder:
            assert holder.held == (ports[0], ports[1], ports[3])


@pytest.mark.parametrize(
    ("arguments", "options", "name"),
    [(("5-1",), {}, "ports"), (("1-70000",), {}, "ports"), ((range(0),), {}, "ports"), (("20000",), {"host": "localhost"}, "host")],
)
def test_junk_that_is_held(arguments, options, name):
    with pytest.raises(InvalidValue) as caught:
        Holder(*arguments, **options)
    assert caught.value.name == name


def test_an_address_of_another_machine_is_held_in_silence(ports):
    with pytest.raises(BindFailed, match=r"cannot hold 192\.0\.2\.1:.* is no address of this machine") as caught:
        Holder(ports, host="192.0.2.1")
    assert (caught.value.errno, caught.value.host) == (errno.EADDRNOTAVAIL, "192.0.2.1")


FEW = """
import resource, sys
from portfsm import BindFailed, Holder
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
try:
    Holder(sys.argv[1])
except BindFailed as error:
    print(error.errno, error)
    open("/dev/null").close()
"""


def test_a_holder_that_takes_the_last_file_descriptor_with_it():
    ports = free_range(40)
    outcome = subprocess.run([sys.executable, "-c", FEW, f"{ports[0]}-{ports[-1]}"], capture_output=True, text=True, check=True)
    assert outcome.stdout.startswith(f"{errno.EMFILE} cannot hold 127.0.0.1:")
    assert "raise the limit of open files (ulimit -n) (40 ports need as many)" in outcome.stdout


FEWER = """
import resource, sys
from portfsm import BindFailed, Holder
with Holder(sys.argv[1]) as holder:
    holder.drop(holder.held[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    try:
        holder.retry()
    except BindFailed as error:
        print(len(holder.held), error.errno)
"""


def test_a_port_that_cannot_be_won_back_costs_the_others():
    ports = free_range(4)
    outcome = subprocess.run([sys.executable, "-c", FEWER, f"{ports[0]}-{ports[-1]}"], capture_output=True, text=True, check=True)
    assert outcome.stdout == f"3 {errno.EMFILE}\n"


def test_a_child_that_keeps_the_ports_held(ports):
    holder = Holder(ports, strict=True)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            holder.close()
            binder(ports[0]).close()
        finally:
            child.kill()
