"""Processes of an HAProxy that its master has lost: they still run, and `show proc` does not show them.

A master that was killed leaves workers behind, a frozen one for as long as it is frozen, and the next master knows nothing of them. All
processes of one HAProxy have its command line, with the master socket in it: so they are found where `/proc` shows them, in the
mount namespace of the master, for two containers may well use one name.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from portfsm.witnesses._exits import read_stat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.witnesses._haproxy_answers import Listing

__all__ = ["Lost"]

_PROC = Path("/proc")


class Lost:
    """Looks for them whenever the master is another one, or has reloaded."""

    def __init__(self, master_socket: str) -> None:
        self._socket = master_socket
        self._looked: tuple[int, int | None, str] | None = None
        self._found: dict[int, int] = {}

    def look(self, listing: Listing) -> list[int]:
        """The process ids. Never raises; what cannot be seen is not found."""
        # A worker may have been seen here before it was listed; another child before it became the program that it is.
        known = {listing.master, *listing.workers, *listing.old}
        self._found = {
            pid: started for pid, started in self._found.items() if pid not in known and _lives(pid, started) and self._serves(pid)
        }
        master = read_stat(listing.master)
        now = listing.master, master.started if master else None, listing.reloads
        if now != self._looked:
            self._found.update(
                (pid, stat.started) for pid in self._family(listing.master) - known if (stat := read_stat(pid)) and not stat.dead
            )
            self._looked = now
        return sorted(self._found)

    def _family(self, master: int) -> set[int]:
        where = _namespace(master)
        if where is None or not self._serves(master):
            return set()  # it is in another container, or on another machine
        return {pid for pid in _pids() if self._serves(pid) and _namespace(pid) == where}

    def _serves(self, pid: int) -> bool:
        with suppress(OSError, ValueError):
            words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
            given = os.fsdecode(words[words.index(b"-S") + 1]).partition(",")[0].removeprefix("unix@")
            return (_PROC / str(pid) / "cwd" / given).samefile(self._socket)
        return False


def _pids() -> Iterator[int]:
    with suppress(OSError):
        yield from (int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdecimal())


def _namespace(pid: int) -> str | None:
    with suppress(OSError):
        return str((_PROC / str(pid) / "ns" / "mnt").readlink())
    return None


def _lives(pid: int, started: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.started == started and not stat.dead
