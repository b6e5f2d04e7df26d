"""The processes of one nginx, as /proc shows them. Blocking: call it in a thread.

A family is the master, during a binary upgrade both masters, and their workers. Workers whose master was killed are children of
somebody else and go on serving: they are found by name and counted in, for they may be this one's.
"""

from __future__ import annotations

from pathlib import Path

from portfsm.witnesses._asking import NoAnswerError
from portfsm.witnesses._exits import ProcessStat, read_stat
from portfsm.witnesses._nginx_rules import Family, Worker

__all__ = ["family_of", "read_pid"]

_MASTER = "nginx: master process"
_WORKER = "nginx: worker process"
_HELPERS = ("nginx: cache manager process", "nginx: cache loader process")
"""They never open a connection to a replica."""
_STOPPING = "is shutting down"
_PROC = Path("/proc")
_AT_REST = b"\nSigBlk:\t0000000000000000\n"
_PID_BYTES = 64
_TITLE_BYTES = 256


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
    at_rest = _is_at_rest(pid)  # before the others are looked at: whom it had to tell to stop it has told
    everybody = {stat.pid: stat for stat in _processes()}
    master = everybody.get(pid)
    if master is None or master.dead:
        raise NoAnswerError(f"no process {pid}: nginx is not running, or not under this pid")
    if not _title(pid).startswith(_MASTER):
        raise NoAnswerError(f"process {pid} is not the master of an nginx (with `master_process off` nothing can be told)")
    masters = _masters(master, everybody)
    workers = tuple(_workers(masters, master.name, everybody, {pid} if at_rest else set()))
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


def _workers(masters: set[int], name: str, everybody: dict[int, ProcessStat], resting: set[int]) -> list[Worker]:
    found = []
    for stat in everybody.values():
        child = stat.parent in masters
        if stat.pid in masters or not (child or stat.name == name):
            continue
        title = _title(stat.pid)
        orphaned = not child and title.startswith(_WORKER) and not _title(stat.parent).startswith(_MASTER)
        if (child or orphaned) and not title.startswith(_HELPERS):
            quiet = stat.state == "S" and stat.parent in resting
            found.append(Worker(stat.pid, stat.started, stat.parent, _STOPPING in title, orphaned, quiet))
    return found


def _title(pid: int) -> str:
    try:
        with (_PROC / str(pid) / "cmdline").open("rb") as file:
            return file.read(_TITLE_BYTES).partition(b"\0")[0].decode("utf-8", "replace")
    except OSError:
        return ""


def _is_at_rest(pid: int) -> bool:
    """Whether a master waits for its next signal. In all it does meanwhile, a pause between two steps included, it has signals blocked."""
    try:
        return _AT_REST in (_PROC / str(pid) / "status").read_bytes()
    except OSError:
        return False
