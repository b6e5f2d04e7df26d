"""One leads, others wait: who takes over when, what the former leader may still do, and what becomes of holds on the way."""

from __future__ import annotations

import time

import anyio
import pytest

from portfsm import read_journal, replay
from portfsm.errors import Fenced, InvalidValue, JournalLocked, JournalUnreadable
from portfsm.journals import FileJournal
from portfsm.journals.postgres import PostgresJournal
from portfsm.manager import open_manager
from portfsm.states import PortState
from portfsm.testing import ManualClock
from tests.postgres.conftest import SPEC

pytestmark = pytest.mark.anyio

LEASE_S = 0.6


def machine(*, ahead_s: float = 0.0) -> ManualClock:
    """The clocks of another machine: another boot, another reading, a wall clock that is wrong by so much."""
    clock = ManualClock()
    clock.reboot()
    clock.step_wall(ahead_s)
    return clock


async def test_a_second_leader_is_let_in_while_the_first_one_lives(postgres_url):
    async with open_manager(postgres_url, pools=[SPEC], holder="first", lease_s=LEASE_S) as first:
        await anyio.sleep(2 * LEASE_S)  # idle: only its signs of life keep the lead
        with pytest.raises(JournalLocked) as refused:
            async with open_manager(postgres_url, holder="second", lease_s=LEASE_S):
                pass
        assert refused.value.holder == "first"
        assert "lead-or-wait" in str(refused.value)
        await first.allocate("http", owner="a")


@pytest.mark.parametrize("kind", ["file", "memory", "postgres"])
async def test_who_waits_is_not_let_in_when_the_leader_leaves(kind, request, log_of):
    target = log_of(kind)
    told: list[int] = []

    async def wait() -> None:
        async with open_manager(target(), role="lead-or-wait", holder="second", lease_s=LEASE_S) as second:
            told.append(second.epoch)
            assert second.find("a")

    async with anyio.create_task_group() as tasks, open_manager(target(), pools=[SPEC], holder="first", lease_s=LEASE_S) as first:
        await first.allocate("http", owner="a")
        tasks.start_soon(wait)
        await anyio.sleep(0.5)
        assert not told
        epoch = first.epoch
        left = time.monotonic()
    assert told == [epoch + 1]
    assert time.monotonic() - left < LEASE_S + 0.5


@pytest.fixture
def log_of(tmp_path, request):
    """By kind of journal: what makes one more handle on one log."""

    def handles(kind: str):
        if kind == "postgres":
            url = request.getfixturevalue("postgres_url")
            return lambda: url
        if kind == "file":
            return lambda: FileJournal(tmp_path / "log")
        return request.getfixturevalue("memory_log").handle

    return handles


async def test_a_stale_leader_records_or_shows_something(postgres_url, told):
    """It slept through its lease: the next one takes over, its own append is refused, and it stops."""
    silent = Silent.from_url(postgres_url, lease_s=0.3)
    async with open_manager(silent, pools=[SPEC], holder="stale") as stale:
        lease = await stale.allocate("http", owner="a")
        async with open_manager(postgres_url, role="lead-or-wait", holder="next") as leader:
            assert leader.epoch == stale.epoch + 1
            mine = await leader.allocate("http", owner="b")
            with pytest.raises(Fenced) as refused:
                await stale.allocate("http", owner="c")
            assert (refused.value.epoch, refused.value.current) == (stale.epoch, leader.epoch)
            assert "'next'" in str(refused.value)
            assert not stale.find("c")
            with pytest.raises(Fenced):
                await stale.release(lease)
            with pytest.raises(Fenced):
                await stale.allocate("http", owner="a")
            assert leader.find("a") == (lease,)
            assert leader.find("b") == (mine,)
    owners = [event.owner for event in read_journal(postgres_url) if event.kind == "allocated"]
    assert owners == ["a", "b"]
    assert "portfsm.stopped" in [line["event"] for line in told]


async def test_a_leader_that_stood_still_answers_out_of_its_memory(postgres_url):
    """The process stands still for longer than its lease; the next call comes before it has noticed anything."""
    async with open_manager(postgres_url, pools=[SPEC], holder="stale", lease_s=0.3) as stale:
        lease = await stale.allocate("http", owner="a", ttl_s=60)
        time.sleep(0.4)  # noqa: ASYNC251  (as a collection of garbage does, or a machine that is suspended)
        other = PostgresJournal.from_url(postgres_url)
        other.open("next")
        with pytest.raises(Fenced):
            await stale.renew(lease)
        with pytest.raises(Fenced):
            await stale.allocate("http", owner="a", ttl_s=60)
        other.close()


