"""What no call may take: each refused with a typed error that names the value and the way out, and the log as it was, byte by byte.

`test_specs` and `test_commands` have every form of every argument; here the same junk comes in through the manager, on a log
in a directory, and what counts is what the log holds afterwards.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from pathlib import Path

import attrs
import pytest

from portfsm import (
    Adopt,
    Allocate,
    Block,
    CommandRejected,
    DefinePool,
    Event,
    EventKind,
    FileJournal,
    Free,
    Head,
    Hold,
    InvalidValue,
    JournalCorrupt,
    JournalFull,
    JournalLocked,
    JournalTooNew,
    JournalUnreadable,
    Lease,
    PoolSpec,
    PortfsmError,
    PortOutOfRange,
    PortState,
    Release,
    ReleaseOwner,
    Sweep,
    Unblock,
    UnknownPool,
    Withdraw,
    open_manager,
    read_journal,
    replay,
)
from portfsm.testing import ManualClock, SimulatedDisk

HTTP = PoolSpec("http", ports="30000-30003", hold_s=10.0)
NAN, INF = math.nan, math.inf

CONTROLS = [
    *("\x00", "\x07", "\t", "\n", "\r", "\x1b[2J", "\x1f", "\x7f"),  # C0 and DEL
    *("\x80", "\x85", "\x9b", "\x9f"),  # C1: NEL and CSI among them
    *("\u2028", "\u2029"),  # lines that some terminals and JSON readers break
    *("\u202a", "\u202e", "\u2066", "\u2069", "\u200e", "\u200f", "\u061c"),  # text that shows in another order than it is
    *("\ud800", "\udfff"),  # half a character: no UTF-8 has it
]
NO_PORTS = [-1, 0, 65_536, 10**30, True, False, 30_000.0, NAN, "30000", b"30000", [30_000], object()]
NO_SECONDS = [-1, -1e-9, NAN, INF, -INF, 1e300, True, "10", b"1", [], object()]
NO_TEXTS = [5, 1.5, True, b"name", ["name"], {"a": 1}, object()]
TOO_LONG = ["x" * 257, "ä" * 129, "€" * 86, "🙂" * 65]


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def named(value: object) -> str:
    """The value as an id of a test."""
    return f"{type(value).__name__}-{str(value)[:12]!a}".replace("object at", "")[:28]


# ---------------------------------------------------------------------- calls on an open manager


@pytest.fixture
def anyio_backend():
    """One loop: what is bad is refused before any loop is asked."""
    return "asyncio"


TEXTS = {
    "allocate(owner)": lambda manager, lease, text: manager.allocate("http", owner=text),
    "allocate(node)": lambda manager, lease, text: manager.allocate("http", owner="r2", node=text),
    "allocate(service)": lambda manager, lease, text: manager.allocate("http", owner="r2", service=text),
    "adopt(owner)": lambda manager, lease, text: manager.adopt("http", 30_002, owner=text),
    "adopt(node)": lambda manager, lease, text: manager.adopt("http", 30_002, owner="r2", node=text),
    "adopt(service)": lambda manager, lease, text: manager.adopt("http", 30_002, owner="r2", service=text),
    "release_owner(owner)": lambda manager, lease, text: manager.release_owner(text),
    "release_owner(node)": lambda manager, lease, text: manager.release_owner("r1", node=text),
    "block(node)": lambda manager, lease, text: manager.block("http", 30_002, node=text, reason="r"),
    "unblock(node)": lambda manager, lease, text: manager.unblock("http", 30_003, node=text),
    "hold(node)": lambda manager, lease, text: manager.hold("http", 30_002, node=text, hold_s=60),
    "free(node)": lambda manager, lease, text: manager.free("http", 30_001, node=text, reason="r"),
    "port(node)": lambda manager, lease, text: manager.port("http", 30_000, node=text),
    "ports(node)": lambda manager, lease, text: manager.ports("http", node=text),
    "statistics(node)": lambda manager, lease, text: manager.statistics("http", node=text),
    "explain(node)": lambda manager, lease, text: manager.explain("http", 30_000, node=text),
    "find(owner)": lambda manager, lease, text: manager.find(text),
}
REASONS = {
    "block(reason)": lambda manager, lease, text: manager.block("http", 30_002, reason=text),
    "unblock(reason)": lambda manager, lease, text: manager.unblock("http", 30_003, reason=text),
    "hold(reason)": lambda manager, lease, text: manager.hold("http", 30_002, hold_s=60, reason=text),
    "free(reason)": lambda manager, lease, text: manager.free("http", 30_001, reason=text),
    "release(block)": lambda manager, lease, text: manager.release(lease, block=text),
}
MAY_BE_LEFT_OUT = {"release_owner(node)", "ports(node)", "statistics(node)", "release(block)"}
"""None is a value there."""
PORTS = {
    "allocate(port)": lambda manager, lease, port: manager.allocate("http", owner="r2", port=port),
    "adopt(port)": lambda manager, lease, port: manager.adopt("http", port, owner="r2"),
    "block(port)": lambda manager, lease, port: manager.block("http", port, reason="r"),
    "unblock(port)": lambda manager, lease, port: manager.unblock("http", port),
    "hold(port)": lambda manager, lease, port: manager.hold("http", port, hold_s=60),
    "free(port)": lambda manager, lease, port: manager.free("http", port, reason="r"),
    "port(port)": lambda manager, lease, port: manager.port("http", port),
    "explain(port)": lambda manager, lease, port: manager.explain("http", port),
}
SECONDS = {
    "allocate(wait_s)": lambda manager, lease, seconds: manager.allocate("http", owner="r2", wait_s=seconds),
    "hold(hold_s)": lambda manager, lease, seconds: manager.hold("http", 30_002, hold_s=seconds),
    "block(for_s)": lambda manager, lease, seconds: manager.block("http", 30_002, reason="r", for_s=seconds),
    "release(for_s)": lambda manager, lease, seconds: manager.release(lease, block="r", for_s=seconds),
}
POOLS = {
    "allocate(pool)": lambda manager, lease, pool: manager.allocate(pool, owner="r2"),
    "adopt(pool)": lambda manager, lease, pool: manager.adopt(pool, 30_002, owner="r2"),
    "block(pool)": lambda manager, lease, pool: manager.block(pool, 30_002, reason="r"),
    "unblock(pool)": lambda manager, lease, pool: manager.unblock(pool, 30_003),
    "hold(pool)": lambda manager, lease, pool: manager.hold(pool, 30_002, hold_s=60),
    "free(pool)": lambda manager, lease, pool: manager.free(pool, 30_001, reason="r"),
    "port(pool)": lambda manager, lease, pool: manager.port(pool, 30_000),
    "ports(pool)": lambda manager, lease, pool: manager.ports(pool),
    "statistics(pool)": lambda manager, lease, pool: manager.statistics(pool),
    "explain(pool)": lambda manager, lease, pool: manager.explain(pool, 30_000),
}
LEASES = {
    "release(lease)": lambda manager, lease, other: manager.release(other),
    "release(lease, block)": lambda manager, lease, other: manager.release(other, block="in use"),
    "withdraw(lease)": lambda manager, lease, other: manager.withdraw(other),
}


async def refused(path: Path, call, values, *, kind=InvalidValue) -> list[PortfsmError]:
    """Make `call` with each value; every one is refused, and the log and the state stay as they were.

    30000 is held by r1, 30001 quarantined, 30003 blocked: a call that went through would change something.
    """
    errors = []
    async with open_manager(path, pools=[HTTP], clock=ManualClock()) as manager:
        lease = await manager.allocate("http", owner="r1")
        await manager.release(await manager.allocate("http", owner="former"))
        await manager.block("http", 30_003, reason="broken")
        log, seq, digest = tree(path), manager.seq, manager.digest()
        for value in values:
            with pytest.raises(kind) as caught:
                answer = call(manager, lease, value)
                if hasattr(answer, "__await__"):
                    await answer
            errors.append(caught.value)
            assert (manager.seq, manager.digest()) == (seq, digest), value
            assert tree(path) == log, value
        assert (await manager.allocate("http", owner="r1")) == lease, "and the manager goes on"
    return errors


def check(errors, values, parameter) -> None:
    """Each error carries its parameter and the value, and says so in one printable line."""
    for error, value in zip(errors, values, strict=True):
        assert error.name == parameter
        assert error.value is value or error.value == value
        assert parameter in str(error)
        assert str(error).isprintable(), "the message itself goes to terminals and logs"
        assert len(str(error)) < 400


def parameter(call: str) -> str:
    return call.partition("(")[2].strip(")")


@pytest.mark.anyio
@pytest.mark.parametrize("call", TEXTS | REASONS)
async def test_a_name_with_a_control_character_gets_into_the_log(tmp_path, call):
    values = [text for char in CONTROLS for text in (char, f"a{char}", f"{char}b", f"ä{char}€")]
    errors = await refused(tmp_path, (TEXTS | REASONS)[call], values)
    check(errors, values, parameter(call))
    assert all("remove it" in str(error) for error in errors)


@pytest.mark.anyio
@pytest.mark.parametrize("call", TEXTS)
async def test_a_name_counted_in_characters_is_longer_than_its_column(tmp_path, call):
    """256 bytes of UTF-8, whatever the letters."""
    errors = await refused(tmp_path, TEXTS[call], TOO_LONG)
    check(errors, TOO_LONG, parameter(call))
    assert all("256" in str(error) and "shorter" in str(error) for error in errors)


@pytest.mark.anyio
@pytest.mark.parametrize("call", REASONS)
async def test_a_reason_without_end_fills_the_log(tmp_path, call):
    values = ["x" * 1025, "ä" * 513, "x" * 10_000_000]
    check(await refused(tmp_path, REASONS[call], values), values, parameter(call))


@pytest.mark.anyio
@pytest.mark.parametrize("call", TEXTS | REASONS)
async def test_a_name_of_another_type_is_written_as_something(tmp_path, call):
    values = NO_TEXTS if call in MAY_BE_LEFT_OUT else [None, *NO_TEXTS]
    check(await refused(tmp_path, (TEXTS | REASONS)[call], values), values, parameter(call))


@pytest.mark.anyio
@pytest.mark.parametrize(
    "call", ["allocate(owner)", "adopt(owner)", "release_owner(owner)", "block(reason)", "free(reason)", "release(block)"]
)
async def test_nobody_holds_a_port_or_nothing_is_the_reason(tmp_path, call):
    errors = await refused(tmp_path, (TEXTS | REASONS)[call], [""])
    check(errors, [""], parameter(call))
    assert "must not be empty" in str(errors[0])


@pytest.mark.anyio
@pytest.mark.parametrize("call", PORTS)
async def test_a_port_that_is_none_is_looked_up_or_recorded(tmp_path, call):
    values = NO_PORTS if call == "allocate(port)" else [None, *NO_PORTS]
    errors = await refused(tmp_path, PORTS[call], values, kind=(InvalidValue, PortOutOfRange))
    for error, value in zip(errors, values, strict=True):
        assert f"{value!r}"[:20] in str(error)
        assert any(way in str(error) for way in ("1 to 65535", "30000-30003")), "the way out is a range"


@pytest.mark.anyio
@pytest.mark.parametrize("call", SECONDS)
async def test_a_time_that_never_comes_or_lies_in_the_past_is_recorded(tmp_path, call):
    errors = await refused(tmp_path, SECONDS[call], NO_SECONDS)
    for error, value in zip(errors, NO_SECONDS, strict=True):
        assert error.name == parameter(call)
        assert f"{value!r}"[:20] in str(error)
        assert "a number of seconds from 0" in str(error)


@pytest.mark.anyio
@pytest.mark.parametrize("call", POOLS)
async def test_a_pool_that_nobody_defined_comes_into_being(tmp_path, call):
    errors = await refused(tmp_path, POOLS[call], ["grpc", "HTTP", "http ", "", "../http"], kind=UnknownPool)
    assert all(error.known == ("http",) and "http" in str(error) for error in errors)


@pytest.mark.anyio
@pytest.mark.parametrize("call", POOLS)
async def test_a_pool_named_by_something_else_than_a_text_escapes_as_a_typeerror(tmp_path, call):
    await refused(tmp_path, POOLS[call], [*NO_TEXTS, *CONTROLS], kind=CommandRejected)


@pytest.mark.anyio
@pytest.mark.parametrize("call", LEASES)
async def test_something_else_than_a_lease_ends_one_or_escapes_as_an_attributeerror(tmp_path, call):
    values = [None, 30_000, "r1", b"r1", {"port": 30_000}, ("http", 30_000), object(), Lease]
    check(await refused(tmp_path, LEASES[call], values), values, "lease")


@pytest.mark.anyio
@pytest.mark.parametrize("call", LEASES)
@pytest.mark.parametrize(
    "change", [{"token": 10**9}, {"token": 0}, {"token": -1}, {"port": 1}, {"port": 65_535}, {"node": "elsewhere"}], ids=str
)
async def test_a_forged_lease_ends_somebody_elses(tmp_path, call, change):
    errors = await refused(tmp_path, lambda manager, lease, value: LEASES[call](manager, lease, attrs.evolve(lease, **value)), [change])
    assert errors[0].name == "lease"
    assert "another log" in str(errors[0])


@pytest.mark.anyio
async def test_a_state_spelt_as_text_escapes_as_a_keyerror(tmp_path):
    values = ["FREE", "free", 0, b"FREE", [PortState.FREE], object()]
    check(await refused(tmp_path, lambda manager, lease, state: manager.ports("http", state=state), values), values, "state")


@pytest.mark.anyio
async def test_a_watch_from_nowhere_reads_on_and_on(tmp_path):
    values = [-1, 10**9, 1.0, "1", b"1", True, NAN]
    check(await refused(tmp_path, lambda manager, lease, after: manager.watch(after=after), values), values, "after")


# ---------------------------------------------------------------------- opening


@pytest.fixture
def written(tmp_path) -> Path:
    """A log that holds something, and its bytes."""
    journal = FileJournal(tmp_path / "log")
    journal.open("the first controller")
    journal.append(_history())
    journal.close()
    return tmp_path / "log"


def _history() -> list[Event]:
    data = {"ports": "30000-30003", "hold_s": 10.0, "floor_s": 0.0, "order": "lowest"}
    opened = {"epoch": 1, "holder": "the first controller", "boot": "b", "boot_ns": 1, "wall_ns": 1}
    return [
        Event(1, 1, EventKind.OPENED, data=opened),
        Event(2, 2, EventKind.POOL_DEFINED, pool="http", data=data),
        Event(3, 3, EventKind.ALLOCATED, pool="http", port=30_000, owner="r1", token=3),
    ]


def segments(path: Path) -> dict[str, bytes]:
    """The log itself: all but the lock file, in which each opening that got as far leaves its epoch, and the reserve."""
    return {name: data for name, data in tree(path).items() if name not in {"LOCK", "reserve"}}


async def refused_to_open(path, **options) -> PortfsmError:
    with pytest.raises(PortfsmError) as caught:
        async with open_manager(path, **{"pools": [HTTP], "clock": ManualClock()} | options):
            pytest.fail("it was opened")
    return caught.value


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pools", None), ("pools", 5), ("pools", "http"), ("pools", HTTP), ("pools", [None]), ("pools", ["http"]), ("pools", [HTTP, {}]),
        ("pools", [HTTP, HTTP]),
        ("clock", 5), ("clock", "now"), ("clock", object()), ("clock", ManualClock),
        ("holder", ""), ("holder", 5), ("holder", "a\nb"), ("holder", "x" * 257), ("holder", b"me"),
        ("close_s", -1), ("close_s", NAN), ("close_s", INF), ("close_s", True), ("close_s", None), ("close_s", "30"),
        ("after_reboot", "never"), ("after_reboot", None), ("after_reboot", True),
    ],
    ids=named,
)  # fmt: skip
async def test_a_bad_option_changes_the_log_or_escapes_as_another_error(written, option, value):
    before = tree(written)
    error = await refused_to_open(written, **{option: value})
    assert isinstance(error, InvalidValue)
    assert error.name == option
    assert option in str(error) or option == "pools"
    assert str(error).isprintable()
    assert tree(written) == before


@pytest.mark.anyio
@pytest.mark.parametrize("path", [None, 5, b"log", "", "a\0b", "redis://u:secret@h/d?log=x", "ftp://u:secret@h/x", object(), []], ids=named)
async def test_a_log_at_no_place_is_made_somewhere(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    error = await refused_to_open(path)
    assert isinstance(error, InvalidValue)
    assert "directory" in str(error)
    assert "secret" not in str(error)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidValue):
        read_journal(path)


@pytest.mark.parametrize("path", [None, 5, b"log", "", "a\0b", object(), []], ids=named)
def test_a_journal_at_no_place_escapes_as_a_typeerror(path):
    with pytest.raises(InvalidValue, match="directory"):
        FileJournal(path)


@pytest.mark.parametrize("name", ["segment_bytes", "reserve_bytes"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "1", b"1", None, NAN, INF], ids=named)
def test_a_segment_of_no_size_escapes_as_a_typeerror(tmp_path, name, value):
    with pytest.raises(InvalidValue) as caught:
        FileJournal(tmp_path, **{name: value})
    assert caught.value.name == name
    assert "whole number" in str(caught.value)


@pytest.mark.parametrize("text", [None, 5, b"a:1:b", "", "a", "a:b", "a:b:c", ":1:c", "a:1:", "a:-1:c", "a:１:c"], ids=named)
def test_a_head_that_names_no_history(text):
    with pytest.raises(InvalidValue, match="LOGID:SEQ:HEX"):
        Head.parse(text)


@pytest.mark.parametrize("after", [-1, 1.0, True, "1", b"1", None, NAN], ids=named)
def test_a_reader_from_nowhere_reads_everything(written, after):
    with pytest.raises(InvalidValue) as caught:
        read_journal(written, after=after)
    assert caught.value.name == "after"


@pytest.mark.anyio
async def test_pools_that_share_a_port_are_put_in_force(written):
    before = segments(written)
    error = await refused_to_open(written, pools=[HTTP, PoolSpec("grpc", ports="29000-30000")])
    assert isinstance(error, InvalidValue)
    assert all(part in str(error) for part in ("'http'", "'grpc'", "30000", "one pool only"))
    error = await refused_to_open(written, pools=[PoolSpec("grpc", ports="30003-30010")])
    assert isinstance(error, InvalidValue), "and one that only the log knows counts too, while it holds a port"
    assert all(part in str(error) for part in ("'http'", "'grpc'", "30003"))
    assert segments(written) == before


@pytest.mark.anyio
@pytest.mark.parametrize(
    "found", ["format 2", "feature 'compressed'", "event kind 'teleported' version 1", "event kind 'allocated' version 2"]
)
async def test_a_log_from_a_newer_version_is_understood_wrongly(written, found):
    """Refused with what is unknown, by the manager and by readers alike; nothing is cut, mended or added."""
    (name,) = [name for name in segments(written) if name.endswith(".jsonl")]
    _newer(written / name, found)
    before = segments(written)
    error = await refused_to_open(written)
    assert isinstance(error, JournalTooNew)
    assert error.found == found
    assert "upgrade portfsm" in str(error)
    with pytest.raises(JournalTooNew, match="upgrade portfsm"):
        list(read_journal(written))
    assert segments(written) == before


def _newer(path: Path, found: str) -> None:
    """Rewrite a segment as a later version might have written it, with its checksums in order and no seal."""
    later = {
        "format 2": ("segment", {"fmt": 2}),
        "feature 'compressed'": ("segment", {"features": ["compressed"]}),
        "event kind 'teleported' version 1": ("allocated", {"kind": "teleported"}),
        "event kind 'allocated' version 2": ("allocated", {"v": 2}),
    }
    kind, change = later[found]
    records = [json.loads(line) for line in path.read_bytes().splitlines()][:-1]
    records = [record | (change if record["kind"] == kind else {}) for record in records]
    if kind != "segment":
        records[0]["schema"] = 2
    text = b""
    for record in records:
        del record["c"]
        body = json.dumps(record, separators=(",", ":")).encode()[:-1]
        text += body + b',"c":"%08x"}\n' % zlib.crc32(text + body)
    path.write_bytes(text)


@pytest.mark.anyio
async def test_a_file_in_the_place_of_the_log_is_overwritten(tmp_path):
    file = tmp_path / "log"
    file.write_text("my thesis")
    for path in (file, str(file), file / "below"):
        error = await refused_to_open(path)
        assert isinstance(error, JournalUnreadable)
        assert str(file) in str(error)
    assert "name another path" in str(await refused_to_open(file))
    assert file.read_text() == "my thesis"
    assert os.listdir(tmp_path) == ["log"]


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system has no /proc")
async def test_a_log_below_a_file_system_that_makes_no_directories_is_a_bare_oserror():
    """The kernel's own file system refuses root as well, where the mode of a directory would not."""
    error = await refused_to_open("/proc/self/ports-log")
    assert isinstance(error, JournalUnreadable)
    assert "/proc/self/ports-log" in str(error)


