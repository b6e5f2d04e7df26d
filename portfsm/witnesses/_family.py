"""The processes of one nginx, as /proc shows them. Blocking: call it in a thread.

A family is the master, during a binary upgrade both masters, and their workers. Workers whose master was killed are children of
somebody else and go on serving: they are found by name and counted in, for they may be this one's.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from portfsm.witnesses._asking import NoAnswerError
from portfsm.witnesses._exits import ProcessStat, read_stat

__all__ = ["Family", "Worker", "family_of", "read_pid"]

_MASTER = "nginx: master process"
_WORKER = "nginx: worker process"
_HELPERS = ("nginx: cache manager process", "nginx: cache loader process")
"""They never open a connection to a replica."""
_STOPPING = "is shutting down"
_PROC = Path("/proc")
_PID_BYTES = 64
_TITLE_BYTES = 256


@attrs.frozen
class Worker:
    """One process that may route."""

    pid: int
    started: int
    stopping: bool
    orphaned: bool

    @property
    def key(self) -> tuple[int, int]:
        """Names the process for as long as the machine runs."""
        return self.pid, self.started


@attrs.frozen
class Family:
    """All processes that may route, at one look."""

    incarnation: str
    workers: tuple[Worker, ...]


def read_pid(path: Path) -> int:
    """The pid in a pid file. Raises `NoAnswerError`."""
    try:
        with path.open("rb") as file:
            text = file.read(_PID_BYTES).strip()
    except OSError as error:
        raise NoAnswerError(f"{path}: {error.strerror}: is nginx running, and is this its pid file?") from error
    if not text.isdigit():
        raise NoAnswerError(f"{path} holds no pid")
    return int(text)


def family_of(pid: int) -> Family:
    """The family of the master `pid`. Raises `NoAnswerError` when there is no such master."""
    everybody = {stat.pid: stat for stat in _processes()}
    master = everybody.get(pid)
    if master is None or master.dead:
        raise NoAnswerError(f"no process {pid}: nginx is not running, or not under this pid")
    if not _title(pid).startswith(_MASTER):
        raise NoAnswerError(f"process {pid} is not the master of an nginx (with `master_process off` nothing can be told)")
    masters = _masters(master, everybody)
    workers = tuple(_workers(masters, master.name, everybody))
    if not workers:
        raise NoAnswerError(f"no worker of the nginx master {pid} is to be seen: may this user see other users' processes?")
    return Family(f"{pid}@{master.started}", workers)


def _processes() -> list[ProcessStat]:
    stats = [read_stat(int(path.name)) for path in _PROC.iterdir() if path.name.isdigit()]
    return [stat for stat in stats if stat is not None and not stat.dead]


def _masters(master: ProcessStat, everybody: dict[int, ProcessStat]) -> set[int]:
    """During a binary upgrade, one master is the other's child."""
    masters = {master.pid} | ({master.parent} if _title(master.parent).startswith(_MASTER) else set())
    parents = {stat.parent for stat in everybody.values()}
    # A worker just forked bears its master's title until it is ready, but has no children.
    grown = {pid for pid in parents & everybody.keys() if everybody[pid].parent in masters and _title(pid).startswith(_MASTER)}
    return masters | grown


def _workers(masters: set[int], name: str, everybody: dict[int, ProcessStat]) -> list[Worker]:
    found = []
    for stat in everybody.values():
        child = stat.parent in masters
        if stat.pid in masters or not (child or stat.name == name):
            continue
        title = _title(stat.pid)
        orphaned = not child and title.startswith(_WORKER) and not _title(stat.parent).startswith(_MASTER)
        if (child or orphaned) and not title.startswith(_HELPERS):
            found.append(Worker(stat.pid, stat.started, _STOPPING in title, orphaned))
    return found


def _title(pid: int) -> str:
    try:
        with (_PROC / str(pid) / "cmdline").open("rb") as file:
            return file.read(_TITLE_BYTES).partition(b"\0")[0].decode("utf-8", "replace")
    except OSError:
        return ""
