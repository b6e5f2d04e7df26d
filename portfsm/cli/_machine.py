"""What `portfsm doctor` looks at on a machine: its port ranges, who is on the ports, the disk under the log, the clock.

Rule: each looks at one thing and says what it found, why that matters and what to do. Where procfs is mounted, which clock and
which log are arguments. Nothing is changed.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from portfsm._occupants import occupants
from portfsm.cli._times import duration
from portfsm.clocks import Timeline
from portfsm.journals._disk import mount_of
from portfsm.specs import normalise_ports, ranges_text
from portfsm.states import PortState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from portfsm._ledger import Ledger
    from portfsm._occupants import Occupant
    from portfsm.protocols import Clock

__all__ = ["Examined", "Finding", "examine_clock", "examine_disk", "examine_listeners", "examine_ranges", "kernel_time_is_set"]

FAST_NS = 20_000
"""No disk syncs faster: even one with a battery takes about 30 µs."""
SLOW_NS = 50_000_000
LITTLE_ROOM_BYTES = 64 << 20
APART_NS = 1_000_000_000
"""Wall clock and log time differ by less after an ordinary start."""

_ROUNDS = 16
_LINE_BYTES = 256
_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_NO_BARRIER = frozenset({"nobarrier", "barrier=0"})
_CAP_NET_BIND_SERVICE = 10
_TIME_ERROR = 5
_NAMED = 3


@attrs.frozen
class Finding:
    """One thing that stands in the way."""

    what: str
    why: str
    do: str


@attrs.frozen(kw_only=True)
class Examined:
    """One thing that was looked at."""

    about: str
    """`ranges`, `listeners`, `disk`, `clock`."""
    where: str
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """Nothing to do about, and worth knowing."""
    unchecked: tuple[str, ...] = ()
    figures: Mapping[str, Any] = {}
    """What was measured, for programs."""


# ---------------------------------------------------------------------- the ranges


def examine_ranges(ports: tuple[range, ...], *, proc: Path) -> Examined:
    """Whether the system gives the pool's ports to outgoing connections, and whether they may be bound at all."""
    net = proc / "sys" / "net" / "ipv4"
    findings, notes, unchecked = [], [], []
    numbers = {port for piece in ports for port in piece}
    try:
        first, last = map(int, (net / "ip_local_port_range").read_text().split())
        text = (net / "ip_local_reserved_ports").read_text().strip()
        reserved = {port for piece in normalise_ports(text) for port in piece} if text else set()
    except (OSError, ValueError):
        unchecked.append(f"{net}/ip_local_port_range and ip_local_reserved_ports cannot be read")
    else:
        taken = {port for port in numbers if first <= port <= last}
        if taken - reserved:
            findings.append(_ephemeral(taken - reserved, reserved, f"{first}-{last}"))
        if taken & reserved:
            notes.append(f"{_text(taken & reserved)} are reserved (ip_local_reserved_ports): no outgoing connection takes them")
    with suppress(OSError, ValueError, IndexError):
        findings += _privileged(numbers, net, proc)
    return Examined(about="ranges", where=ranges_text(ports), findings=(*findings,), notes=(*notes,), unchecked=(*unchecked,))


def _ephemeral(taken: set[int], reserved: set[int], system: str) -> Finding:
    return Finding(
        f"{_text(taken)} lie in ip_local_port_range ({system})",
        "the system gives them to outgoing connections: while one lasts, and for a minute after, no replica can bind there",
        f"sysctl -w net.ipv4.ip_local_reserved_ports={_text(taken | reserved)}    # as root; or a pool outside {system}, or portfsm.Holder",
    )


def _privileged(numbers: set[int], net: Path, proc: Path) -> list[Finding]:
    start = int((net / "ip_unprivileged_port_start").read_text())
    held = (proc / "self" / "status").read_text().partition("CapEff:")[2].split()[0]
    low = {port for port in numbers if port < start}
    if not low or int(held, 16) >> _CAP_NET_BIND_SERVICE & 1:
        return []
    why = "who runs this may not bind them, and a replica of the same user gets `Permission denied`"
    do = f"take ports from {start} on, or give replicas the capability CAP_NET_BIND_SERVICE"
    return [Finding(f"{_text(low)} lie below ip_unprivileged_port_start ({start})", why, do)]


