"""Leaders that are killed, frozen or cut off, through the manager: who takes over when, and what the log says afterwards."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from portfsm import read_journal, replay
from portfsm.errors import Fenced, JournalFull, JournalLocked, JournalUnreadable, OutcomeUnknown
from portfsm.journals._etcd_url import parse
from portfsm.journals._inspect import inspect_in
from portfsm.journals.etcd import EtcdJournal
from portfsm.manager import open_manager
from portfsm.specs import PoolSpec
from portfsm.states import EventKind
from portfsm.testing import ManualClock
from tests.conftest import lose_lead
from tests.etcd.leader import LEASE_S, SPEC, Leader
from tests.etcd.link import Link
from tests.etcd.server import Cluster


def lose(url: str) -> None:
    """The lease of whoever leads is over, and nobody told it."""
    lose_lead(EtcdJournal.from_url(url))


def check_log(url: str, acknowledged: dict[int, str]) -> None:
    """No gap, no epoch out of order, every acknowledged lease there, every step legal."""
    events = list(read_journal(url))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    epochs = [event.data["epoch"] for event in events if event.kind is EventKind.OPENED and event.data]
    assert all(before < after for before, after in pairwise(epochs))
    given = {event.seq: event.owner for event in events if event.kind is EventKind.ALLOCATED}
    assert acknowledged.items() <= given.items()
    assert replay(events).seq == len(events)
    report = inspect_in(EtcdJournal.from_url(url).shelf())
    assert report.damage == ()
    assert [segment.epoch for segment in report.segments] == sorted(segment.epoch for segment in report.segments)


@pytest.fixture
def leaders(url: str, tmp_path: Path) -> Iterator[list[Leader]]:
    found: list[Leader] = []
    yield found
    for leader in found:
        leader.kill()


def test_a_killed_leader_is_waited_for_longer_than_its_lease(url, leaders, tmp_path):
    first = Leader(url, "first", tmp_path)
    leaders.append(first)
    first.until("given", 50)
    second = Leader(url, "second", tmp_path)
    leaders.append(second)
    time.sleep(1.0)
    assert not [line for line in second.lines() if line[0] == "leads"]
    first.process.kill()
    killed = time.monotonic()
    took = second.until("leads") - killed
    assert took < LEASE_S + 0.5, took
    second.until("given", 50)
    second.process.kill()
    second.process.wait()
    check_log(url, first.given() | second.given())


def test_a_frozen_leader_goes_on_when_it_thaws(url, leaders, tmp_path):
    first = Leader(url, "first", tmp_path)
    leaders.append(first)
    first.until("given", 50)
    first.process.send_signal(signal.SIGSTOP)
    second = Leader(url, "second", tmp_path)
    leaders.append(second)
    second.until("given", 50)
    first.process.send_signal(signal.SIGCONT)
    first.until("ended")
    # What was being recorded when it froze may be in the log, and its caller is not told that it has a port.
    assert first.lines()[-1] in (["ended", "Fenced"], ["ended", "OutcomeUnknown"])
    second.process.kill()
    second.process.wait()
    check_log(url, first.given() | second.given())


@pytest.mark.anyio
async def test_a_takeover_under_load_loses_or_doubles_something(url, times):
    """Leader after leader loses its lease in the midst of its work, and finds out by its next append; nobody saw what is not in the log."""
    acknowledged: dict[int, str] = {}
    fenced = 0
    rounds = 50 * times  # on each loop
    pool = PoolSpec("http", ports="1024-65535", hold_s=SPEC.hold_s)  # of which each round uses some up
    for number in range(rounds):
        ended = anyio.Event()

        async def work(manager, worker: int, number: int = number, ended: anyio.Event = ended) -> None:
            nonlocal fenced
            try:
                for turn in range(10_000):
                    lease = await manager.allocate("http", owner=f"{number}-{worker}-{turn}")
                    acknowledged[lease.token] = lease.owner
                    if turn % 2:
                        await manager.release(lease)
            except Fenced:
                fenced += 1
                ended.set()

        with pytest.raises(Fenced) as stopped:
            async with open_manager(EtcdJournal.from_url(url), pools=[pool], holder=f"leader {number}") as manager:
                async with anyio.create_task_group() as tasks:
                    for worker in range(8):
                        tasks.start_soon(work, manager, worker)
                    before = len(acknowledged)
                    while len(acknowledged) < before + 20:  # noqa: ASYNC110  (other tasks' work)
                        await anyio.sleep(0.005)
                    await anyio.to_thread.run_sync(lose, url)
                await manager.allocate("http", owner="too late")
        assert stopped.value.epoch == manager.epoch
    assert fenced == 8 * rounds
    check_log(url, acknowledged)


@pytest.mark.anyio
async def test_a_stale_leader_overwrites_its_successor(url):
    """The first one is idle while another takes over and writes: its next append and its sign of life are refused."""
    async with open_manager(url, pools=[SPEC], holder="first") as first:
        held = await first.allocate("http", owner="a")
        await anyio.to_thread.run_sync(lose, url)
        async with open_manager(url, pools=[SPEC], holder="second") as second:
            assert second.epoch == first.epoch + 1
            assert second.find("a") == (held,)
            with pytest.raises(Fenced) as fenced:
                await first.allocate("http", owner="b")
            assert fenced.value.current == second.epoch
            assert "second" in str(fenced.value)
            assert not first.find("b")
            taken = await second.allocate("http", owner="c")
            assert taken.port != held.port
    check_log(url, {held.token: "a", taken.token: "c"})


@pytest.mark.anyio
async def test_who_waits_is_not_let_in_when_the_leader_leaves(url):
    took: list[float] = []

    async def wait() -> None:
        async with open_manager(url, role="lead-or-wait", holder="second") as second:
            took.append(time.monotonic() - left)
            assert second.find("a")

    async with anyio.create_task_group() as tasks, open_manager(url, pools=[SPEC], holder="first") as first:
        await first.allocate("http", owner="a")
        tasks.start_soon(wait)
        await anyio.sleep(0.5)
        with pytest.raises(JournalLocked):
            async with open_manager(url, holder="third"):
                pass
        assert not took
        left = time.monotonic()
    assert took[0] < 1.5


@pytest.mark.anyio
async def test_an_idle_leader_loses_its_lease(url):
    async with open_manager(url, pools=[SPEC], lease_s=2.0, holder="first") as first:
        await anyio.sleep(3.5)
        with pytest.raises(JournalLocked):
            async with open_manager(url, holder="second"):
                pass
        await first.allocate("http", owner="a")


@pytest.mark.anyio
async def test_a_hold_is_shorter_on_the_next_machine(url):
    """The other machine's clocks read otherwise: the hold starts over in full there."""
    async with open_manager(url, pools=[SPEC], clock=ManualClock()) as first:
        lease = await first.allocate("http", owner="a")
        await first.release(lease)
        before = first.port("http", lease.port).until
    clock = ManualClock()
    clock.reboot()
    clock.step_wall(3000.0)
    async with open_manager(url, pools=[SPEC], clock=clock) as second:
        assert second.port("http", lease.port).until >= before
        clock.advance(SPEC.hold_s - 1)
        assert not await second.sweep()
        clock.advance(2)
        assert await second.sweep()


