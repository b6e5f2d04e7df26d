"""Every file operation of the journal, as one small protocol, so that a simulated disk can stand in for the real one.

Rule: nothing else in `journals` touches a file but through a `Disk`. The methods mean what the calls of the same
name in `os` mean and raise `OSError` as they do; the helpers below them say what to make of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from portfsm.errors import JournalUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Directory", "Disk", "RealDisk", "is_full", "unreadable", "write_all"]

READ = os.O_RDONLY | os.O_NOFOLLOW
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
TEMPORARY = ".tmp"
"""Ends the name of a file that is not finished; whatever carries it after a crash is rubbish."""
CHUNK_BYTES = 64 << 10
"""Larger chunks replay slower: the decoded events outgrow the processor's cache."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ESCAPE = re.compile(r"\\([0-7]{3})")
_INTERRUPTIONS = 16
_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "ncpfs",
        "9p",
        "afs",
        "ceph",
        "coda",
        "lustre",
        "glusterfs",
        "beegfs",
        "gpfs",
        "orangefs",
        "pvfs2",
        "davfs",
    }
)
_NETWORK_FUSE = frozenset({"sshfs", "s3fs", "rclone", "glusterfs", "ceph", "ceph-fuse", "gcsfuse", "davfs2", "juicefs", "goofys", "s3ql"})


class Stat(Protocol):
    """What is asked of `os.stat_result`."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_dev(self) -> int: ...
    @property
    def st_nlink(self) -> int: ...
    @property
    def st_size(self) -> int: ...


class Disk(Protocol):
    """File operations, as in `os`. `stat` does not follow a symbolic link."""

    def open(self, path: str, flags: int, mode: int = ..., /) -> int: ...
    def close(self, fd: int, /) -> None: ...
    def pread(self, fd: int, size: int, offset: int, /) -> bytes: ...
    def pwrite(self, fd: int, data: bytes | memoryview, offset: int, /) -> int: ...
    def ftruncate(self, fd: int, size: int, /) -> None: ...
    def allocate(self, fd: int, size: int, /) -> None: ...
    def fsync(self, fd: int, /) -> None: ...
    def fdatasync(self, fd: int, /) -> None: ...
    def fstat(self, fd: int, /) -> Stat: ...
    def flock(self, fd: int, /) -> None: ...
    def stat(self, path: str, /) -> Stat: ...
    def listdir(self, path: str, /) -> list[str]: ...
    def mkdir(self, path: str, /) -> None: ...
    def rename(self, source: str, target: str, /) -> None: ...
    def unlink(self, path: str, /) -> None: ...
    def is_network(self, path: str, /) -> str: ...


class RealDisk:
    """The operating system's."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    pread = staticmethod(os.pread)
    pwrite = staticmethod(os.pwrite)
    ftruncate = staticmethod(os.ftruncate)
    fsync = staticmethod(os.fsync)
    fdatasync = staticmethod(os.fdatasync if hasattr(os, "fdatasync") else os.fsync)
    fstat = staticmethod(os.fstat)
    stat = staticmethod(os.lstat)
    listdir = staticmethod(os.listdir)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)

    def allocate(self, fd: int, size: int) -> None:
        """Take `size` bytes of real blocks, by writing them where the file system knows no other way."""
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
                raise
            write_all(self, fd, bytes(size), 0)

    def flock(self, fd: int) -> None:
        """Lock exclusively or raise `BlockingIOError`."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def mkdir(self, path: str) -> None:
        """Make the directory and its missing parents, each one durable."""
        parent = Path(path).absolute().parent
        if not parent.is_dir():
            self.mkdir(str(parent))
        Path(path).mkdir(0o700)
        fd = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def is_network(self, path: str) -> str:
        """The type of the file system when it is a network's, else empty. Empty too where the system does not say."""
        try:
            with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
                return network_type(table, str(Path(path).resolve()))
        except OSError:
            return ""


class Mount(NamedTuple):
    """What a path lies on."""

    point: str
    kind: str
    """The type of the file system: `ext4`, `fuse.sshfs`."""
    options: frozenset[str]

    @property
    def is_network(self) -> bool:
        """Others may write there from other machines, and locks and syncs mean what the server says."""
        kind, _, subtype = self.kind.partition(".")
        return self.kind in _NETWORK or (kind == "fuse" and subtype in _NETWORK_FUSE)


def mount_of(mountinfo: Iterable[str], path: str) -> Mount:
    """What `path` lies on, by the lines of `/proc/self/mountinfo`."""
    best = Mount("", "", frozenset())
    for line in mountinfo:
        left, _, right = line.partition(" - ")
        fields, about = left.split(" "), right.split()
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])  # a space is written \040
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.point):  # the later of equal ones covers the earlier
            best = Mount(point, about[0], frozenset(f"{fields[5]},{about[-1]}".split(",")))
    return best


