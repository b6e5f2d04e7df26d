"""A Unix socket that only its user can reach, in a place that nobody else can change, and only one at a time.

Rules. The socket is 0600 from its first moment: its mode is set before it has a name. No directory on the way to it may be another
user's, or writable by others unless it is sticky, where nobody removes what is not theirs. A lock beside it (`NAME.lock`) says that a
server lives; what a dead one left is replaced, anything else is left alone: a socket that answers, another user's, a link, a file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from portfsm.errors import PortfsmError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SocketRefused", "check_place", "unix_socket"]

_MOST_BYTES = 107
"""What the kernel has room for in an address."""
_BACKLOG = 4096
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class SocketRefused(PortfsmError):  # noqa: N818  (as in portfsm.errors)
    """No socket was made at `path`, and what is there was left as it is."""

    fields = ("path",)
    path: str


@contextmanager
def unix_socket(path: str | os.PathLike[str]) -> Iterator[socket.socket]:
    """A socket that listens at `path`, mode 0600, until the block is left. Raises `SocketRefused`, `OSError`."""
    place = _place(path)
    with ExitStack() as leaving:
        _lock(place, leaving)
        if _stale(place):
            place.unlink()
        made = leaving.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        made.setblocking(False)
        # The name that `bind` makes has the socket's own mode, less the umask: at no time can others connect.
        os.fchmod(made.fileno(), 0o600)
        try:
            made.bind(str(place))
        except OSError as error:
            raise _refused(place, f"cannot be made: {error.strerror}") from error
        mine = place.lstat()
        leaving.callback(_remove, place, mine)
        if stat.S_IMODE(mine.st_mode) & 0o177:
            raise _refused(place, "would be open to others: this file system keeps no modes; choose a directory on another")
        made.listen(_BACKLOG)
        yield made


def check_place(path: str | os.PathLike[str], *, served: bool = False) -> None:
    """Raise `SocketRefused` where `unix_socket` would, and change nothing. With `served`, another server may be there yet."""
    _stale(_place(path), served=served)


def _place(path: str | os.PathLike[str]) -> Path:
    """Where it will be, all links of its directory followed, and every directory on the way looked at."""
    text = os.fspath(path)
    if sys.platform != "linux":
        raise _refused(text, "cannot be served: only Linux tells who is at the other end")
    if not text or text.startswith("@") or "\0" in text:
        raise _refused(text, "is no path: abstract sockets have no mode and no owner; name a file")
    folder, name = os.path.split(text)
    try:
        place = Path(folder or ".").resolve(strict=True) / name
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is a loop of links"
        raise _refused(text, f"has no directory to be in: {reason}; make it first, for its user alone (mkdir -m 700)") from error
    if name in ("", ".", ".."):
        raise _refused(text, "names a directory: name a file in it")
    if len(os.fsencode(place)) > _MOST_BYTES:
        raise _refused(place, f"has {len(os.fsencode(place))} bytes, and an address has room for {_MOST_BYTES}: choose a shorter path")
    for each in place.parents:
        _check_folder(place, each)
    return place


def _check_folder(place: Path, folder: Path) -> None:
    info = folder.stat()
    if info.st_uid not in (0, os.geteuid()):
        raise _refused(place, f"is not safe: {folder} belongs to another user (uid {info.st_uid}); choose a directory of your own")
    if info.st_mode & _OTHERS and not info.st_mode & stat.S_ISVTX:
        why = f"others may write to {folder} (mode {stat.S_IMODE(info.st_mode):04o}) and put their own in its place"
        raise _refused(place, f"is not safe: {why}; chmod go-w {folder}, or choose another directory")


def _lock(place: Path, leaving: ExitStack) -> None:
    """Hold the lock file until `leaving`. It is never removed: who waited for a removed one would hold nothing."""
    path = place.with_name(f"{place.name}.lock")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(place, f"cannot be locked: {path} is a link; remove it") from error
        raise
    leaving.callback(os.close, file)
    info = os.fstat(file)
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        raise _refused(place, f"cannot be locked: {path} is not a file of your own; remove it, or choose another place")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refused(place, "is served already, by a process that holds its lock: stop it first, or choose another place") from None


def _stale(place: Path, *, served: bool = False) -> bool:
    """Whether a dead server left its socket there. Raises `SocketRefused` for anything else but nothing."""
    try:
        info = place.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(info.st_mode):
        if stat.S_ISDIR(info.st_mode):
            raise _refused(place, "is a directory: name a file in it")
        kind = "a link" if stat.S_ISLNK(info.st_mode) else "another file"
        raise _refused(place, f"is {kind}, not a socket: remove it, or choose another place")
    if info.st_uid != os.geteuid():
        raise _refused(place, f"belongs to another user (uid {info.st_uid}): choose another place")
    if not served and _answers(place):
        raise _refused(place, "is served already: stop that server first, or choose another place")
    return True


def _answers(place: Path) -> bool:
    """Whether anybody listens there. In doubt, yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(place))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass
        return True


def _remove(place: Path, mine: os.stat_result) -> None:
    with suppress(OSError):
        found = place.lstat()
        if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            place.unlink()


def _refused(place: object, why: str) -> SocketRefused:
    return SocketRefused(f"{place} {why}", path=str(place))
