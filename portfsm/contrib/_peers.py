"""Who is at the other end of a Unix socket, and for which process it may ask.

Rules. The kernel says who connected (SO_PEERCRED), before anything is read; only the server's own user and root are heard. They may ask for
any process whose user is theirs. A process is its pid and its start time: the pid alone is given away again. A client in a pid namespace of
its own can name nobody but itself, as its numbers mean others here.
"""

from __future__ import annotations

import re
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from portfsm.witnesses._exits import read_stat
from portfsm.witnesses._serving import RefusedError

if TYPE_CHECKING:
    from portfsm.witnesses._exits import ProcessStat

__all__ = ["Peer", "Process", "asked_for", "peer_of"]

_UCRED = struct.Struct("iII")
_PROC = Path("/proc")
_INIT = 1
_OWNER = re.compile(r"pid:([0-9]{1,7}):([0-9]{1,19}):([0-9a-f]{8}):[0-9.]+")


@attrs.frozen
class Peer:
    """As the kernel had it when the client connected. `pid` is 0 for a process that cannot be seen from here."""

    pid: int
    uid: int


def peer_of(sock: socket.socket) -> Peer:
    """Who connected."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid)


@attrs.frozen
class Process:
    """One process of one boot of this machine, for ever."""

    pid: int
    started: int
    """In clock ticks after boot, as `/proc/PID/stat` has it."""
    boot: str
    """The first eight digits of the boot's id."""

    def owner(self, number: str) -> str:
        """The name under which it holds its `number`th port."""
        return f"pid:{self.pid}:{self.started}:{self.boot}:{number}"

    @classmethod
    def of_owner(cls, owner: str) -> Process | None:
        """The process that such a name means."""
        match = _OWNER.fullmatch(owner)
        return cls(int(match[1]), int(match[2]), match[3]) if match else None


def asked_for(pid: int, peer: Peer, *, boot: str) -> Process:
    """The process that `peer` means by `pid`. Raises `RefusedError`."""
    pid = _as_seen_here(pid, peer)
    stat, uids = read_stat(pid), _uids(pid)
    if pid == _INIT and peer.pid != _INIT:
        # What asks for its parent, when that has died, names process 1.
        raise RefusedError(400, "process 1 would hold the port for ever: the parent that was meant has probably died")
    if stat is None or stat.dead or not uids or _changed(stat):
        raise RefusedError(400, f"there is no process {pid} to give a port to: ask with the pid of one that lives")
    if uids != {peer.uid}:
        raise RefusedError(403, f"process {pid} is another user's: ask for processes of your own user (uid {peer.uid})")
    return Process(pid, stat.started, boot)


def _changed(stat: ProcessStat) -> bool:
    """Whether the pid has been given away since."""
    later = read_stat(stat.pid)
    return later is None or later.started != stat.started


def _as_seen_here(pid: int, peer: Peer) -> int:
    names = _numbers(peer.pid, "NSpid") if peer.pid else []
    if len(names) == 1:
        return pid
    if names and pid == names[-1]:
        return peer.pid
    raise RefusedError(403, f"process {pid} of another pid namespace (a container) cannot be followed from here: ask for yourself")


def _uids(pid: int) -> set[int]:
    """Real, effective, saved and file system's: one, unless it is changing hats."""
    return set(_numbers(pid, "Uid"))


def _numbers(pid: int, key: str) -> list[int]:
    """A line of `/proc/PID/status`; empty when there is none."""
    try:
        text = (_PROC / str(pid) / "status").read_text("utf-8", "replace")
        return next(([int(each) for each in line.split()[1:]] for line in text.split("\n") if line.startswith(f"{key}:")), [])
    except (OSError, ValueError):
        return []
