"""A proxy of a few numbered workers, small enough that everything that can happen to it can be tried.

One port is asked about. Requests sit idle on client connections (no answer shows them), in the backend's queue, or at the
slot, trying. Between any two of the witness's questions anything may happen: requests come and move on, the slot is put into
maintenance, a new worker takes over, the old one gets its signal late or never, and exits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import attrs

from portfsm.evidence import Verdict
from portfsm.witnesses._haproxy_answers import Worker, read_listing, read_worker
from portfsm.witnesses._haproxy_rules import judge, unsettled

HOST, PORT = "127.0.0.1", 21000
OLD, SINCE, NEW = 10, 15, 20
"""Generations: with the slot, the withdrawal, without it."""
MOST = 3
"""Requests in a worker."""

LAST_RELOAD = 3
"""One that may fail, and two that do not."""

COLUMNS = "be_id be_name srv_id srv_name srv_addr srv_admin_state srv_agent_state srv_fqdn srv_port"
HEAD = "#<PID> <type> <reloads> <uptime> <version>"


@attrs.frozen(cache_hash=True)
class Process:
    pid: int
    generation: int
    relays: bool
    slot: str
    """`up`, `maint`, or empty."""
    old: bool = False
    stopping: bool = False
    requests: tuple[str, ...] = ()
    """Each `idle`, `queued` or `trying`, in this order."""

    def with_requests(self, *requests: str) -> Process:
        return attrs.evolve(self, requests=tuple(sorted(requests)))


@attrs.frozen(cache_hash=True)
class World:
    processes: tuple[Process, ...]
    reloads: int = 0

    def changed(self, process: Process, **changes) -> World:
        return self.put(process, attrs.evolve(process, **changes))

    def put(self, process: Process, *others: Process) -> World:
        kept = [it for it in self.processes if it.pid != process.pid]
        return attrs.evolve(self, processes=tuple(sorted([*kept, *others], key=lambda it: it.pid)))


# ---------------------------------------------------------------------- what can happen


@lru_cache(None)
def happenings(world: World, *, relays: bool) -> tuple[tuple[str, World], ...]:
    """Every next step, by name."""
    return tuple(_happenings(world, relays))


def _happenings(world: World, relays: bool) -> Iterator[tuple[str, World]]:  # noqa: FBT001  (by position)
    for process in world.processes:
        yield from _requests(world, process)
        if process.slot == "up" and not process.stopping:
            yield "maintenance", world.changed(process, slot="maint")
        if process.old and not process.stopping:
            yield "signal", world.changed(process, stopping=True)
        if process.stopping:
            yield "exit", world.put(process)
    if world.reloads == 0:
        yield "failed reload", attrs.evolve(world, reloads=1)
    if world.reloads < LAST_RELOAD:
        former = tuple(attrs.evolve(process, old=True) for process in world.processes)
        pid = max((process.pid for process in world.processes), default=1) + 1
        yield "reload", World((*former, Process(pid, NEW, relays, "")), max(2, world.reloads + 1))


def _requests(world: World, it: Process) -> Iterator[tuple[str, World]]:
    if len(it.requests) < MOST and not it.stopping and it.slot:
        yield "request", world.put(it, it.with_requests(*it.requests, "idle"))
    for i, request in enumerate(it.requests):
        rest = it.requests[:i] + it.requests[i + 1 :]
        yield "ends", world.put(it, it.with_requests(*rest))
        if request == "idle" and not (it.stopping and it.relays):
            yield "routed", world.put(it, it.with_requests(*rest, "queued"))
        elif request == "queued" and it.slot == "up":
            yield "chosen", world.put(it, it.with_requests(*rest, "trying"))
        elif request == "trying":
            yield "connect", world
            yield "redispatched", world.put(it, it.with_requests(*rest, "queued"))


@lru_cache(None)
def dangerous(world: World, *, relays: bool) -> bool:
    """Whether anything that can still happen is a connection to the port."""
    seen, todo = {world}, [world]
    while todo:
        for name, after in happenings(todo.pop(), relays=relays):
            if name == "connect":
                return True
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return False


# ---------------------------------------------------------------------- what it answers


def listing(world: World) -> str:
    rows = {
        old: "".join(f"{it.pid} worker {int(old)} 0d00h00m01s 2.8\n" for it in world.processes if it.old == old) for old in (False, True)
    }
    old = f"# old workers\n{rows[True]}" if rows[True] else ""
    return f"{HEAD}\n99 master {world.reloads} [failed: 0] 0d00h00m01s 2.8\n# workers\n{rows[False]}{old}# programs\n\n"


def answer(world: World, pid: int, question: str) -> str | None:
    """One section; None from a process that has gone."""
    it = next((process for process in world.processes if process.pid == pid), None)
    if it is None:
        return None
    if question == "info":
        return f"Pid: {pid}\nStopping: {int(it.stopping)}"
    if question == "table":
        row = f"\n1 a 1 s {HOST} {int(it.slot == 'maint')} 0 - {PORT}" if it.slot else ""
        return f"1\n# {COLUMNS}{row}"
    streams = [("<none>", 2) if request == "queued" else ("s", 5) for request in it.requests if request != "idle"]
    return "\n".join(f"0x1: proto=tcpv4 src=x fe=fe be=a srv={server} ts=00 epoch=0 scf=[8,] scb=[{state},1h]" for server, state in streams)


# ---------------------------------------------------------------------- every schedule


@attrs.frozen(cache_hash=True)
class Asked:
    """How far one round has come, and what was answered."""

    before: str
    pids: tuple[int, ...]
    said: tuple[str | None, ...] = ()


def explore(*, relays: bool, order: tuple[str, ...] = ("info", "table", "streams"), old_too: bool = True) -> tuple[int, int, World | None]:
    """All schedules of one round: how many ends, how many of them clear, and the first world in which that was wrong."""
    start: tuple[World, Asked | None] = (World((Process(1, OLD, relays, "up"),)), None)
    seen, todo, ends, clear = {start}, [start], 0, 0
    while todo:
        world, asked = todo.pop()
        following = [(after, asked) for name, after in happenings(world, relays=relays) if name != "connect"]
        if asked is None:
            found = read_listing(listing(world))
            following.append((world, Asked(listing(world), (*found.workers, *(found.old if old_too else ())))))
        elif len(asked.said) < len(asked.pids) * len(order):
            pid, question = asked.pids[len(asked.said) // len(order)], order[len(asked.said) % len(order)]
            following.append((world, attrs.evolve(asked, said=(*asked.said, answer(world, pid, question)))))
        else:
            ends += 1
            if verdict(asked, listing(world), order, relays) is Verdict.CLEAR:
                clear += 1
                if dangerous(world, relays=relays):
                    return ends, clear, world
        fresh = [node for node in following if node not in seen]
        seen.update(fresh)
        todo += fresh
    return ends, clear, None


@lru_cache(None)
def verdict(asked: Asked, after: str, order: tuple[str, ...], relays: bool) -> Verdict:  # noqa: FBT001  (cached: all by position)
    before, last = read_listing(asked.before), read_listing(after)
    workers, silent = [], []
    for i, pid in enumerate(asked.pids):
        worker = _worker(pid, dict(zip(order, asked.said[i * len(order) :], strict=False)), old=pid in before.old, relays=relays)
        workers += [worker] if worker else []
        silent += [] if worker else [pid]
    if unsettled(before, last, silent):
        return Verdict.UNKNOWN
    alive = {*last.workers, *last.old}
    return judge([worker for worker in workers if worker.pid in alive], HOST, PORT, SINCE).verdict


def _worker(pid: int, said: dict[str, str | None], *, old: bool, relays: bool) -> Worker | None:
    if None in said.values():
        return None
    sections = [said["info"], f"GEN={OLD if pid == 1 else NEW}", f"RELAY={int(relays)}", said["table"], said.get("streams", "")]
    return read_worker(pid, "".join(f"{section}\n\n" for section in sections), old=old)