def network_type(mountinfo: Iterable[str], path: str) -> str:
    """The network file system that `path` lies on, by the lines of `/proc/self/mountinfo`; empty when it is a local one."""
    mount = mount_of(mountinfo, path)
    return mount.kind if mount.is_network else ""


def is_full(error: OSError) -> bool:
    """The write failed for lack of room, so nothing is known to be wrong with the disk."""
    return error.errno in _NO_SPACE


def unreadable(path: str, error: OSError, doing: str) -> JournalUnreadable:
    """What to raise when the place cannot be used at all."""
    remedy = _REMEDIES.get(error.errno or 0, "see to the disk or name another directory")
    return JournalUnreadable(f"{path}: cannot {doing}: {error.strerror or error}; {remedy}", path=path, errno=error.errno)


_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a log is a directory: name another path",
    errno.EEXIST: "a log is a directory: name another path",
    errno.EISDIR: "something else has this name: name another directory",
    errno.ELOOP: "it is a symbolic link, which is not followed here: remove it",
    errno.EACCES: "give this user the right to read and write it",
    errno.EPERM: "give this user the right to read and write it",
    errno.EROFS: "it is mounted read-only: remount it or name another directory",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def write_all(disk: Disk, fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write every byte, through short writes and interruptions; raise `OSError` when it does not go on."""
    view = memoryview(data)
    interruptions = 0
    while view:
        try:
            written = disk.pwrite(fd, view, offset)
        except InterruptedError:
            interruptions += 1
            if interruptions > _INTERRUPTIONS:
                raise
            continue
        if written <= 0:
            raise OSError(errno.ENOSPC, "the write makes no progress")
        view = view[written:]
        offset += written


def shut(disk: Disk, fd: int) -> None:
    """Close a file of which all that matters was synced, or that was only read: whatever closing says, it is closed."""
    with contextlib.suppress(OSError):
        disk.close(fd)


class Directory:
    """The directory of one log. Held open, so that no error of its own sync is lost between two."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.path = path
        self.origin = (1, 0, "")
        """Number, base and link of its first segment: not the log's first where older ones are kept elsewhere."""
        self.sync_failed = False
        """A directory's sync failed once: the kernel reports that only once, so nothing later proves anything."""
        self._fd: int | None = None

    def hold(self) -> int:
        """Open it, once. Raises `OSError`."""
        if self._fd is None:
            self._fd = self.disk.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        return self._fd

    def let_go(self) -> None:
        """Close it."""
        if self._fd is not None:
            shut(self.disk, self._fd)
            self._fd = None

    def reach(self, after: int) -> None:
        """Raise unless the events behind `after` can be read here."""

    def at(self, name: str) -> str:
        """The path of a file in it."""
        return f"{self.path}/{name}"

    def names(self) -> list[str]:
        """All names in it, sorted."""
        return sorted(self.disk.listdir(self.path))

    def sync(self) -> None:
        """Make creations, renames and removals durable."""
        fd = self.hold()
        self.sync_failed = True
        self.disk.fsync(fd)
        self.sync_failed = False

    def size(self, name: str) -> int:
        """Length of a file in bytes."""
        return self.disk.stat(self.at(name)).st_size

    def chunks(self, name: str, start: int = 0, stop: int | None = None, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The bytes of a file from `start` to `stop` (its end)."""
        fd = self.disk.open(self.at(name), READ)
        try:
            yield from read_from(self.disk, fd, start, stop, size)
        finally:
            shut(self.disk, fd)

    def bytes_of(self, name: str, start: int, stop: int) -> bytes:
        """A piece of a file."""
        return b"".join(self.chunks(name, start, stop))

    def publish(self, name: str, pieces: Iterable[bytes]) -> None:
        """Put a whole file in place: under another name first, synced, renamed, the directory synced. Raises `OSError`."""
        temporary = f"{name}{TEMPORARY}"
        fd = self.create(temporary)
        try:
            offset = 0
            for piece in pieces:
                write_all(self.disk, fd, piece, offset)
                offset += len(piece)
            self.disk.fsync(fd)
        except OSError:
            self.remove(temporary)  # on a full disk it would keep the room others need
            raise
        finally:
            shut(self.disk, fd)
        self.disk.rename(self.at(temporary), self.at(name))
        self.sync()

    def create(self, name: str) -> int:
        """A new empty file, in place of any of that name."""
        try:
            return self.disk.open(self.at(name), CREATE, 0o600)
        except FileExistsError:
            self.disk.unlink(self.at(name))
            return self.disk.open(self.at(name), CREATE, 0o600)

    def remove(self, name: str) -> bool:
        """Remove a file if it is there and can be; tells whether."""
        try:
            self.disk.unlink(self.at(name))
        except OSError:
            return False
        return True


def read_from(disk: Disk, fd: int, start: int, stop: int | None = None, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The bytes of an open file from `start` to `stop` (its end)."""
    while stop is None or start < stop:
        chunk = disk.pread(fd, size if stop is None else min(size, stop - start), start)
        if not chunk:
            return
        start += len(chunk)
        yield chunk