@pytest.mark.anyio
async def test_a_directory_without_permission_is_a_bare_oserror(written):
    if os.geteuid() == 0:
        pytest.skip("root may write through any mode: the simulated disk has this case")
    before = tree(written)
    written.chmod(0o500)
    error = await refused_to_open(written)
    written.chmod(0o700)
    assert isinstance(error, JournalUnreadable)
    assert str(written) in str(error)
    assert tree(written) == before


@pytest.mark.anyio
async def test_a_read_only_disk_is_a_bare_oserror_or_is_written():
    disk, clock = SimulatedDisk(), ManualClock()
    async with open_manager(FileJournal("/log", disk=disk), pools=[HTTP], clock=clock) as manager:
        lease = await manager.allocate("http", owner="r1")
    disk.read_only = True
    error = await refused_to_open(FileJournal("/log", disk=disk))
    assert isinstance(error, JournalUnreadable)
    assert "read-only" in str(error)
    disk.read_only = False
    async with open_manager(FileJournal("/log", disk=disk), pools=[HTTP], clock=clock) as manager:
        assert manager.find("r1") == (lease,)


@pytest.mark.anyio
async def test_a_full_disk_leaves_half_of_a_lease():
    """(What goes on in the reserve meanwhile: `tests/failures`.)"""
    disk, clock, leases = SimulatedDisk(capacity=100_000), ManualClock(), []
    async with open_manager(FileJournal("/log", disk=disk, reserve_bytes=60_000), pools=[HTTP], clock=clock) as manager:
        with pytest.raises(JournalFull) as caught:
            for number in range(10_000):
                leases.append(await manager.allocate("http", owner="r", node=f"n{number}"))  # noqa: PERF401
        assert "make room" in str(caught.value)
        acknowledged = tuple(sorted(leases, key=lambda lease: lease.node))
        assert manager.find("r") == acknowledged
    disk.capacity = 10_000_000
    async with open_manager(FileJournal("/log", disk=disk, reserve_bytes=1), pools=[HTTP], clock=clock) as manager:
        assert manager.find("r") == acknowledged


