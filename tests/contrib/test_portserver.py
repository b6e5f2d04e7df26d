"""The port server in a test's own loop, with real sockets and processes: whom a port belongs to, and until when."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import anyio
import pytest

from portfsm import PoolSpec, PortState, open_manager
from portfsm.cli._times import parse_time
from portfsm.cli._views import status_json
from portfsm.clocks import SystemClock
from portfsm.contrib._peers import Peer, Process, asked_for
from portfsm.contrib._tenants import Tenants
from portfsm.testing import GatedJournal
from portfsm.witnesses._exits import Sight, read_stat
from tests.contrib.port_clients import ask, parsed, request, rest, serving
from tests.strangers import stranger
from tests.witnesses.helpers import process, until

pytestmark = pytest.mark.anyio

BOOT = SystemClock().boot_id()[:8]


def owner_of(pid, number="1.1", *, started=None, boot=BOOT):
    return Process(pid, started if started is not None else read_stat(pid).started, boot).owner(number)


# ---------------------------------------------------------------------- portpicker's protocol


async def test_one_port_goes_to_two_or_its_process_is_not_to_be_told(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path) as served:
        pid = os.getpid()
        answers = [await served.say(said % pid) for said in (b"%d\n", b"%d", b" %d\r\n")]
        assert answers == [b"%d\n" % port for port in served.ports[:3]]
        for number, port in enumerate(served.ports[:3], 1):
            assert served.manager.port("tests", port).owner == owner_of(pid, f"1.{number}")


async def test_a_pid_that_comes_in_two_pieces_is_another_one(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path) as served, await anyio.connect_unix(served.path) as stream:
        text = b"%d\n" % os.getpid()
        await stream.send(text[:1])
        await stream.send(text[1:])
        assert int(await rest(stream)) == served.ports[0]


async def test_a_dead_process_keeps_its_ports(memory_log, tmp_path):
    """Also one that nobody has reaped, and one that died together with another."""
    async with serving(memory_log.handle(), tmp_path) as served:
        with process() as first, process() as second:
            kept = await served.pick(os.getpid())
            ports = [await served.pick(child.pid) for child in (first, first, second)]
            first.kill()
            second.kill()
            await until(lambda: all(served.state(port) == "QUARANTINED" for port in ports))
            assert served.state(kept) == "ALLOCATED"
            assert await served.pick(os.getpid()) not in ports  # the hold runs


async def test_a_death_goes_unnoticed_where_there_are_no_descriptors_for_processes(memory_log, clock):
    async with open_manager(memory_log.handle(), clock=clock) as manager, anyio.create_task_group() as tasks:
        await manager.define(spec := PoolSpec("tests", ports="5000-5001"))
        with process() as child:
            meant = asked_for(child.pid, Peer(os.getpid(), os.geteuid()), boot=BOOT)
            lease = await manager.allocate(spec.name, owner=meant.owner("1.1"))
            tenants = Tenants(manager, node="", boot=BOOT, sight=Sight(open=lambda _: None), poll_s=0.01)
            tasks.start_soon(tenants.watch)
            await anyio.sleep(0.05)
            assert manager.find(lease.owner)
            child.kill()
            await until(lambda: not manager.find(lease.owner))
        tasks.cancel_scope.cancel()
        tenants.close()


async def test_a_lease_from_before_is_adopted_twice_or_outlives_its_process(memory_log, tmp_path):
    """The pid of the one was given away, the other is from before a reboot, the third is gone; the fourth lives on, and so does what has no process."""
    me = os.getpid()
    owners = [
        owner_of(me, "1.1"),
        owner_of(me, "1.2", started=1),
        owner_of(me, "1.3", boot="00000000"),
        owner_of(2**22 - 1, "1.4", started=5),
        "r1",
    ]
    async with serving(memory_log.handle(), tmp_path) as served:
        leases = [await served.manager.allocate("tests", owner=owner) for owner in owners]
    before = len(memory_log.events())
    async with serving(memory_log.handle(), tmp_path, ports=served.ports) as served:
        await until(lambda: served.manager.statistics("tests").quarantined == 3)
        assert [served.state(lease.port) for lease in leases] == ["ALLOCATED", *["QUARANTINED"] * 3, "ALLOCATED"]
        assert await served.pick(me) == served.ports[5]
    assert memory_log.kinds(after=before) == ["released"] * 3 + ["allocated"]


@pytest.mark.parametrize(
    "said", [b"\n", b"0\n", b"-1\n", b"1\n", b"4194303\n", b"12345678\n", b"9" * 10_000, b"1 2\n", b"\xff\xfe\n", b"\0"]
)
async def test_what_names_no_process_gets_a_port(memory_log, tmp_path, said):
    async with serving(memory_log.handle(), tmp_path) as served:
        assert (await served.say(said)).startswith(b"0\nportfsm: ")
        assert memory_log.kinds() == []


async def test_an_empty_pool_is_not_told(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path, size=1) as served:
        assert await served.pick(os.getpid())
        assert b"0\nportfsm: pool 'tests' has no free port" in await served.say(b"%d" % os.getpid())


@pytest.fixture(scope="module")
def unshare():
    """A command that runs another in a pid namespace of its own."""
    command = [shutil.which("unshare") or "unshare", "--pid", "--fork", "--kill-child"]
    if os.geteuid() or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespaces for this user")
    return command


async def test_a_client_in_a_container_holds_the_port_of_a_stranger(memory_log, tmp_path, unshare):
    """What it calls its pid is another's number here; the kernel says which process it is."""
    async with serving(memory_log.handle(), tmp_path) as served:
        source = f"""
import os, socket, sys
def ask(pid):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect({served.path!r})
    sock.sendall(b"%d" % pid)
    return sock.recv(200).split(b"\\n")[0].decode()
print(ask(os.getpid()), ask({os.getpid()}), flush=True)
sys.stdin.read()"""
        with subprocess.Popen(  # noqa: ASYNC220
            [*unshare, sys.executable, "-S", "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            got, another = (await anyio.to_thread.run_sync(child.stdout.readline)).split()
            assert (int(got), int(another)) == (served.ports[0], 0)
            meant = Process.of_owner(served.manager.port("tests", int(got)).owner)
            assert read_stat(meant.pid).parent == child.pid
            child.kill()
            await until(lambda: served.state(int(got)) == "QUARANTINED")


# ---------------------------------------------------------------------- HTTP


async def test_a_call_means_something_else_than_the_managers(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path) as served:
        status, lease = await served.call("/v1/allocate", ask(service="checkout", ttl_s=60))
        assert (status, lease["port"], lease["service"]) == (200, served.ports[0], "checkout")
        (held,) = served.manager.find("r1")
        assert (held.token, held.since_ns, lease["node"]) == (lease["token"], parse_time(lease["since"], now_ns=0).ts, None)
        assert (await served.call("/v1/allocate", ask(service="checkout", ttl_s=60)))[1]["token"] == lease["token"]
        status, error = await served.call("/v1/allocate", ask(service="billing", ttl_s=60))
        assert (status, error["type"], error["fields"]["conflict"]) == (409, "OwnerConflict", "service")
        assert (await served.call("/v1/renew", {"token": lease["token"]}))[1]["expires"] >= lease["expires"]
        for _ in range(2):
            assert await served.call("/v1/release", {"token": lease["token"]}) == (200, {"released": lease["token"]})
        status, error = await served.call("/v1/renew", {"token": lease["token"]})
        assert (status, error["type"]) == (409, "StaleLease")
        status, seen = await served.call(f"/v1/explain?pool=tests&port={lease['port']}")
        assert (status, seen["state"], "QUARANTINED" in seen["explanation"]) == (200, "QUARANTINED", True)
        again = (await served.call("/v1/allocate", ask(service="checkout")))[1]
        assert again["port"] == lease["port"]
        assert (await served.call("/v1/release", {"token": lease["token"]}))[1]["type"] == "StaleLease"
        assert (await served.call("/v1/release", {"token": again["token"], "block": "broken", "for_s": 5}))[0] == 200
        assert served.state(lease["port"]) == "BLOCKED"
        assert memory_log.kinds() == ["allocated", "released", "allocated", "blocked"]


async def test_a_token_from_before_a_restart_releases_nothing(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path) as served:
        token = (await served.call("/v1/allocate", ask()))[1]["token"]
    async with serving(memory_log.handle(), tmp_path, ports=served.ports) as served:
        assert (await served.call("/v1/release", {"token": token}))[0] == 200
        assert served.state(served.ports[0]) == "QUARANTINED"


async def test_half_of_a_group_is_given(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path) as served:
        want = {"pool": "tests", "owner": "g", "count": 4, "contiguous": True}
        status, given = await served.call("/v1/allocate_group", {"requests": [want]})
        assert (status, [lease["port"] for lease in given["leases"]]) == (200, [*served.ports[:4]])
        status, error = await served.call("/v1/allocate_group", {"requests": [{"pool": "tests", "owner": "h", "count": 3}]})
        assert (status, error["type"], error["fields"]["short_by"]) == (409, "GroupUnavailable", 1)
        assert served.manager.find("h") == ()


async def test_the_status_differs_from_the_commands(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path) as served:
        await served.pick(os.getpid())
        status, told = await served.call("/v1/status")
        assert (status, told) == (200, status_json(memory_log.replayed(), served.manager.head))


BAD = [
    ("/v1/allocate", {"pool": "tests"}, 400, "owner"),
    ("/v1/allocate", ask(prt=1), 400, "prt"),
    ("/v1/allocate", ask(port="5000"), 400, "port"),
    ("/v1/allocate", ask(port=10**30), 400, "65535"),
    ("/v1/allocate", ask(port=1), 400, "outside"),
    ("/v1/allocate", ask(wait_s=-1), 400, "wait_s"),
    ("/v1/allocate", ask(ttl_s=0), 400, "ttl_s"),
    ("/v1/allocate", ask(owner=""), 400, "owner"),
    ("/v1/allocate", ask(owner="a\x1b[2J"), 400, "control character"),
    ("/v1/allocate", ask(owner="x" * 300), 400, "256"),
    ("/v1/allocate", ask(owner="pid:1:2:0a0b0c0d:1.1"), 400, "portpicker"),
    ("/v1/allocate", {**ask(), "pool": "nope"}, 404, "nope"),
    ("/v1/allocate", b"{", 400, "Allocate"),
    ("/v1/allocate", b"\xff", 400, "Allocate"),
    ("/v1/allocate", b"[" * 100_000, 400, "Allocate"),
    ("/v1/allocate", b" " * (300 << 10), 413, "at most"),
    ("/v1/allocate", None, 405, "POST"),
    ("/v1/allocate_group", {"requests": []}, 400, "requests"),
    ("/v1/allocate_group", {"requests": [ask(count=0)]}, 400, "count"),
    ("/v1/release", {"token": 0}, 400, "token"),
    ("/v1/release", {"token": 10**30}, 400, "token"),
    ("/v1/release", {"token": 99}, 409, "token 99"),
    ("/v1/explain", None, 400, "?pool="),
    ("/v1/explain?pool=tests&port=99999", None, 400, "outside"),
    ("/v1/explain?pool=tests&port=x", None, 400, "?pool="),
    ("/v1/explain?" + "a=b&" * 20, None, 400, "?pool="),
    ("/", None, 404, "/v1/allocate"),
    ("//[", None, 404, "/v1/allocate"),
    ("http://[/v1/status", None, 404, "/v1/allocate"),
]


async def test_bad_input_is_a_traceback_or_is_recorded(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path) as served:
        for target, body, status, word in BAD:
            found, error = await served.call(target, body)
            assert (found, word in error["error"]) == (status, True), (target, body, error)
        assert parsed(await served.say(b"GET / HTTP/9\x00\r\n\r\n"))[0] == 400
        assert memory_log.kinds() == []


# ---------------------------------------------------------------------- ports that others sit on


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("way", ["portpicker", "http", "group"])
async def test_a_port_that_somebody_sits_on_is_given(memory_log, tmp_path, way, kind):
    async with serving(memory_log.handle(), tmp_path) as served:
        with stranger(served.ports[0], kind=kind):
            if way == "portpicker":
                got = [await served.pick(os.getpid())]
            elif way == "http":
                got = [(await served.call("/v1/allocate", ask()))[1]["port"]]
            else:
                answer = await served.call("/v1/allocate_group", {"requests": [ask(count=2)]})
                got = [lease["port"] for lease in answer[1]["leases"]]
            assert got == [*served.ports[1:][: len(got)]]
            view = served.manager.port("tests", served.ports[0])
            assert (view.state, "is in use" in view.reason, view.errno) == (PortState.BLOCKED, True, 98)


async def test_what_its_owner_listens_on_is_taken_for_a_strangers(memory_log, tmp_path):
    """A second request for the same owner, begun before the first was answered, must not block the port under its feet."""
    journal = GatedJournal(memory_log.handle())
    async with serving(journal, tmp_path) as served:
        journal.hold()
        async with await anyio.connect_unix(served.path) as one, await anyio.connect_unix(served.path) as two:
            await one.send(request("/v1/allocate", ask()))
            await journal.held()
            await two.send(request("/v1/allocate", ask()))
            await anyio.wait_all_tasks_blocked()
            journal.let_go()
            first = parsed(await rest(one))[1]
            with socket.create_server(("127.0.0.1", first["port"])):
                assert parsed(await rest(two))[1] == first
                assert (await served.call("/v1/allocate", ask()))[1] == first
        assert memory_log.kinds() == ["allocated"]
