"""Kills a controller with SIGKILL again and again and compares its log with what it had been told. Run by `test_crash.py`.

    python tests/crash_driver.py BACKEND SEED CYCLES LOG

Each cycle forks a child (imports are paid once) that opens the log and does random calls in four tasks. It writes a line
before each call (`sent`) and one after it returned (`ack`). The parent reads a random number of lines, kills the child
in the middle of whatever it does, reads what is left in the pipe, and checks the log against the lines.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from functools import partial
from itertools import pairwise

import anyio
import trio  # noqa: F401  (its import is paid once, too)

from portfsm import Event, EventKind, PoolSpec, PortfsmError, open_manager, read_journal, replay

TASKS = 4
MOST_LINES = 90
LEASE_S = 0.2
"""So long the one before, who is dead, is waited for on a server."""
SPEC = PoolSpec("http", ports="1000-1019", hold_s=0.005)


# ---------------------------------------------------------------------- the child


class Child:
    def __init__(self, pipe: int, cycle: int, seed: int) -> None:
        self.pipe, self.cycle, self.seed = pipe, cycle, seed
        self.count = 0

    def say(self, kind: str, **facts: object) -> None:
        os.write(self.pipe, json.dumps({"line": kind, **facts}).encode() + b"\n")

    async def run(self, directory: str) -> None:
        self.say("start")
        async with open_manager(directory, pools=[SPEC], role="lead-or-wait", lease_s=LEASE_S) as self.manager:
            self.say("ack", call="open", seq=self.manager.seq, digest=self.manager.digest())
            async with anyio.create_task_group() as tasks:
                for number in range(TASKS):
                    tasks.start_soon(self.work, number)

    async def work(self, number: int) -> None:
        chance = random.Random(f"{self.seed}-{self.cycle}-{number}")
        held = [lease for view in self.manager.ports() for lease in self.manager.find(view.owner) if view.port % TASKS == number]
        while True:
            if held and chance.random() < 0.45:
                lease = held.pop(chance.randrange(len(held)))
                await self.call("release", partial(self.manager.release, lease), token=lease.token, port=lease.port)
            elif chance.random() < 0.6:
                self.count += 1
                owner = f"{self.cycle}-{number}-{self.count}"
                allocate = partial(self.manager.allocate, "http", owner=owner, service=chance.choice(["", "a", "b"]))
                lease = await self.call("allocate", allocate, owner=owner)
                held += [lease] if lease else []
            else:
                await self.operator(chance)

    async def operator(self, chance: random.Random) -> None:
        port, manager = chance.randrange(1000, 1020), self.manager
        name, call = chance.choice(
            [
                ("block", partial(manager.block, "http", port, reason="x", for_s=0.005)),
                ("unblock", partial(manager.unblock, "http", port)),
                ("hold", partial(manager.hold, "http", port, hold_s=chance.choice([0.002, 0.02]))),
                ("free", partial(manager.free, "http", port, reason="x")),
                ("sweep", manager.sweep),
            ]
        )
        await self.call(name, call, port=port)

    async def call(self, name: str, call: partial, **facts: object) -> object:
        self.say("sent", call=name, **facts)
        try:
            result = await call()
        except PortfsmError as error:
            self.say("refused", call=name, error=type(error).__name__)
            return None
        facts |= {name: getattr(result, name) for name in ("port", "token") if hasattr(result, name)}
        self.say("ack", call=name, seq=self.manager.seq, digest=self.manager.digest(), **facts)
        return result


# ---------------------------------------------------------------------- the parent


def cycle(directory: str, backend: str, seed: int, number: int, chance: random.Random) -> list[dict]:
    """One life and death of a child; the lines it got out."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        options = {"use_uvloop": True} if backend == "uvloop" else {}
        anyio.run(
            Child(theirs, number, seed).run, directory, backend="asyncio" if backend == "uvloop" else backend, backend_options=options
        )
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        wanted = chance.choice([1, 2, 3, chance.randrange(MOST_LINES), chance.randrange(MOST_LINES)])
        lines = [pipe.readline() for _ in range(wanted)]
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"the child ended by itself: {status}"
        lines += pipe.readlines()
    return [json.loads(line) for line in lines if line.endswith("\n")]


def check(events: list[Event], since: int, lines: list[dict]) -> None:
    """Acknowledged is in the log, and the log holds nothing that was not asked for."""
    by_seq = {event.seq: event for event in events}
    for line in lines:
        if line["line"] == "ack":
            assert line["seq"] <= len(events), f"acknowledged and lost: {line}"
            assert replay(events, until=line["seq"]).digest() == line["digest"], f"another state than was acknowledged: {line}"
            if line["call"] == "allocate":
                event = by_seq[line["token"]]
                assert (event.kind, event.owner, event.port) == ("allocated", line["owner"], line["port"]), line
    sent = [line for line in lines if line["line"] == "sent"]
    asked = {(line["call"], line.get("owner") or line.get("token") or line.get("port")) for line in sent}
    for event in events[since:]:
        assert _wanted(event, asked), f"nobody asked for {event}"


def _wanted(event: Event, asked: set[tuple[str, object]]) -> bool:
    match event.kind:
        case EventKind.ALLOCATED:
            return ("allocate", event.owner) in asked
        case EventKind.RELEASED:
            return ("release", event.token) in asked
        case EventKind.BLOCKED:
            return ("block", event.port) in asked
        case EventKind.HELD:
            return event.cause == "reboot" or ("hold", event.port) in asked
        case EventKind.UNBLOCKED | EventKind.FREED:
            return event.cause == "elapsed" or ({"unblocked": "unblock", "freed": "free"}[event.kind], event.port) in asked
        case _:
            return event.kind in {EventKind.OPENED, EventKind.POOL_DEFINED, EventKind.CLOSED}


def check_whole(events: list[Event]) -> None:
    """No port has two holders (replay checks each step), and none came back before its hold was over, by a second reckoning."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert all(earlier.ts <= later.ts for earlier, later in pairwise(events))
    openings = [event for event in events if event.kind is EventKind.OPENED]
    assert [event.data["epoch"] for event in openings] == sorted({event.data["epoch"] for event in openings})
    # Within one boot, log time must not move against the boot clock by one nanosecond, however often the log is opened.
    assert len({event.ts - event.data["boot_ns"] for event in openings}) <= 1
    until: dict[int, int] = {}
    for event in events:
        if event.kind in {EventKind.RELEASED, EventKind.HELD, EventKind.UNBLOCKED}:
            assert event.kind is not EventKind.HELD or event.until >= until.get(event.port, 0), f"a hold was shortened: {event}"
            until[event.port] = event.until
        elif event.kind is EventKind.FREED:
            ended = until.pop(event.port, 0)
            assert event.ts >= ended or event.cause == "operator", f"freed early: {event}"


def main(backend: str, seed: int, cycles: int, directory: str) -> None:
    chance = random.Random(seed)
    known = acknowledged = 0
    for number in range(cycles):
        lines = cycle(directory, backend, seed, number, chance)
        try:
            there = "://" in directory or (os.path.isdir(directory) and len(os.listdir(directory)) > 1)
            events = list(read_journal(directory)) if there else []
            check(events, known, lines)
            check_whole(events)
        except BaseException:
            print(f"backend {backend}, seed {seed}, cycle {number}", file=sys.stderr)
            raise
        known = len(events)
        acknowledged += sum(line["line"] == "ack" for line in lines)
    print(json.dumps({"cycles": cycles, "events": known, "acknowledged": acknowledged}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
