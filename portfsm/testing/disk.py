"""A disk in memory that keeps only what was synced, and fails when it is told to. For tests of journals.

What it models, and what a test can ask for:
- a write goes to the cache; `fsync` moves it to the platter, in sectors of 512 bytes. `crashed(seed)` is the disk after
  a power cut: each unsynced sector persisted, stayed old, turned to zeros or to garbage; a length lies anywhere between
  the synced and the written one; a directory forgets unsynced creations, renames and removals.
- `fail(...)`: the nth call fails, once or from then on, with an error number or as a short write. A failed sync loses the pages
  *and calls them clean*, as Linux does: the next sync succeeds, reads still show the bytes, the platter never had them.
- `misdirect`, `capacity`, `read_only`, `network`, `evict` (the cache forgets clean pages), `killed` (the process died, the
  machine lives on: locks and file handles are gone, the cache stays).

`trace` records every call with its arguments; `replayed` carries out the first part of one on a fresh disk.
"""

from __future__ import annotations

import copy
import errno
import os
import random
import stat
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import attrs

from portfsm.testing._platter import SECTOR, Entries, File

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Call", "SimulatedDisk"]

_MISDIRECTED_BY = 4 * SECTOR


class Call(NamedTuple):
    """One call: the operation's name and its arguments."""

    name: str
    arguments: tuple[Any, ...]


@attrs.define
class _Handle:
    inode: int | None
    """None for a directory."""
    path: str


@attrs.frozen
class _Fault:
    at: int
    kind: int | Literal["short"]
    persistent: bool
    only: frozenset[str]


