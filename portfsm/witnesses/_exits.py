"""Whether processes have exited, and news of it without asking again and again.

A pid alone names nobody: the kernel gives it away again. So each process is held by a pidfd, which stays with it, and
where there is none by pid and start time. When in doubt it lives: that only keeps a port longer.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Exits", "ProcessStat", "Sight", "Tracked", "read_stat"]

_PROC = Path("/proc")


@attrs.frozen
class ProcessStat:
    """What `/proc/PID/stat` says of a process."""

    pid: int
    name: str
    state: str
    parent: int
    threads: int
    started: int
    """In clock ticks after boot; with the pid it names the process for as long as the machine runs."""

    @property
    def dead(self) -> bool:
        """It runs no more and waits to be reaped. A first thread that ended before the others looks alike, but for the count."""
        return self.state in "ZXx" and self.threads <= 1


def read_stat(pid: int) -> ProcessStat | None:
    """None when the process does not exist, or is not to be seen."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
        # The name may hold spaces and parentheses: what follows the last one is safe to split.
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        return ProcessStat(pid, name, fields[0], int(fields[1]), int(fields[17]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


def _open(pid: int) -> int | None:
    with contextlib.suppress(OSError, AttributeError):  # exited; no more descriptors; another system
        return os.pidfd_open(pid)
    return None


@attrs.frozen
class Sight:
    """What is to be seen of processes. Some kernels and sandboxes have no pidfds, and some show nobody another user's."""

    open: Callable[[int], int | None] = _open
    stat: Callable[[int], ProcessStat | None] = read_stat


_SIGHT = Sight()


class Tracked:
    """One process, from now until its exit."""

    def __init__(self, pid: int, *, started: int | None = None, sight: Sight = _SIGHT) -> None:
        self.pid = pid
        self._sight = sight
        self.fd = sight.open(pid)
        self.exited = self.fd is None and not _exists(pid)
        stat = sight.stat(pid)
        self.started = started if started is not None else stat.started if stat else None
        if stat and stat.started != self.started:  # the pid was given away before we came
            self.exited = True
            self.close()

    def look(self) -> bool:
        """Whether it has exited."""
        self.exited = self.exited or (_readable(self.fd) if self.fd is not None else self._gone())
        return self.exited

    def _gone(self) -> bool:
        stat = self._sight.stat(self.pid)
        return stat.started != self.started or stat.dead if stat and self.started is not None else not _exists(self.pid)

    def close(self) -> None:
        """Let go of the descriptor."""
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "fd", None) is not None:
            self.close()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # somebody else's: it exists
    return True


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class Exits:
    """News of exits, for one listener: all descriptors in one epoll, which is a descriptor itself.

    Whoever finds an exit before the listener has heard of it closes that descriptor; a bell in the same epoll then rings instead.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(os, "pidfd_open") else None
        self._bell = -1
        self._watched: dict[int, Tracked] = {}
        if self._epoll is not None:
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._epoll.register(self._bell, select.EPOLLIN)

    def watch(self, process: Tracked) -> None:
        """Tell when it exits."""
        if process.fd is not None and self._epoll is not None:
            self._epoll.register(process.fd, select.EPOLLIN)
            self._watched[process.fd] = process

    def settle(self) -> None:
        """Note the exits there have been, and ring."""
        if self._epoll is None:
            return
        for fd, process in [*self._watched.items()]:
            if process.look():
                # A forked child may have a copy of the descriptor: closing ours would leave it in the epoll for good.
                self._epoll.unregister(fd)
                process.close()
                del self._watched[fd]
                self.ring()

    def ring(self) -> None:
        """Wake the listener."""
        if self._bell >= 0:
            with contextlib.suppress(OSError):
                os.eventfd_write(self._bell, 1)

    async def changed(self) -> AsyncIterator[None]:
        """Yields after exits."""
        if self._epoll is None:
            await anyio.sleep_forever()
            return
        while True:
            await anyio.wait_readable(self._epoll.fileno())
            self.settle()
            with contextlib.suppress(OSError):
                os.eventfd_read(self._bell)
            yield

    def close(self) -> None:
        """Let go of all descriptors."""
        for process in self._watched.values():
            process.close()
        self._watched.clear()
        if self._epoll is not None:
            self._epoll.close()
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1

    def __del__(self) -> None:
        if getattr(self, "_bell", -1) >= 0:
            self.close()