class Silent(PostgresJournal):
    """A leader whose machine sleeps: no sign of life but what is written."""

    def renew(self) -> None:
        pass


async def test_an_idle_leader_does_not_notice_that_it_was_superseded(postgres_url, postgres, told):
    async with open_manager(postgres_url, pools=[SPEC], holder="idle", lease_s=LEASE_S) as idle:
        name = postgres_url.partition("log=")[2]
        postgres.ask("update portfsm_log set epoch = epoch + 1, holder = 'thief' where name = %(name)s", name=name)
        with anyio.fail_after(LEASE_S * 2), pytest.raises(Fenced):
            async for _ in idle.watch():
                pass
        with pytest.raises(Fenced, match="thief"):
            await idle.allocate("http", owner="a")


@pytest.mark.parametrize("ahead_s", [-86_400.0, -3.0, 0.0, 3.0, 86_400.0])
async def test_a_hold_is_shortened_by_a_machine_with_another_clock(postgres_url, ahead_s):
    """The next leader's clock is behind or ahead: the hold begins anew there, in full, by that machine's clock."""
    here, there = ManualClock(), machine(ahead_s=ahead_s)
    async with open_manager(postgres_url, pools=[SPEC], clock=here) as manager:
        lease = await manager.allocate("http", owner="a", port=30005)
        await manager.release(lease)
        promised = manager.port("http", 30005).until
        here.advance(2)
    async with open_manager(postgres_url, clock=there) as manager:
        assert manager.port("http", 30005).until >= promised
        there.advance(SPEC.hold_s - 0.001)
        await manager.sweep()
        assert manager.port("http", 30005).state is PortState.QUARANTINED
        here.advance(5)
    async with open_manager(postgres_url, clock=here) as manager:  # and back again
        here.advance(SPEC.hold_s - 0.001)
        await manager.sweep()
        assert manager.port("http", 30005).state is PortState.QUARANTINED
        here.advance(0.002)
        await manager.sweep()
        assert manager.port("http", 30005).state is PortState.FREE
    events = list(read_journal(postgres_url))
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    replay(events)


async def test_holds_go_by_the_clocks_of_several_machines(postgres_url):
    with pytest.raises(InvalidValue, match="after_reboot"):
        async with open_manager(postgres_url, after_reboot="remaining"):
            pass


@pytest.mark.parametrize("role", ["follow", "", None, 7, "LEAD"])
async def test_a_role_that_is_none_opens_the_log(tmp_path, role):
    with pytest.raises(InvalidValue, match="lead-or-wait"):
        async with open_manager(tmp_path / "log", role=role):
            pass
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("lease_s", [0, -1.0, float("nan"), "10"])
async def test_a_lease_of_no_length_opens_the_log(postgres_url, lease_s):
    with pytest.raises(InvalidValue, match="lease_s"):
        async with open_manager(postgres_url, lease_s=lease_s):
            pass
    assert list(read_journal(postgres_url)) == []


async def test_who_waits_gives_up_because_the_server_restarts_meanwhile(postgres_url, link, through_link):
    told: list[int] = []

    async def wait() -> None:
        async with open_manager(through_link, role="lead-or-wait", holder="second", lease_s=LEASE_S) as second:
            told.append(second.epoch)

    async with open_manager(postgres_url, pools=[SPEC], holder="first", lease_s=LEASE_S), anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(0.3)
        link.target, target = 1, link.target  # nobody listens there
        link.cut()
        await anyio.sleep(0.5)
        assert not told
        link.target = target
        tasks.cancel_scope.deadline = anyio.current_time() + 0.4
    assert not told
    with anyio.fail_after(5):
        await wait()
    assert told == [2]


async def test_a_server_that_is_not_there_is_waited_for_without_end(link, through_link):
    link.target = 1
    with anyio.fail_after(20), pytest.raises(JournalUnreadable, match="cannot be reached"):
        async with open_manager(through_link, role="lead-or-wait"):
            pass