def _text(numbers: Iterable[int]) -> str:
    return ranges_text(normalise_ports(sorted(numbers)))


# ---------------------------------------------------------------------- who is on the ports


def examine_listeners(ports: tuple[range, ...], *, proc: Path, ledger: Ledger | None = None, log: str = "") -> Examined:
    """Who has a socket on a port that, as far as the log knows, is nobody's."""
    where = ranges_text(ports)
    if not (proc / "net" / "tcp").exists():
        return Examined(about="listeners", where=where, unchecked=(f"{proc}/net/tcp is not there: who listens is not known",))
    states = {} if ledger is None else _states(ledger)
    strange: dict[int, list[Occupant]] = {}
    for each in occupants({port for piece in ports for port in piece}, kinds=("tcp", "udp"), proc=proc):
        if each.doing == "listens" and not states.get(each.port, set()) & {PortState.ALLOCATED, PortState.BLOCKED}:
            strange.setdefault(each.port, []).append(each)
        elif each.doing == "connected" and not states.get(each.port) and each.port not in strange:
            strange.setdefault(each.port, []).append(each)  # without a listener, so it is an outgoing one
    findings = tuple(_sits(port, found, states.get(port, set()), log) for port, found in sorted(strange.items()))
    return Examined(about="listeners", where=where, findings=findings)


def _states(ledger: Ledger) -> dict[int, set[PortState]]:
    """The states of each number that is not FREE, over all nodes: which of them this machine is, nobody says."""
    states: dict[int, set[PortState]] = {}
    for view in ledger.ports():
        states.setdefault(view.port, set()).add(view.state)
    return states


def _sits(port: int, found: list[Occupant], states: set[PortState], log: str) -> Finding:
    state = f"is {'QUARANTINED' if states else 'FREE'} in the log and in use" if log else "is in use"
    why = "; ".join(str(each) for each in found[:_NAMED])
    block = f"portfsm block {shlex.quote(log)} {port} --reason ..." if log else f'manager.block(POOL, {port}, reason="...")'
    if found[0].doing == "connected":
        return Finding(f"port {port} {state}", why, f"{block}    # until it has ended; see that the system takes no more (ranges)")
    return Finding(f"port {port} {state}", why, f"{block}    # or stop it; if it is a replica of yours: manager.adopt")


# ---------------------------------------------------------------------- the disk


def measure_sync(directory: str) -> list[int]:
    """How long each of a few syncs of a line takes there, ns. On a file without a name, which is gone afterwards."""
    took = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(_ROUNDS):
            file.write(bytes(_LINE_BYTES))
            began = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter_ns() - began)
    return took


