"""BLOCKED with reason, evidence and end: what speaks against a port and what does not, what is kept of it, and how long it counts.

Ray#64623: any error of a bind, a certificate that could not be read say, blocked a port for ever, until the pool was empty.
"""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from portfsm import Event, EventKind, InvalidValue, JournalCorrupt, PortState, open_manager, replay
from portfsm._dump import dump, load
from portfsm._explain import explain
from portfsm._faults import blocks, finding
from portfsm._ledger import Ledger
from portfsm.commands import Adopt, Allocate, Block, Release, ReleaseOwner, Sweep, Unblock

SECOND = 1_000_000_000
DAY = 86_400
IN_USE = OSError(errno.EADDRINUSE, "Address already in use")


# ---------------------------------------------------------------------- whose fault


def test_a_port_that_somebody_listens_on_is_not_blamed():
    """The error as the system raises it."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        first.listen()
        with pytest.raises(OSError) as caught:
            second.bind(first.getsockname())
    assert blocks(caught.value)
    assert finding("block", caught.value) == ("[Errno 98] Address already in use", 98)


def test_a_port_blamed_for_an_address_that_the_host_has_not():
    with socket.socket() as listener, pytest.raises(OSError) as caught:
        listener.bind(("192.0.2.1", 0))
    assert not blocks(caught.value)
    with pytest.raises(InvalidValue, match="is no address of this machine: name one of its own"):
        finding("block", caught.value)


def test_a_port_blamed_for_a_certificate():
    """A TLS setting that was wrong blocked port after port (ray-project/ray#64623).

    An `SSLError` is an `OSError`, and so is a name that does not resolve.
    """
    context = ssl.create_default_context()
    with pytest.raises(OSError) as caught:
        context.load_verify_locations(cadata="no certificate")
    assert not blocks(caught.value)
    with pytest.raises(OSError) as resolved:
        socket.getaddrinfo("no address", 1, flags=socket.AI_NUMERICHOST)
    assert not blocks(resolved.value)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "CAP_NET_BIND_SERVICE: grant it, or take a pool above"),
        (errno.EPERM, "a security policy of this machine forbids it"),
        (errno.EADDRNOTAVAIL, "the host that was named is no address of this machine: name one of its own"),
        (errno.EMFILE, r"raise the limit of open files \(ulimit -n\)"),
        (errno.ENFILE, r"raise the system's limit of open files"),
        (errno.EAFNOSUPPORT, "does not speak IPv6: name an IPv4 address"),
        (errno.ENOENT, "see to the cause"),
        (None, "see to the cause"),
    ],
)
def test_a_port_blamed_for_what_every_port_would_meet(number, advice):
    error = OSError(number, "said so") if number is not None else OSError("said so")
    assert not blocks(error)
    with pytest.raises(InvalidValue, match=advice) as caught:
        finding("reason", error)
    assert (caught.value.name, caught.value.value) == ("reason", error)
    assert "not the port's fault" in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "denied"), OSError(errno.EADDRNOTAVAIL, "no"), ssl.SSLError(1, "tls")])
async def test_a_pool_emptied_by_a_missing_permission(log, clock, pool, error):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        lease = await manager.allocate("http", owner="a")
        with pytest.raises(InvalidValue, match="not the port's fault"):
            await manager.release(lease, block=error, for_s=600)
        with pytest.raises(InvalidValue, match="not the port's fault"):
            await manager.block("http", 30_001, reason=error)
        assert log.kinds() == ["allocated"]
        assert manager.find("a") == (lease,)


# ---------------------------------------------------------------------- what is kept


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["release", "block"])
async def test_a_finding_whose_number_is_lost(log, clock, pool, by):
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        lease = await manager.allocate("http", owner="a")
        if by == "release":
            await manager.release(lease, block=IN_USE)
        else:
            await manager.block("http", lease.port, reason=IN_USE)
        blocked = log.events()[-1]
        assert (blocked.cause, blocked.reason, blocked.data) == (
            "address-in-use", "[Errno 98] Address already in use", {"errno": errno.EADDRINUSE},
        )  # fmt: skip
        view = manager.port("http", lease.port)
        assert (view.errno, view.reason, view.until) == (errno.EADDRINUSE, "[Errno 98] Address already in use", None)
        log.check(manager)
    async with open_manager(log.handle(), pools=[pool], clock=clock) as manager:
        assert manager.port("http", lease.port) == view
        await manager.unblock("http", lease.port)
        assert manager.port("http", lease.port).errno is None


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "line\nline", "\u202e", "x" * 5000, "ü" * 600, "\udc80"])
def test_a_systems_message_that_no_reason_may_hold(world, text):
    reason, number = finding("block", OSError(errno.EADDRINUSE, text))
    world.release(world.allocate("a"), block=reason, errno=number)
    assert world.events[-1].reason.isprintable()
    assert len(world.events[-1].reason.encode()) <= 1024


def test_a_block_in_words_that_seems_a_systems_finding(world):
    world.release(world.allocate("a"), block="smells")
    assert (world.events[-1].cause, world.events[-1].data) == ("holder", None)
    assert world.ledger.port("p", 100).errno is None


# ---------------------------------------------------------------------- how long


def blocked_for(world, *, port=100, for_s=600.0, number=errno.EADDRINUSE, owner="a"):
    """One more attempt on the port that finds somebody there; how long it is blocked for, in seconds."""
    world.do(Allocate("p", owner=owner, port=port))
    world.release(world.ledger.find(owner)[0], block="in use", for_s=for_s, errno=number)
    return (world.events[-1].until - world.now) / SECOND


def over(world, seconds=10 * DAY):
    """Block and hold are over, and were noticed."""
    for _ in range(2):
        world.pass_time(seconds)
        world.do(Sweep())
    assert world.state(100) == "FREE"


def test_a_strangers_server_that_is_run_into_every_ten_minutes(world):
    """A port was blocked for ever, for any error (ray-project/ray#64623). Doubling, at most a day; and every count is in the log."""
    found = []
    for _ in range(10):
        found.append(blocked_for(world))
        over(world)
    assert found == [600, 1200, 2400, 4800, 9600, 19_200, 38_400, 76_800, DAY, DAY]
    assert [event.data["times"] for event in world.events if event.kind == "blocked"] == list(range(1, 11))
    assert world.replayed().digest() == world.ledger.digest()


def test_a_count_that_a_snapshot_of_a_free_port_forgets(world):
    blocked_for(world)
    over(world)
    copy = Ledger()
    load(copy, list(dump(world.ledger)))
    assert copy.digest() == world.ledger.digest()
    world.ledger = copy
    assert blocked_for(world) == 1200


def test_a_block_of_days_cut_down_to_one(world):
    assert [blocked_for(world, for_s=3.0 * DAY), over(world), blocked_for(world, for_s=3.0 * DAY)] == [3 * DAY, None, 3 * DAY]


@pytest.mark.parametrize("for_s", [0.0, 1e-6, 1e8])
def test_a_count_that_grows_beyond_all_bounds(world, for_s):
    world.do(Block("p", 100, reason="x", for_s=1.0, cause="address-in-use"))
    note = world.ledger.pools["", "p"].notes
    note[0] = note[0]._replace(times=100_000)
    world.do(Unblock("p", 100))
    over(world)
    assert blocked_for(world, for_s=for_s) == (0 if not for_s else max(DAY, for_s))


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ("nothing", 1200),
        ("a good lease", 600),
        ("a good lease ended for its owner", 600),
        ("an adoption", 600),
        ("a cancelled lease", 1200),
        ("an expired lease", 1200),
        ("another finding", 600),
        ("an operator's block", 1200),
        ("a good lease on another port", 1200),
    ],
)
def test_a_passing_trouble_that_is_held_against_the_port(world, between, expected):
    """What ends the count is somebody who listened there and let go: not a lease that came to nothing."""
    blocked_for(world)
    over(world)
    if between == "another finding":
        blocked_for(world, number=0)
    elif between == "an operator's block":
        world.do(Block("p", 100, reason="x", for_s=60))
    elif between == "an adoption":
        world.do(Adopt("p", 100, owner="b"))
        world.do(ReleaseOwner("b", cause="expired"))
    elif "owner" in between:
        world.allocate("b", port=100)
        world.do(ReleaseOwner("b"))
    elif between != "nothing":
        port = 101 if "another" in between else 100
        cause = {"a cancelled lease": "cancelled", "an expired lease": "expired"}.get(between, "released")
        world.release(world.allocate("b", port=port), cause=cause)
    over(world)
    assert blocked_for(world) == expected


