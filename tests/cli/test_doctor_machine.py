"""`portfsm doctor [--ports R] [LOG]`: this machine with real sockets, and machines as their `/proc` was written down."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import anyio
import pytest

from portfsm import PoolSpec, open_manager, replay
from portfsm.cli._machine import FAST_NS, SLOW_NS, examine_clock, examine_disk, examine_ranges, kernel_time_is_set, measure_sync
from portfsm.cli._main import run
from portfsm.journals import read_journal
from portfsm.specs import normalise_ports
from portfsm.testing import ManualClock
from tests.strangers import free_range, named, outgoing, stranger

FINE = {
    "sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "sys/net/ipv4/ip_local_reserved_ports": "\n",
    "sys/net/ipv4/ip_unprivileged_port_start": "1024\n",
    "sys/kernel/random/boot_id": "d5cbd2a1-6d6e-4c36-8d54-96c1a1f33b2c\n",
    "self/status": "Name:\tpython3\nCapEff:\t0000000000000000\nSeccomp:\t0\n",
    "self/mountinfo": "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro\n",
    "net/tcp": "  sl  local_address rem_address   st\n",
}


@pytest.fixture
def machine(tmp_path):
    """Write down a `/proc`: that of a machine on which all is fine, and what a test says instead; None takes a file away."""

    def write(**other: str | None) -> Path:
        names = {name.rpartition("/")[2]: name for name in FINE}
        for name, text in (FINE | {names[name]: text for name, text in other.items()}).items():
            file = tmp_path / "proc" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_text(text)
        return tmp_path / "proc"

    return write


@pytest.fixture
def call(capsys):
    """Exit code and lines of one command line, as JSON; or with `text=True`, its text."""

    def call(*arguments: object, text: bool = False, clock: ManualClock | None = None):
        code = run(("doctor", *map(str, arguments), *([] if text else ["--json"])), clock=clock)
        out, err = capsys.readouterr()
        assert not err or code == 2
        return code, (out or err) if text or err else [json.loads(line) for line in out.splitlines()]

    return call


def findings(lines, about=None) -> list[dict[str, str]]:
    return [line for line in lines if line["kind"] == "finding" and about in (None, line["about"])]


def fill(path: Path, ports: range, *, clock: ManualClock | None = None) -> None:
    """A log of these ports: the first ALLOCATED, the second BLOCKED, the third QUARANTINED, the rest FREE."""

    async def write() -> None:
        async with open_manager(path, pools=[PoolSpec("http", ports=ports, hold_s=60)], clock=clock) as manager:
            await manager.allocate("http", owner="r1")
            await manager.block("http", ports[1], reason="broken")
            await manager.hold("http", ports[2], hold_s=60)

    anyio.run(write)


# ---------------------------------------------------------------------- the whole


def test_a_machine_on_which_all_is_fine_and_something_is_found(call, machine):
    code, lines = call("--ports", "20000-20099", "--proc", machine())
    assert code == 0
    assert findings(lines) == []
    results = [line for line in lines if line["kind"] == "result"]
    assert [(line["about"], line["ready"], line["findings"]) for line in results] == [
        (about, True, 0) for about in ("ranges", "listeners", "clock")
    ]
    assert "nothing stands in the way" in call("--ports", "20000-20099", "--proc", machine(), text=True)[1]


def test_a_finding_that_ends_in_success_or_without_advice(call, machine):
    arguments = ("--ports", "40000-40099", "--proc", machine())
    code, lines = call(*arguments)
    assert code == 1
    assert [line["about"] for line in findings(lines)] == ["ranges"]
    code, text = call(*arguments, text=True)
    assert code == 1
    for part in ("40000-40099 lie in ip_local_port_range", "do:", "sysctl -w net.ipv4.ip_local_reserved_ports=40000-40099", ": 1 finding."):
        assert part in text


@pytest.mark.parametrize("arguments", [("--ports", "5-1"), ("--ports", "junk"), ("--ports", ""), ("--nonsense",), ()])
def test_a_slip_of_the_pen_that_passes_for_a_finding(call, arguments):
    code, said = call(*arguments)
    assert code == 2
    assert said.startswith("portfsm: ")


def test_a_log_that_is_none(call, tmp_path):
    (tmp_path / "file").write_text("x")
    code, said = call(tmp_path / "file")
    assert code == 2
    assert "a log is a directory" in said


def test_a_log_that_is_yet_to_be_made(call, tmp_path, machine):
    """Before the first start is when one wants to know."""
    _, lines = call("--ports", "20000", "--proc", machine(), tmp_path / "not" / "yet")
    assert [line["about"] for line in lines if line["kind"] == "result"] == ["ranges", "listeners", "disk", "clock"]
    assert not (tmp_path / "not").exists()


# ---------------------------------------------------------------------- the ranges


@pytest.mark.parametrize(
    ("ports", "reserved", "found", "advice", "noted"),
    [
        ("20000-32767", "", "", "", ""),
        ("61000-65535", "", "", "", ""),
        ("32760-32770", "", "32768-32770 lie in", "=32768-32770 ", ""),
        ("60990-61010", "", "60990-60999 lie in", "=60990-60999 ", ""),
        ("40000-40009", "40000-40009", "", "", "40000-40009 are reserved"),
        # sysctl replaces the list: what is in it stays in
        ("40000-40009", "8080,40000-40004,40006", "40005,40007-40009 lie in", "=8080,40000-40009 ", "40000-40004,40006 are reserved"),
        ("20000-20009", "20000-20009", "", "", ""),
    ],
)
def test_an_outgoing_connection_takes_a_port_and_nobody_said_so(machine, ports, reserved, found, advice, noted):
    """Ray's default range for gRPC lies where Linux takes outgoing ports from; so did Nomad's (hashicorp/nomad#1728, #2500)."""
    looked = examine_ranges(normalise_ports(ports), proc=machine(ip_local_reserved_ports=f"{reserved}\n"))
    assert [finding.what.startswith(found) for finding in looked.findings] == ([True] if found else [])
    assert [advice in finding.do for finding in looked.findings] == ([True] if found else [])
    assert [note.startswith(noted) for note in looked.notes] == ([True] if noted else [])


@pytest.mark.parametrize(("capabilities", "start", "found"), [("0", 1024, True), ("0", 0, False), ("0", 80, True), ("400", 1024, False)])
def test_a_right_that_is_missing_only_when_a_replica_starts(machine, capabilities, start, found):
    proc = machine(ip_unprivileged_port_start=f"{start}\n", status=f"CapEff:\t{capabilities:0>16}\n")
    looked = examine_ranges(normalise_ports("79,8080"), proc=proc)
    assert [finding.what for finding in looked.findings] == [f"79 lie below ip_unprivileged_port_start ({start})"] * found


def test_what_cannot_be_read_passes_for_fine(call, machine, tmp_path):
    proc = machine(ip_local_port_range=None, tcp=None, boot_id=None, mountinfo=None)
    _, lines = call("--ports", "40000", "--proc", proc, tmp_path)
    unchecked = {line["about"]: line["what"] for line in lines if line["kind"] == "unchecked"}
    assert {"ranges", "listeners", "disk"} <= unchecked.keys()
    assert "ip_local_port_range and ip_local_reserved_ports cannot be read" in unchecked["ranges"]
    assert [line["what"] for line in findings(lines, "clock")] == [f"{proc}/sys/kernel/random/boot_id cannot be read"]


# ---------------------------------------------------------------------- who is on the ports


def test_a_stranger_on_a_port_who_is_not_named(call):
    ports = free_range(3)
    with stranger(ports[0]) as one, stranger(ports[2], "::", kind="udp") as two:
        code, lines = call("--ports", f"{ports[0]}-{ports[-1]}")
        found = findings(lines, "listeners")
        assert code == 1
        assert [(line["what"], line["why"]) for line in found] == [
            (f"port {ports[0]} is in use", f"{named(one)} listens on 127.0.0.1:{ports[0]}"),
            (f"port {ports[2]} is in use", f"{named(two)} has [::]:{ports[2]}/udp"),
        ]


def test_a_replica_on_its_own_port_is_a_finding(call, tmp_path):
    """What the log calls ALLOCATED is listened on as it should be; a block is known. A hold that nobody kept, and a free port, are not."""
    ports = free_range(4)
    fill(tmp_path / "log", ports)
    with stranger(ports[0]), stranger(ports[1]), stranger(ports[2]), stranger(ports[3]) as last:
        code, lines = call(tmp_path / "log")
        assert code == 1
        assert [line["what"] for line in findings(lines, "listeners")] == [
            f"port {ports[2]} is QUARANTINED in the log and in use",
            f"port {ports[3]} is FREE in the log and in use",
        ]
        assert findings(lines, "listeners")[1]["why"] == f"{named(last)} listens on 127.0.0.1:{ports[3]}"
        assert f"portfsm block {tmp_path / 'log'} {ports[3]} --reason" in findings(lines, "listeners")[1]["do"]


def test_an_outgoing_connection_on_a_free_port_goes_unseen(call, tmp_path):
    ports = free_range(4)
    fill(tmp_path / "log", ports)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = server.getsockname()
        with outgoing(ports[3], there), outgoing(ports[2], there):  # of these the second drains: it is QUARANTINED
            found = findings(call(tmp_path / "log")[1], "listeners")
    assert [line["what"] for line in found] == [f"port {ports[3]} is FREE in the log and in use"]
    assert f"(pid {os.getpid()}) has a connection from 127.0.0.1:{ports[3]}" in found[0]["why"]


def test_ports_that_were_asked_for_are_ignored_for_those_of_the_log(call, tmp_path):
    ports = free_range(4)
    fill(tmp_path / "log", ports)
    with stranger(ports[3]):
        assert findings(call(tmp_path / "log", "--ports", ports[2])[1], "listeners") == []


# ---------------------------------------------------------------------- the disk


def disk(machine, path, *, took=(1_000_000,), **other):
    return examine_disk(str(path), proc=machine(**other), measure=lambda _: list(took))


@pytest.mark.parametrize(
    ("mount", "found"),
    [
        ("- ext4 /dev/sda1 rw", ""),
        ("- xfs /dev/sda1 rw", ""),
        ("- nfs4 server:/x rw", "the log lies on a network file system (nfs4)"),
        ("shared:1 - fuse.sshfs host: rw", "the log lies on a network file system (fuse.sshfs)"),
        ("- tmpfs tmpfs rw", "the log lies in memory (tmpfs)"),
        ("- ext4 /dev/sda1 rw,nobarrier", "mounted with nobarrier"),
        ("- ext4 /dev/sda1 rw,barrier=0", "mounted with barrier=0"),
    ],
)
def test_a_disk_that_forgets(machine, tmp_path, mount, found):
    looked = disk(machine, tmp_path, mountinfo=f"22 1 8:1 / / rw {mount}\n")
    assert [finding.what for finding in looked.findings] == ([found] if found else [])
    assert looked.figures["file_system"] == mount.partition("- ")[2].split()[0]


@pytest.mark.parametrize(
    ("took", "found"),
    [
        ([FAST_NS] * 3, ""),
        ([FAST_NS - 1] * 3, "a sync takes only 20.0 µs"),
        ([SLOW_NS] * 3, ""),
        ([SLOW_NS + 1] * 3, "a sync takes 50.0 ms"),
        ([100, 1_000_000, SLOW_NS * 9], ""),  # one that is slow or fast says nothing
    ],
)
def test_a_sync_that_never_reaches_a_disk(machine, tmp_path, took, found):
    looked = disk(machine, tmp_path, took=took)
    assert [finding.what for finding in looked.findings] == ([found] if found else [])
    assert looked.figures["sync_ns"] == sorted(took)[1]
    assert looked.notes[0].startswith("a sync takes ")


def test_a_figure_that_nobody_measured(tmp_path):
    before = os.listdir(tmp_path)
    took = measure_sync(str(tmp_path))
    assert len(took) == 16
    assert all(each > 0 for each in took)
    assert os.listdir(tmp_path) == before


def test_memory_that_passes_for_a_disk():
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no memory is mounted here")
    looked = examine_disk("/dev/shm/portfsm-log", proc=Path("/proc"))
    assert [finding.what for finding in looked.findings] == ["the log lies in memory (tmpfs)"]


def test_a_directory_that_cannot_be_written_to(machine, tmp_path):
    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    looked = examine_disk(str(tmp_path), proc=machine(), measure=refused)
    assert looked.unchecked == (f"how long a sync takes: cannot write to {tmp_path}: Permission denied",)
    assert looked.findings == ()


@pytest.mark.parametrize(("room_bytes", "found"), [(0, False), (1 << 62, True)])
def test_a_disk_that_is_full_tomorrow(machine, tmp_path, room_bytes, found):
    looked = examine_disk(str(tmp_path), proc=machine(), measure=lambda _: [1_000_000], room_bytes=room_bytes)
    assert [finding.do for finding in looked.findings] == ["make room"] * found
    assert looked.figures["free_bytes"] > 0


# ---------------------------------------------------------------------- the clock


@pytest.mark.parametrize(
    ("step_s", "found"),
    [
        (0, ""),
        (0.5, ""),
        (-0.5, ""),
        (90, "the wall clock is 1 min 30 s ahead of the log's time"),
        (-90, "the wall clock is 1 min 30 s behind the log's time"),
    ],
)
def test_a_wall_clock_that_was_set_and_nobody_knows(machine, tmp_path, step_s, found):
    clock = ManualClock()
    fill(tmp_path / "log", free_range(4), clock=clock)
    clock.advance(3_600)
    clock.step_wall(step_s)
    looked = examine_clock(clock, proc=machine(), is_set=True, ledger=replay(read_journal(tmp_path / "log")))
    assert [finding.what for finding in looked.findings] == ([found] if found else [])


def test_a_clock_that_nobody_keeps_right_goes_unmentioned(machine):
    told = {is_set: examine_clock(ManualClock(), proc=machine(), is_set=is_set) for is_set in (True, False, None)}
    assert (told[True].notes, told[True].unchecked) == ((), ())
    assert "nobody keeps the clock right" in told[False].notes[0]
    assert "NTP" in told[None].unchecked[0]
    assert not any(looked.findings for looked in told.values())


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_question_to_the_kernel_that_ends_the_doctor():
    assert kernel_time_is_set() in {True, False, None}
