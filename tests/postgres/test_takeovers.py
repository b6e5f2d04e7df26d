"""The lead changes hands under load, again and again: nothing is lost, nothing is out of order, nobody who was superseded writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import anyio
import anyio.to_thread
import psycopg
import pytest

from portfsm import PoolSpec, open_manager, read_journal, replay
from portfsm.errors import Fenced
from portfsm.journals.postgres import PostgresJournal
from tests.cli import story

SPEC = PoolSpec("http", ports="30000-32999", hold_s=0.005)
TAKE_OVERS = 100
CALLERS = 4


class Usurper(PostgresJournal):
    """Takes the lead as if the leader's lease had run out, while that is in the middle of its work."""

    def open(self, holder: str) -> int:
        with psycopg.connect(**self.place.parameters, autocommit=True) as connection:
            connection.execute("update portfsm_log set lease_until = 'epoch', epoch = epoch + 1 where name = %s", [self.place.log])
        return super().open(holder)


class Fleet:
    """Managers that take the lead from one another, and what their callers were told."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged: list[tuple[int, str]] = []
        self.refused = 0
        self.shown: set[int] = set()

    async def lead(self, number: int, *, task_status) -> None:
        """Serve until superseded."""
        async with open_manager(Usurper.from_url(self.url), pools=[SPEC], holder=f"leader-{number}") as manager:
            task_status.started()
            async with anyio.create_task_group() as tasks:
                for caller in range(CALLERS):
                    tasks.start_soon(self.call, manager, f"{number}-{caller}")
            with pytest.raises(Fenced):
                await manager.sweep()
            self.shown |= {view.token for view in manager.ports()}

    async def call(self, manager, name: str) -> None:
        count = 0
        try:
            while True:
                count += 1
                lease = await manager.allocate("http", owner=f"{name}-{count}")
                self.acknowledged.append((lease.token, lease.owner))
                await manager.release(lease)
        except Fenced:
            self.refused += 1

    async def run(self, take_overs: int) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(take_overs):
                await tasks.start(self.lead, number)
                await anyio.sleep(0.01)
            last = Usurper.from_url(self.url)
            await anyio.to_thread.run_sync(last.open, "last")
        last.close()


@pytest.mark.anyio
async def test_a_change_of_leaders_loses_or_invents_something(postgres_url, anyio_backend, times):
    take_overs = TAKE_OVERS * times
    fleet = Fleet(postgres_url)
    await fleet.run(take_overs)
    events = list(read_journal(postgres_url))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    epochs = [event.data["epoch"] for event in events if event.kind == "opened"]
    assert epochs == list(range(2, 2 * take_overs + 1, 2))
    assert fleet.refused == take_overs * CALLERS, "every stale leader, and every caller of it"
    begun = {event.seq: event.owner for event in events if event.kind == "allocated"}
    assert len(fleet.acknowledged) > take_overs
    assert all(begun.get(token) == owner for token, owner in fleet.acknowledged)
    assert fleet.shown <= {0, *begun}, "a view showed a lease that is not in the log"
    leaders = [event.data["holder"] if event.kind == "opened" else "" for event in events]
    number = -1
    for event, leader in zip(events, leaders, strict=True):
        number = int(leader.removeprefix("leader-")) if leader else number
        assert not event.owner or event.kind != "allocated" or event.owner.startswith(f"{number}-"), "written by a stale leader"
    replay(events)


LEADER = """
import json, sys, time
import anyio
from portfsm import PoolSpec, open_manager
async def lead(url, role, lease_s):
    async with open_manager(url, pools=[PoolSpec("http", ports="30000-30999", hold_s=0.1)], role=role, lease_s=float(lease_s)) as manager:
        print(json.dumps({"epoch": manager.epoch, "at": time.monotonic()}), flush=True)
        number = 0
        while True:
            number += 1
            lease = await manager.allocate("http", owner=f"{manager.epoch}-{number}")
            print(json.dumps({"token": lease.token, "owner": lease.owner}), flush=True)
            await manager.release(lease)
            await anyio.sleep(0.001)
anyio.run(lead, *sys.argv[1:4], backend=sys.argv[4])
"""


def said(process: subprocess.Popen) -> dict:
    """The next thing a leader says that is no line of its log."""
    return json.loads(next(line for line in process.stdout if line.startswith("{")))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_killed_leader_is_waited_for_too_long(postgres_url, loop):
    """kill -9; who waits leads within the lease and half a second, and knows every lease that was acknowledged."""
    lease_s = 1.5
    processes = []

    def start(role: str) -> subprocess.Popen:
        command = [sys.executable, "-c", LEADER, postgres_url, role, str(lease_s), loop]
        processes.append(subprocess.Popen(command, env=story.environment(), stdout=subprocess.PIPE, text=True))
        return processes[-1]

    try:
        first = start("lead")
        lines = [said(first) for _ in range(20)]
        second = start("lead-or-wait")
        assert "standing_by" in second.stdout.readline()
        killed = time.monotonic()
        first.send_signal(signal.SIGKILL)
        lines += [json.loads(line) for line in first.stdout if line.endswith("\n")]
        leads = said(second)
        assert leads["epoch"] == lines[0]["epoch"] + 1
        assert leads["at"] - killed < lease_s + 0.5
        assert said(second)["owner"].startswith(f"{leads['epoch']}-")
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    begun = {event.seq: event.owner for event in read_journal(postgres_url) if event.kind == "allocated"}
    assert all(begun[line["token"]] == line["owner"] for line in lines[1:])
