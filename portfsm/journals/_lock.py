"""One writer at a time: a lock of the operating system, and an epoch that outlives it.

`flock` on the file LOCK keeps a second writer out and falls with its holder's process. Where it does not hold (the
directory was moved away and another put in its place, a file system that only pretends), the epoch written in
the file does: a writer looks before each sync whether it still reads its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import weakref
from typing import TYPE_CHECKING

import msgspec

from portfsm.errors import Fenced, JournalFull, JournalLocked, JournalUnreadable
from portfsm.journals._disk import is_full, shut, unreadable, write_all

if TYPE_CHECKING:
    from portfsm.journals._disk import Directory

__all__ = ["Lock"]

NAME = "LOCK"
_SIZE = 512
"""The text is padded to one sector: it is replaced in place, needs no room on a full disk and cannot tear."""
_NONE = -1
"""A file handle that every call refuses."""
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


class _Text(msgspec.Struct):
    """What LOCK says, for people and for the next writer. The epoch comes first, so that a few bytes tell it."""

    epoch: int = 0
    pid: int | None = None
    host: str = ""
    holder: str | None = None
    boot_id: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Text).decode


class Lock:
    """The lock of one log. `last_epoch` is what the previous holder wrote."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._disk = directory.disk
        self._path = directory.at(NAME)
        self._fd = _NONE
        self._file = (0, 0)
        self._mine = b""
        self.epoch = 0
        self.last_epoch = 0

    def acquire(self) -> None:
        """Lock, or raise `JournalLocked`; `JournalUnreadable` or `JournalFull` when that cannot even be tried."""
        try:
            fd = self._disk.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            if is_full(error):
                raise JournalFull(f"{self._path}: no room even for the lock file: free some space", path=self._path) from error
            raise unreadable(self._path, error, "open the lock file") from error
        with contextlib.ExitStack() as undo:
            undo.callback(shut, self._disk, fd)
            try:
                self._lock(fd)
            except OSError as error:
                raise unreadable(self._path, error, "lock it") from error
            undo.pop_all()
        self._fd = fd
        _held.add(self)

    def _lock(self, fd: int) -> None:
        info = self._disk.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise JournalUnreadable(f"{self._path} is not a plain file: remove it", path=self._path, errno=None)
        try:
            self._disk.flock(fd)
        except BlockingIOError:
            raise self._locked(self._read(fd)) from None
        self._file = (info.st_dev, info.st_ino)
        found = self._read(fd)
        self.last_epoch = found.epoch
        if self._moved():
            raise self._locked(found)

    def _locked(self, found: _Text) -> JournalLocked:
        who = f"process {found.pid} on {found.host or 'this host'}, {found.holder!r}" if found.pid else "another writer"
        message = f"{self._directory.path} is open for writing already, by {who}: stop it first (readers need no lock)"
        return JournalLocked(message, path=self._directory.path, pid=found.pid, holder=found.holder)

    def _read(self, fd: int) -> _Text:
        try:
            return _decode(self._disk.pread(fd, _SIZE, 0))
        except ValueError:  # a new file, or a damaged one: the epochs in the segments still count
            return _Text()

    def claim(self, epoch: int, holder: str, boot_id: str) -> None:
        """Write the epoch down, durably. Raises `OSError`."""
        text = _Text(epoch, os.getpid(), socket.gethostname()[:64], holder, boot_id)
        line = _encode(text)
        if len(line) >= _SIZE:
            line = _encode(msgspec.structs.replace(text, holder=holder.encode()[:96].decode("ascii", "replace"), boot_id=""))
        new = self._disk.fstat(self._fd).st_size == 0
        write_all(self._disk, self._fd, line[: _SIZE - 1].ljust(_SIZE - 1) + b"\n", 0)
        self._disk.fsync(self._fd)
        if new:
            self._directory.sync()
        self.epoch = epoch
        self._mine = b'{"epoch":%d,' % epoch

    def check(self) -> None:
        """Raise `Fenced` unless this is still the writer; `OSError` when that cannot be told."""
        if self._fd == _NONE:
            raise self._fenced(None, "the lock was given up")
        if self._moved():
            raise self._fenced(None, "the log's directory or its LOCK was moved or replaced")
        if self._disk.pread(self._fd, len(self._mine), 0) != self._mine:
            current = self._read(self._fd).epoch
            raise self._fenced(current, f"epoch {current} has taken over")

    def _moved(self) -> bool:
        try:
            info = self._disk.stat(self._path)
        except OSError as error:
            if error.errno in _GONE:
                return True
            raise
        return (info.st_dev, info.st_ino) != self._file

    def _fenced(self, current: int | None, why: str) -> Fenced:
        message = f"{self._directory.path}: {why}, this writer had epoch {self.epoch}: nothing was written; open the log again to go on"
        return Fenced(message, path=self._directory.path, epoch=self.epoch, current=current)

    def release(self) -> None:
        """Let the next one in."""
        fd, self._fd = self._fd, _NONE
        _held.discard(self)
        if fd != _NONE:
            shut(self._disk, fd)


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked child shares the lock, and would keep it alive after its parent: it closes its copy at once."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
