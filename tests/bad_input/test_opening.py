"""What no opening may take, of options, places and logs: a typed error that says what to do, and the log as it was."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest

from portfsm import (
    Event,
    EventKind,
    FileJournal,
    Head,
    InvalidValue,
    JournalCorrupt,
    JournalFull,
    JournalLocked,
    JournalTooNew,
    JournalUnreadable,
    PoolSpec,
    PortfsmError,
    PortState,
    open_manager,
    read_journal,
    replay,
)
from portfsm.testing import ManualClock, SimulatedDisk
from tests.bad_input.junk import HTTP, INF, NAN, named, tree


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