def test_an_operators_block_that_lasts_longer_than_he_said(world):
    for _ in range(3):
        world.do(Block("p", 100, reason="maintenance", for_s=60))
        assert world.events[-1].until == world.now + 60 * SECOND
        assert world.events[-1].data is None
        over(world)


def test_a_block_without_an_end_that_counts_or_ends(world):
    for _ in range(2):
        assert blocked_for(world, for_s=None) * SECOND == -world.now
        assert world.events[-1].data == {"errno": errno.EADDRINUSE}
        world.do(Unblock("p", 100))
        over(world)
    assert blocked_for(world) == 600


def test_a_repeated_finding_that_is_counted_twice(world):
    """The reply was lost and the holder reports again."""
    lease = world.allocate("a", port=100)
    assert world.release(lease, block="in use", for_s=600, errno=98) == ["blocked"]
    assert world.release(lease, block="in use", for_s=600, errno=98) == []
    over(world)
    assert blocked_for(world) == 1200


def test_a_block_that_grew_and_nobody_knows_why(world):
    blocked_for(world)
    assert "blocked" not in explain(world.ledger, "p", 100, now_ns=world.now)
    over(world)
    blocked_for(world)
    assert "(blocked 2 times since its last good lease)" in explain(world.ledger, "p", 100, now_ns=world.now)


def test_a_log_from_before_that_counts_what_it_did_not(world):
    """Blocks that an earlier version recorded carry no count: they digest as they did, and the first new one is the first."""
    world.do(Allocate("p", owner="a", port=100))
    old = Event(
        world.ledger.seq + 1, world.now, EventKind.BLOCKED, pool="p", port=100, owner="a", token=2, until=world.now + SECOND, cause="holder"
    )
    world.ledger.fold([old])
    world.events.append(old)
    assert world.ledger.port("p", 100).state is PortState.BLOCKED
    over(world)
    assert blocked_for(world, number=0) == 600


@pytest.mark.parametrize(
    "data", [{"errno": "98"}, {"times": None}, {"times": 1.5}, {"errno": True}, {"times": [1]}, {"times": -1}, {"times": 1 << 70}]
)
def test_a_forged_count_believed(world, data):
    world.allocate("a", port=100)
    wrong = Event(world.ledger.seq + 1, world.now, EventKind.BLOCKED, pool="p", port=100, reason="x", cause="holder", data=data)
    with pytest.raises(JournalCorrupt, match="errno and times are whole numbers"):
        replay([*world.events, wrong])


def test_a_command_whose_number_is_lost_on_the_way(world):
    lease = world.allocate("a")
    assert world.do(Release(lease, block="in use", errno=98)) == ["blocked"]
    assert world.ledger.port("p", lease.port).errno == 98