class SimulatedDisk:
    """Implements the file operations of the journal (see `portfsm.journals`). All paths lie in memory; `/` exists."""

    def __init__(self, *, capacity: int | None = None) -> None:
        self.capacity = capacity
        """Bytes that all files together may have."""
        self.read_only = False
        self.network = ""
        """What `is_network` answers."""
        self.trace: list[Call] = []
        self.calls = 0
        """How many calls were made; the next one has this number."""
        self._files: dict[int, File] = {}
        self._directories: dict[str, Entries] = {"/": Entries()}
        self._handles: dict[int, _Handle] = {}
        self._locks: dict[int, int] = {}
        self._next = 100
        self._faults: list[_Fault] = []
        self._misdirected = -1

    # ---- what a test asks for --------------------------------------------------------------------------------

    def fail(self, *, at: int, kind: int | Literal["short"], persistent: bool = False, only: Iterable[str] = ()) -> None:
        """Let call number `at` fail (counted among the operations named in `only`, if any), and all later ones if `persistent`."""
        self._faults.append(_Fault(at if not only else self._count(only) + at, kind, persistent, frozenset(only)))

    def heal(self) -> None:
        """No call fails any more. What failed stays failed."""
        self._faults.clear()

    def misdirect(self, *, at: int) -> None:
        """Let the write that is call number `at` or the next after it land 2 KiB away."""
        self._misdirected = at

    def crashed(self, seed: int) -> SimulatedDisk:
        """The disk after a power cut now. This one is left as it is, so that many cuts of one moment can be tried."""
        chance = random.Random(seed)
        after = SimulatedDisk(capacity=self.capacity)
        after.network = self.network
        after._next = self._next
        contents = {inode: file.after_power_cut(chance) for inode, file in sorted(self._files.items())}
        for path, entries in sorted(self._directories.items()):
            names = entries.after_power_cut(chance)
            after._directories[path] = Entries(dict(names), dict(names))
            for inode in names.values():
                after._files[inode] = File(inode, bytearray(contents[inode]), bytearray(contents[inode]))
        return after

    def killed(self) -> SimulatedDisk:
        """The disk after the process was killed: all is as it was, but nothing is open or locked."""
        after = copy.deepcopy(self)
        after._handles.clear()
        after._locks.clear()
        after._faults.clear()
        return after

    def evict(self) -> None:
        """The cache forgets every page it believes to be clean: they are read from the platter again."""
        for file in self._files.values():
            for sector in range((len(file.cache) + SECTOR - 1) // SECTOR):
                if sector not in file.dirty:
                    place = slice(sector * SECTOR, min((sector + 1) * SECTOR, len(file.cache)))
                    file.cache[place] = bytes(file.platter[place]).ljust(place.stop - place.start, b"\0")

    def contents(self, path: str) -> bytes:
        """What a program would read."""
        return bytes(self._file(path).cache)

    def overwrite(self, path: str, data: bytes) -> None:
        """Damage: the file has other bytes now, on the platter too."""
        file = self._file(path)
        file.cache, file.platter = bytearray(data), bytearray(data)
        file.dirty.clear()

    @classmethod
    def replayed(cls, calls: Iterable[Call]) -> SimulatedDisk:
        """A fresh disk on which these calls were made."""
        disk = cls()
        for call in calls:
            try:
                getattr(disk, call.name)(*call.arguments)
            except OSError:
                continue  # it failed the first time, too
        return disk

    # ---- the operations ----------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        path = self._called("open", path, flags, mode)
        fd = self._next
        self._next += 1
        if path in self._directories:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise _error(errno.EISDIR, path)
            self._handles[fd] = _Handle(None, path)
            return fd
        entries, name = self._parent(path)
        if flags & os.O_ACCMODE != os.O_RDONLY and self.read_only:
            raise _error(errno.EROFS, path)
        if name not in entries.now:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            self._check_room(1)
            self._files[fd] = File(fd)
            entries.step("", name, fd)
        elif flags & os.O_EXCL:
            raise _error(errno.EEXIST, path)
        if flags & os.O_DIRECTORY:
            raise _error(errno.ENOTDIR, path)
        self._handles[fd] = _Handle(entries.now[name], path)
        return fd

    def close(self, fd: int) -> None:
        if self._handles.pop(fd, None) is None:
            raise _error(errno.EBADF, str(fd))
        for inode in [inode for inode, holder in self._locks.items() if holder == fd]:
            del self._locks[inode]
        self._forget_unlinked()
        self._called("close", fd)  # last: the handle is gone even when closing fails

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self._called("pread", fd, size, offset)
        return bytes(self._opened(fd).cache[offset : offset + size])

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        data = bytes(data)
        short = self._called("pwrite", fd, data, offset) == "short"
        file = self._opened(fd)
        if short:
            data = data[: len(data) // 2]
        growth = max(0, offset + len(data) - len(file.cache))
        room = self._room()
        if room is not None and growth > room:
            data = data[: max(0, len(data) - (growth - room))]
            if not data:
                raise _error(errno.ENOSPC, str(fd))
        if 0 <= self._misdirected < self.calls:
            self._misdirected = -1
            offset += _MISDIRECTED_BY
        file.write(data, offset)
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._called("ftruncate", fd, size)
        self._opened(fd).resize(size)

    def allocate(self, fd: int, size: int) -> None:
        self._called("allocate", fd, size)
        file = self._opened(fd)
        self._check_room(size - len(file.cache))
        file.resize(size)

    def fsync(self, fd: int) -> None:
        self._sync("fsync", fd)

    def fdatasync(self, fd: int) -> None:
        self._sync("fdatasync", fd)

    def fstat(self, fd: int) -> os.stat_result:
        self._called("fstat", fd)
        handle = self._handles[fd]
        return self._stat_result(handle.inode, handle.path)

    def flock(self, fd: int) -> None:
        self._called("flock", fd)
        inode = self._handles[fd].inode
        assert inode is not None
        if self._locks.setdefault(inode, fd) != fd:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")

    def stat(self, path: str) -> os.stat_result:
        path = self._called("stat", path)
        if path in self._directories:
            return self._stat_result(None, path)
        entries, name = self._parent(path)
        if name not in entries.now:
            raise _error(errno.ENOENT, path)
        return self._stat_result(entries.now[name], path)

    def listdir(self, path: str) -> list[str]:
        path = self._called("listdir", path)
        if path not in self._directories:
            raise _error(errno.ENOTDIR if path in self._all_names() else errno.ENOENT, path)
        inside = [other.rpartition("/") for other in self._directories if other != "/"]
        return [*self._directories[path].now, *(name for parent, _, name in inside if (parent or "/") == path)]

    def mkdir(self, path: str) -> None:
        path = self._called("mkdir", path)
        self._check_writable(path)
        if path in self._directories or path in self._all_names():
            raise _error(errno.EEXIST, path)
        self._check_room(1)
        self._directories[path] = Entries()  # durable at once: the real one syncs the parent

    def rename(self, source: str, target: str) -> None:
        source = self._called("rename", source, target)
        self._check_writable(source)
        entries, name = self._parent(source)
        if name not in entries.now:
            raise _error(errno.ENOENT, source)
        entries.step(name, _clean(target).rpartition("/")[2], entries.now[name])
        self._forget_unlinked()

    def unlink(self, path: str) -> None:
        path = self._called("unlink", path)
        self._check_writable(path)
        entries, name = self._parent(path)
        if name not in entries.now:
            raise _error(errno.ENOENT, path)
        entries.step(name, "", 0)
        self._forget_unlinked()

    def is_network(self, path: str) -> str:
        self._called("is_network", path)
        return self.network

    # ---- behind them ---------------------------------------------------------------------------------------------

    def _called(self, name: str, *arguments: Any) -> str:
        """Count, record and perhaps fail the call. Returns its first argument as a clean path, or how it is to go wrong."""
        number = self.calls
        self.calls += 1
        self.trace.append(Call(name, arguments))
        for fault in self._faults:
            if fault.only:
                counted = self._count(fault.only) - 1
                hit = name in fault.only and (counted == fault.at or (fault.persistent and counted > fault.at))
            else:
                hit = number == fault.at or (fault.persistent and number > fault.at)
            if hit and fault.kind == "short":
                return "short"
            if hit and name in {"fsync", "fdatasync"}:
                self._lose_pages(arguments[0])
            if hit:
                assert isinstance(fault.kind, int)
                raise _error(fault.kind, name)
        return _clean(arguments[0]) if isinstance(arguments[0], str) else ""

    def _count(self, names: Iterable[str]) -> int:
        wanted = frozenset(names)
        return sum(call.name in wanted for call in self.trace)

    def _lose_pages(self, fd: int) -> None:
        inode = self._handles[fd].inode
        if inode is not None:
            self._files[inode].dirty.clear()

    def _sync(self, name: str, fd: int) -> None:
        self._called(name, fd)
        handle = self._handles[fd]
        if handle.inode is None:
            self._directories[handle.path].sync()
        else:
            self._files[handle.inode].sync()

    def _opened(self, fd: int) -> File:
        handle = self._handles.get(fd)
        if handle is None or handle.inode is None:
            raise _error(errno.EBADF, str(fd))
        return self._files[handle.inode]

    def _file(self, path: str) -> File:
        entries, name = self._parent(_clean(path))
        return self._files[entries.now[name]]

    def _parent(self, path: str) -> tuple[Entries, str]:
        parent, _, name = path.rpartition("/")
        if (parent or "/") not in self._directories:
            raise _error(errno.ENOTDIR if parent in self._all_names() else errno.ENOENT, path)
        return self._directories[parent or "/"], name

    def _all_names(self) -> set[str]:
        return {f"{path.rstrip('/')}/{name}" for path, entries in self._directories.items() for name in entries.now}

    def _stat_result(self, inode: int | None, path: str) -> os.stat_result:
        if inode is None:
            return os.stat_result((stat.S_IFDIR | 0o700, hash(path) & 0xFFFF, 1, 2, 0, 0, 0, 0, 0, 0))
        links = sum(other == inode for entries in self._directories.values() for other in entries.now.values())
        return os.stat_result((stat.S_IFREG | 0o600, inode, 1, links, 0, 0, len(self._files[inode].cache), 0, 0, 0))

    def _room(self) -> int | None:
        if self.capacity is None:
            return None
        linked = {inode for entries in self._directories.values() for inode in entries.now.values()}
        linked.update(handle.inode for handle in self._handles.values() if handle.inode is not None)
        return self.capacity - sum(len(self._files[inode].cache) for inode in linked)

    def _check_room(self, size: int) -> None:
        room = self._room()
        if room is not None and size > room:
            raise _error(errno.ENOSPC, "the simulated disk")

    def _check_writable(self, path: str) -> None:
        if self.read_only:
            raise _error(errno.EROFS, path)

    def _forget_unlinked(self) -> None:
        """Free the room of files that have neither a name, nor a handle, nor a name on the platter still."""
        used = {handle.inode for handle in self._handles.values()}
        for entries in self._directories.values():
            used.update(entries.now.values(), entries.platter.values(), (inode for _, _, inode in entries.unsynced))
        for inode in [inode for inode in self._files if inode not in used]:
            del self._files[inode]


def _clean(path: str) -> str:
    return os.path.normpath("/" + path)


def _error(number: int, what: str) -> OSError:
    return OSError(number, os.strerror(number), what)