def examine_disk(
    path: str, *, proc: Path, measure: Callable[[str], list[int]] = measure_sync, room_bytes: int = LITTLE_ROOM_BYTES
) -> Examined:
    """Whether what is synced there outlives a crash, and how long that takes."""
    place = Path(path).resolve()
    place = next(each for each in (place, *place.parents) if each.is_dir())  # a log that is yet to be made
    findings, notes, unchecked, figures = [], [], [], dict[str, Any]()
    try:
        with (proc / "self" / "mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
            mount = mount_of(table, str(place))
    except (OSError, IndexError):
        unchecked.append(f"the file system: {proc}/self/mountinfo cannot be read")
    else:
        figures["file_system"] = mount.kind
        findings += _file_system(mount.kind, mount.options, network=mount.is_network)
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    figures["free_bytes"] = free
    if free < room_bytes:
        findings.append(Finding(f"room for {free >> 20} MiB", "a full disk stops allocations; releases go on for a while", "make room"))
    try:
        took = measure(str(place))
    except OSError as error:
        unchecked.append(f"how long a sync takes: cannot write to {place}: {error.strerror}")
    else:
        figures["sync_ns"] = round(statistics.median(took))
        notes.append(f"a sync takes {_precise(figures['sync_ns'])} (median of {len(took)}, the slowest {_precise(max(took))})")
        if not any(finding.what.startswith("the log lies in memory") for finding in findings):
            findings += _durability(figures["sync_ns"])
    return Examined(about="disk", where=path, findings=(*findings,), notes=(*notes,), unchecked=(*unchecked,), figures=figures)


def _file_system(kind: str, options: frozenset[str], *, network: bool) -> list[Finding]:
    if network:
        why = "locks and syncs mean what the server makes of them, so two controllers could write at once: the log does not open there"
        return [Finding(f"the log lies on a network file system ({kind})", why, "move it to a disk of this machine")]
    if kind in _MEMORY:
        why = "a reboot takes it away, and with it every hold and every block; a crash of the controller alone does not"
        return [Finding(f"the log lies in memory ({kind})", why, "move it to a disk")]
    if options & _NO_BARRIER:
        why = "a sync returns before the disk has the bytes: a power cut loses leases that were acknowledged"
        return [Finding(f"mounted with {', '.join(sorted(options & _NO_BARRIER))}", why, "mount -o remount,barrier=1 ...")]
    return []


def _durability(median_ns: int) -> list[Finding]:
    if median_ns < FAST_NS:
        why = "no disk is that fast, so syncs stop short of it: eatmydata, a virtual machine's unsafe cache, a battery that nobody watches"
        return [Finding(f"a sync takes only {_precise(median_ns)}", why, "make syncs reach the disk, or move the log to one where they do")]
    if median_ns > SLOW_NS:
        why = "every call that changes something waits for one; callers share it, so the rate holds, but each of them waits"
        return [Finding(f"a sync takes {_precise(median_ns)}", why, "move the log to a faster disk, or away from what keeps this one busy")]
    return []


def _precise(ns: int) -> str:
    return f"{ns / 1e3:.1f} µs" if ns < 1_000_000 else f"{ns / 1e6:.1f} ms"  # noqa: PLR2004


# ---------------------------------------------------------------------- the clock


def kernel_time_is_set() -> bool | None:
    """Whether the kernel says that somebody (NTP) keeps its clock right; None where it does not say."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # all zero: a question
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def examine_clock(clock: Clock, *, proc: Path, is_set: bool | None, ledger: Ledger | None = None) -> Examined:
    """Whether holds outlast a restart as they should, and whether times in the log are those of the wall."""
    findings, notes, unchecked = [], [], []
    boot = proc / "sys" / "kernel" / "random" / "boot_id"
    if not os.access(boot, os.R_OK):
        why = "the controller cannot tell its own restart from one of the machine: every hold starts over each time"
        findings.append(Finding(f"{boot} cannot be read", why, "let it see /proc"))
    if is_set is None:
        unchecked.append("whether NTP keeps the clock right: the kernel does not say")
    elif not is_set:
        how = "see timedatectl or chronyc tracking; holds are not affected, times in the log may be off"
        notes.append(f"the kernel says that nobody keeps the clock right: {how}")
    if ledger is not None and ledger.opened:
        apart = Timeline(clock, opened=ledger.opened, last_ts=ledger.ts).now() - clock.wall_ns()
        if abs(apart) > APART_NS:
            findings.append(_apart(apart))
    return Examined(about="clock", where="this machine", findings=(*findings,), notes=(*notes,), unchecked=(*unchecked,))


def _apart(apart_ns: int) -> Finding:
    direction = "behind" if apart_ns > 0 else "ahead of"
    what = f"the wall clock is {duration(abs(apart_ns))} {direction} the log's time"
    why = "it was set since this boot, or is wrong; no hold got shorter or longer by it, but times in the log are not those of other logs"
    return Finding(what, why, "see that NTP runs (timedatectl); the log takes the wall clock's time at the next boot, and never goes back")