@pytest.mark.anyio
async def test_a_cluster_nearly_full_gives_ports_or_takes_none_back(tmp_path):
    with Cluster(tmp_path) as cluster:
        async with open_manager(cluster.url("log", quota_mib=4), pools=[SPEC], lease_s=2.0) as manager:
            lease = await manager.allocate("http", owner="a")
            for _ in range(6):
                await anyio.to_thread.run_sync(lambda: cluster.members[0].post("kv/put", {"key": "Zg==", "value": "A" * (1 << 20)}))
            with anyio.fail_after(10), pytest.raises(JournalFull):
                while True:  # it looks with each sign of life
                    await manager.release(await manager.allocate("http", owner="b"))
                    await anyio.sleep(0.1)
            assert (await manager.allocate("http", owner="a")) == lease
            await manager.release(lease)
            assert not manager.find("a")


@pytest.mark.anyio
async def test_a_lease_is_told_of_that_an_append_did_not_prolong(etcd, url):
    """Appends get through and signs of life do not: etcd's lease runs out all the same, and the next leader may be there."""
    with Link(etcd.members[0].port) as link:
        through, clock = f"etcd://{link.address}/{parse(url).name}", ManualClock()
        async with open_manager(through, pools=[SPEC], clock=clock, lease_s=8.0) as manager:
            await manager.allocate("http", owner="a")
            link.refused = b"/lease/keepalive"
            clock.advance(8.0)
            with pytest.raises(JournalUnreadable):
                await manager.allocate("http", owner="b")
            link.refused = None
            assert (await manager.allocate("http", owner="c")).owner == "c"


@pytest.mark.anyio
async def test_an_unknown_outcome_is_told_as_another(etcd, url):
    with Link(etcd.members[0].port) as link:
        through = f"etcd://{link.address}/{parse(url).name}"
        with pytest.raises(OutcomeUnknown):
            async with open_manager(through, pools=[SPEC], lease_s=2.0) as manager:
                link.answers = 0
                with pytest.raises(OutcomeUnknown):
                    await manager.allocate("http", owner="a")
                await manager.allocate("http", owner="b")
    await anyio.to_thread.run_sync(lose, url)
    async with open_manager(url, pools=[SPEC]) as manager:
        assert len(manager.find("a")) == 1  # it had arrived, and a repeat gives the same
        assert (await manager.allocate("http", owner="a")).token == manager.find("a")[0].token


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_dead_member_stops_the_manager(tmp_path):
    """Raft's leader is killed under load: the manager goes on with the others, and nothing acknowledged is lost."""
    with Cluster(tmp_path, 3) as cluster:
        acknowledged: dict[int, str] = {}
        killed = False
        async with open_manager(cluster.url("log"), pools=[SPEC]) as manager:
            for number in range(300):
                lease = await manager.allocate("http", owner=f"replica-{number}")
                acknowledged[lease.token] = lease.owner
                if number == 100:
                    await anyio.to_thread.run_sync(lambda: cluster.leader().kill())
                    killed = True
        assert killed
        check_log(cluster.url("log"), acknowledged)