@pytest.mark.anyio
async def test_a_second_controller_gets_in(tmp_path):
    clock = ManualClock()
    async with open_manager(tmp_path, pools=[HTTP], clock=clock, holder="the first one") as manager:
        lease = await manager.allocate("http", owner="r1")
        before = tree(tmp_path)
        error = await refused_to_open(tmp_path, pools=[PoolSpec("http", ports="1-5")], holder="the second one")
        assert isinstance(error, JournalLocked)
        assert (error.pid, error.holder, error.path) == (os.getpid(), "the first one", str(tmp_path))
        assert "stop it first" in str(error)
        assert tree(tmp_path) == before
        await manager.release(lease)
    assert replay(read_journal(tmp_path)).port("http", lease.port).state is PortState.QUARANTINED


@pytest.mark.anyio
async def test_a_damaged_log_is_opened_cut_or_mended(written):
    (name,) = [name for name in segments(written) if name.endswith(".jsonl")]
    text = (written / name).read_bytes()
    (written / name).write_bytes(text.replace(b'"owner":"r1"', b'"owner":"r2"'))
    before = segments(written)
    error = await refused_to_open(written)
    assert isinstance(error, JournalCorrupt)
    assert error.segment == name
    assert error.offset is not None
    assert "portfsm repair" in str(error)
    assert segments(written) == before


