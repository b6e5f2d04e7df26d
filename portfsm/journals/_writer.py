"""The segment that is being written: one write and one sync for each batch, and what to do when either fails.

What each failure means:
- no room: the segment is cut back to where it was, the reserve is given up, and the write is tried once more;
- superseded by another writer: cut back, `Fenced`;
- any other failed write, and any failed sync: nobody knows what reached the disk. The kernel marks the pages clean
  and reports the error once, so a second sync would "succeed" over lost data: none is ever tried.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from portfsm.errors import Fenced, JournalFull, OutcomeUnknown
from portfsm.journals._disk import is_full, shut, write_all
from portfsm.journals._growing import Growing

if TYPE_CHECKING:
    from portfsm._codec import Header
    from portfsm.journals._disk import Directory
    from portfsm.journals._lock import Lock
    from portfsm.journals._reserve import Reserve

__all__ = ["Writer", "no_room", "outcome_unknown"]


def outcome_unknown(path: str, error: OSError, doing: str) -> OutcomeUnknown:
    """Nobody knows what the disk holds now."""
    message = (
        f"{path}: {doing} failed ({error.strerror or error}), so nobody knows what the disk holds: open the log again, which finds out"
    )
    return OutcomeUnknown(message, path=path, errno=error.errno)


def no_room(path: str) -> JournalFull:
    """Nothing was written, and nothing can be."""
    return JournalFull(f"{path}: no room left, not even in the reserve: nothing was written; free some space and try again", path=path)


class Writer(Growing):
    """Appends to one new segment in a file."""

    def __init__(self, directory: Directory, lock: Lock, reserve: Reserve, header: Header) -> None:
        super().__init__(header)
        self._directory = directory
        self._disk = directory.disk
        self._lock = lock
        self._reserve = reserve
        self._fd = -1
        self.size = len(self._first_line)

    def create(self) -> None:
        """Put the file in place, its header durable. Raises `OSError`."""
        self._directory.publish(self.name, [self._first_line])
        self._fd = self._disk.open(self._directory.at(self.name), os.O_RDWR | os.O_NOFOLLOW)

    def close(self) -> None:
        """Close the file, nothing else."""
        shut(self._disk, self._fd)
        self._fd = -1

    def _put(self, data: bytes) -> None:
        """The bytes are durable at the end of the segment; or it is as it was (`JournalFull`, `Fenced`); or `OutcomeUnknown`."""
        written = False
        try:
            # Before the write: on a full disk whoever took over has sealed this very file in place, just where we would write.
            self._lock.check()
            written = True
            self._write(self._fd, data)
            # After the write and before the sync: whoever took over has written its epoch before it reads our bytes.
            # If we still see ours now, it will see these bytes.
            self._lock.check()
            gone = self._disk.fstat(self._fd).st_nlink == 0
        except Fenced:
            if written:
                with contextlib.suppress(OSError):
                    self._disk.ftruncate(self._fd, self.size)
            raise
        except OSError as error:
            raise outcome_unknown(self._directory.at(self.name), error, "a write") from error
        if gone:
            raise OutcomeUnknown(
                f"{self._directory.at(self.name)} was deleted while it was written to: restore it", path=self._directory.path
            )
        try:
            self._disk.fdatasync(self._fd)
        except OSError as error:
            raise outcome_unknown(self._directory.at(self.name), error, "a sync") from error
        self.size += len(data)

    def _write(self, fd: int, data: bytes) -> None:
        """Write, on the reserve if need be. Raises `JournalFull` with nothing written, or `OSError`."""
        try:
            write_all(self._disk, fd, data, self.size)
        except OSError as error:
            if not is_full(error):
                raise
            self._disk.ftruncate(fd, self.size)
            if not self._reserve.give():
                raise no_room(self._directory.path) from error
        else:
            return
        try:
            write_all(self._disk, fd, data, self.size)
        except OSError as error:
            if not is_full(error):
                raise
            self._disk.ftruncate(fd, self.size)
            raise no_room(self._directory.path) from error
