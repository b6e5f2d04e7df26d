"""A machine that fails for real: system calls that return errors (strace), limits, full file systems, directories that vanish, clocks of a container.

Whatever happens, what was acknowledged is in the log, what is in the log was asked for, and the log opens again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from portfsm import read_journal
from tests.crash_driver import check, check_whole
from tests.machine.stepped import HOLD_S
from tests.unmeasured import UNMEASURED

ROOT = Path(__file__).parents[2]
DRIVER = [sys.executable, "-m", "tests.machine.driver"]
TYPED = {"OutcomeUnknown", "JournalFull", "JournalUnreadable", "Fenced", "ManagerClosed"}


def run(*command, before=()):
    """Let a controller work; the lines it said, and how it ended."""
    words = [*before, *DRIVER, *map(str, command)]
    process = subprocess.run(words, cwd=ROOT, env=UNMEASURED, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in process.stderr, process.stderr[-3000:]
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")], process.returncode


def events_in(log):
    return list(read_journal(log)) if any(log.glob("*.jsonl")) else []


def judge(log, lines, since=0):
    """What a log must keep, whatever the machine did; and it goes on."""
    events = events_in(log)
    check(events, since, lines)
    check_whole(events)
    more, code = run(log)
    assert code == 0, more[-1]
    again = events_in(log)
    assert again[: len(events)] == events
    check(again, len(events), more)
    check_whole(again)


# ---------------------------------------------------------------------- system calls that fail

STRACE = shutil.which("strace")
FAULTS = [
    *(f"fdatasync:error=EIO:when={n}" for n in (1, 2, 5, 9)),
    *(f"fsync:error=EIO:when={n}" for n in (1, 2, 3, 4)),
    *(f"pwrite64:error={error}:when={n}" for error in ("EIO", "ENOSPC", "EDQUOT", "EINTR") for n in (1, 3, 6)),
    *(f"rename,renameat,renameat2:error=EIO:when={n}" for n in (1, 2)),
    "fallocate:error=ENOSPC:when=1",
    "fdatasync:error=EIO:when=3+",
    "pwrite64:error=ENOSPC:when=5+",
    *(f"{name}:signal=KILL:when={n}" for name in ("fdatasync", "pwrite64") for n in (1, 2, 4, 8)),
    *(f"rename,renameat,renameat2:signal=KILL:when={n}" for n in (1, 2)),
    *(f"fsync:signal=KILL:when={n}" for n in (1, 2, 3)),
]


@pytest.mark.skipif(STRACE is None, reason="no strace on this machine: its package is named strace")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_system_call_that_fails_loses_or_invents_something(tmp_path, fault):
    """The log was left open by a controller that died: there is a segment to mend, to seal and to follow."""
    log, trace = tmp_path / "log", tmp_path / "trace"
    if "fallocate" not in fault:  # which only a log that is new needs
        run(log, "--calls", "2", "--die")
    since = len(events_in(log))
    quick = () if "KILL" in fault else ("--seccomp-bpf",)  # with it strace forgets signals but the first
    names = fault.partition(":")[0]
    lines, code = run(log, before=[STRACE, "-f", *quick, "-qq", "-o", trace, "-e", f"trace={names}", "-e", f"inject={fault}"])
    text = trace.read_text()
    assert "INJECTED" in text or "killed by SIGKILL" in text, f"nothing failed, so nothing was tried: {text[-500:]}"
    if code == 3:
        assert lines[-1]["error"] in TYPED, lines[-1]
    judge(log, lines, since)


# ---------------------------------------------------------------------- limits and full file systems


@pytest.mark.parametrize("limit", [600, 1500, 4000])
def test_a_limit_on_the_size_of_files_kills_the_controller_or_its_log(tmp_path, limit):
    """RLIMIT_FSIZE: a write beyond it is an error (EFBIG) and not a signal, and a lease that was not written was not given."""
    log = tmp_path / "log"
    lines, code = run(log, "--fsize", limit, "--calls", "60")
    assert code in (0, 3), lines[-1]
    assert code == 0 or lines[-1]["error"] in TYPED
    assert any(line["line"] in ("failed", "full") for line in lines), "the limit was never met"
    judge(log, lines)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for little more than the reserve."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "none", place], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no right to mount a small file system here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_keeps_leases_from_ending(small_disk):
    """No lease begins once the disk is full, each that is there ends on the reserve, and with room again it goes on."""
    log = small_disk / "log"
    run(log, "--calls", "2")
    since = len(events_in(log))
    (small_disk / "ballast").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 8192))
    lines, code = run(log, "--calls", "200")
    assert code == 0, lines[-1]
    full = [line for line in lines if line["line"] == "full"]
    assert full, "the disk never was full"
    assert full[0]["held"] > 0
    assert [line["call"] for line in lines if line["line"] == "ack"][-full[0]["held"] :] == ["release"] * full[0]["held"]
    (small_disk / "ballast").unlink()
    judge(log, lines, since)


def test_a_device_is_taken_for_a_log():
    for place in ("/dev/full", "/dev/null"):
        lines, code = run(place)
        assert (code, lines[-1]["error"]) == (3, "JournalUnreadable")
        assert place in lines[-1]["text"]


# ---------------------------------------------------------------------- a directory that goes


@pytest.mark.parametrize("how", ["removed", "replaced", "renamed"])
def test_a_log_that_is_gone_is_written_on_to(tmp_path, how):
    """Somebody cleans up under a controller that is at work: it is told, and does not go on in files that nobody will find."""
    log = tmp_path / "log"
    with subprocess.Popen([*DRIVER, log, "--calls", "100000"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(20)]
        if how == "renamed":
            log.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(log)
        if how == "replaced":
            log.mkdir()
        said = [json.loads(line) for line in (*lines, *process.stdout) if line.startswith("{")]
    assert process.returncode == 3
    assert said[-1]["error"] in TYPED
    assert str(log) in said[-1]["text"]
    if how == "renamed":
        judge(tmp_path / "elsewhere", said)


# ---------------------------------------------------------------------- another boot clock


def in_namespace(offset_s):
    """The boot clock of a container that is so much ahead."""
    return ["unshare", "--time", f"--boottime={offset_s}", f"--monotonic={offset_s}", "--fork"]


@pytest.fixture
def can_unshare():
    made = subprocess.run([*in_namespace(10), "true"], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no right to a time namespace here: {made.stderr.strip()}")


def test_a_container_whose_boot_clock_differs_shortens_a_hold_or_turns_time_back(tmp_path, can_unshare):
    """The same boot id, another boot clock: ahead by a day, then back. Log time never goes back, and no hold ends before its time."""
    log = tmp_path / "log"
    known = 0
    for before in ((), in_namespace(86_400), (), in_namespace(3_600), in_namespace(86_400)):
        lines, code = run(log, before=before)
        assert code == 0, lines[-1]
        events = events_in(log)
        check(events, known, lines)
        assert all(earlier.ts <= later.ts for earlier, later in pairwise(events))
        known = len(events)
    boots = {event.data["boot"] for event in events if event.kind == "opened"}
    assert len(boots) > 1, "the clock was never taken for another"
    assert all(re.fullmatch(r"[0-9a-f-]{36}(~\d+)?", boot) for boot in boots)


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def stepped(log, offsets_file, *offsets):
    """What a controller tells whose wall clock is set by these offsets, one after the other."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offsets_file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [sys.executable, "-m", "tests.machine.stepped", str(log), str(offsets_file), *offsets]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=100)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(FAKETIME is None, reason="no libfaketime on this machine: its package is named libfaketime")
def test_a_wall_clock_that_is_set_ends_a_hold_early_or_never(tmp_path):
    """A day ahead, two back, while a controller runs and between two: each hold lasts as long as it should by the clock that nobody sets."""
    offsets_file = tmp_path / "offset"
    offsets_file.write_text("+0")
    _, *first, left = stepped(tmp_path / "log", offsets_file, "+1d", "-1d", "+0")
    offsets_file.write_text("+30d")
    inherited, *second, _ = stepped(tmp_path / "log", offsets_file, "-30d")
    assert [round(line["jumped_s"] / 86_400) for line in first + second] == [1, -2, 1, -60]
    held = [*(line["held_s"] for line in first + second), inherited["granted_s"] - left["released_s"]]
    assert all(HOLD_S <= each < 3600 for each in held), held
    assert all(earlier.ts <= later.ts for earlier, later in pairwise(events_in(tmp_path / "log")))