# ---------------------------------------------------------------------- values made without a manager


@pytest.mark.parametrize("value", NO_PORTS, ids=named)
def test_a_pool_of_ports_that_are_none(value):
    for ports in ([value], [1, value]):
        with pytest.raises(InvalidValue) as caught:
            PoolSpec("http", ports=ports)
        assert caught.value.name == "ports"


@pytest.mark.parametrize("value", [None, *NO_SECONDS], ids=named)
@pytest.mark.parametrize("name", ["hold_s", "floor_s"])
def test_a_pool_whose_hold_is_no_length_of_time(name, value):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec("http", ports="1-5", **{name: value})
    assert caught.value.name == name
    assert f"{value!r}"[:20] in str(caught.value)


@pytest.mark.parametrize("name", ["", "x" * 65, "Http", "ht tp", "ht/tp", "höttp", "http\n", *CONTROLS, None, *NO_TEXTS], ids=named)
def test_a_pool_name_that_no_command_line_could_pass(name):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec(name, ports="1-5")
    assert "[a-z0-9._-]{1,64}" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ports", ["5-1", "1-5,5", "1-5,3-9", [range(1, 6), 5], [7, 7], "1-5,1-5"], ids=str)
def test_a_port_that_is_in_a_pool_twice(ports):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec("http", ports=ports)
    assert any(way in str(caught.value) for way in ("name each port once", "write the lower number first"))


@pytest.mark.parametrize(
    "make",
    [
        lambda pool: Allocate(pool, owner="a"),
        lambda pool: Adopt(pool, 1, owner="a"),
        lambda pool: Block(pool, 1, reason="r"),
        lambda pool: Unblock(pool, 1),
        lambda pool: Hold(pool, 1, hold_s=1),
        lambda pool: Free(pool, 1, reason="r"),
    ],
)
@pytest.mark.parametrize("pool", [None, *NO_TEXTS], ids=named)
def test_a_command_whose_pool_is_no_text(make, pool):
    with pytest.raises(InvalidValue) as caught:
        make(pool)
    assert caught.value.name == "pool"


@pytest.mark.parametrize("make", [Release, Withdraw, DefinePool])
@pytest.mark.parametrize("value", [None, *NO_TEXTS], ids=named)
def test_a_command_about_something_else(make, value):
    with pytest.raises(InvalidValue) as caught:
        make(value)
    assert caught.value.name in {"lease", "spec"}


@pytest.mark.parametrize("command", [Sweep(pool="q"), Sweep(pool=5), Sweep(pool=[]), Sweep(node=5), Sweep(node="a\n")], ids=str)
def test_a_sweep_of_a_pool_that_is_none(world, command):
    with pytest.raises(CommandRejected):
        world.decide(command)


def test_a_refusal_by_a_command_that_touches_the_ledger(world):
    world.allocate("holder")
    before = world.ledger.digest()
    for command in (Allocate("q", owner="a"), Adopt("q", 1, owner="a"), Block("q", 1, reason="r"), Free("p", 65_535, reason="r")):
        with pytest.raises(CommandRejected):
            world.decide(command)
    assert world.decide(ReleaseOwner("nobody")) == ()
    assert world.ledger.digest() == before
