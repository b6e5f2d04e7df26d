"""What a proxy loses, keeps or brings back by itself: a stale state file, workers without end, a signal that never came."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from portfsm import Lease, PoolSpec, PortManager, open_manager
from portfsm.errors import ReloadFailed
from portfsm.haproxy import reload, write
from tests.evidence.clients import Tally, fresh, go_on, held_back
from tests.evidence.scene import HOST, SERVICES, Controller, Edge, controller
from tests.evidence.test_held import SHORT_HOLD_S, freed, outlasts, stays
from tests.witnesses.helpers import free_port, until
from tests.witnesses.real import get, running

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ALPHA, BETA = SERVICES


# ---------------------------------------------------------------------- a stale state file


async def command(edge: Edge, line: str) -> str:
    (pid,) = await edge.pids("worker")
    return await edge.ask(f"@!{pid} {line}")


async def save_state(edge: Edge) -> None:
    (edge.directory / "state").write_text((await command(edge, "show servers state")).strip() + "\n")


async def statuses(edge: Edge, count: int) -> list[int]:
    found = []
    for _ in range(count):
        async with await anyio.connect_tcp(HOST, edge.front) as stream:
            found.append(await get(stream, "/a/"))
    return found


def prepare_slots(edge: Edge) -> None:
    """Slots that are filled while it runs, and whose state every reload loads from a file."""
    edge.prepare()
    text = (edge.config / "1.cfg").read_text().replace("global\n", f"global\n    server-state-file {edge.directory}/state\n", 1)
    backend = "backend slots\n    load-server-state-from-file global\n    server-template slot 2 127.0.0.1:1 disabled\n"
    (edge.config / "1.cfg").write_text(f"{text}    default_backend slots\n{backend}")


@contextlib.asynccontextmanager
async def slots(log: Path, edge: Edge, **options) -> AsyncIterator[tuple[PortManager, Lease]]:
    """A replica in a slot, in the state file too."""
    pool = PoolSpec("http", ports=[free_port()], hold_s=SHORT_HOLD_S)
    async with open_manager(log, pools=[pool]) as manager:
        lease = await manager.allocate("http", owner="a-1", service="a")
        prepare_slots(edge)
        write(edge.ports_file, edge.rendered([], manager.seq))
        await edge.start()
        await manager.join(edge.witness(**options))
        await command(edge, f"set server slots/slot1 addr {HOST} port {lease.port}")
        await command(edge, "set server slots/slot1 state ready")
        await save_state(edge)
        yield manager, lease


async def test_a_stale_state_file_that_brings_a_port_back(edge, tmp_path):
    """Clear in the running worker, in service in the file that the next reload loads: held, until that is written again."""
    async with slots(tmp_path / "log", edge, state_file=edge.directory / "state") as (manager, lease):

        async def says(text: str) -> bool:
            return text in manager.explain("http", lease.port)

        async def free() -> bool:
            return manager.port("http", lease.port).state.value == "FREE"

        await manager.release(lease)
        write(edge.ports_file, edge.rendered([], manager.seq))
        await until(lambda: says("the state file has slots/slot1 in service there"))
        await until(lambda: says("its hold ended"))
        assert await manager.sweep() == ()
        await edge.reload()
        await until(lambda: says("slots/slot1 in service"))
        assert not await free(), "it came back, and may have been taken out again"
        await command(edge, "set server slots/slot1 state maint")
        await save_state(edge)
        await until(free)
        await edge.reload()
        async with running("b", lease.port) as other:
            assert await statuses(edge, 4) == [503] * 4
        assert other.wrong == 0


async def test_a_test_of_state_files_that_would_pass_without_a_look(edge, tmp_path):
    """The negative control: a witness that does not know of the file frees the port, and the reload brings it back."""
    async with slots(tmp_path / "log", edge) as (manager, lease):
        await manager.release(lease)
        write(edge.ports_file, edge.rendered([], manager.seq))

        async def free() -> bool:
            return manager.port("http", lease.port).state.value == "FREE"

        await until(free)
        await edge.reload()
        async with running("b", lease.port) as other:
            assert await statuses(edge, 4) == [404] * 4
        assert other.wrong == 4


# ---------------------------------------------------------------------- workers without end


def without_hard_stop(edge: Edge) -> None:
    text = (edge.config / "1.cfg").read_text()
    (edge.config / "1.cfg").write_text(re.sub(r"(?m)^ *hard-stop-after .*\n", "", text))
    assert "hard-stop" not in (edge.config / "1.cfg").read_text()


async def test_a_worker_that_nothing_stops_is_taken_for_gone(plain_edge, tmp_path):
    """Without `hard-stop-after` and without the relay line: it holds the port for as long as it has a client, whatever the clock says."""
    tally = Tally()
    async with controller(tmp_path / "log", plain_edge, hold_s=SHORT_HOLD_S, by_reload=True) as scene:
        without_hard_stop(plain_edge)
        await scene.publish()
        (worker,) = await plain_edge.pids("worker")
        held = await held_back(plain_edge, tally, idle=2, half=2)
        lease = scene.of(ALPHA)[0]
        await scene.die(lease)
        await scene.publish()
        await outlasts(scene, lease, f"old worker {worker} still has {ALPHA}/", "until it exits")
        assert worker in await plain_edge.pids("old")
        await go_on(held)
        await freed(scene, lease)
        assert not os.path.exists(f"/proc/{worker}")  # noqa: ASYNC240  (no disk behind it)
        await scene.start(BETA, port=lease.port)
        await fresh(plain_edge, tally, 10)
    assert tally.wrong == 0


async def test_a_worker_that_nothing_stops_keeps_what_it_relays(edge, tmp_path):
    """With the relay line its ports are free while it lives, and its clients get right answers from others."""
    tally = Tally()
    async with controller(tmp_path / "log", edge, by_reload=True) as scene:
        without_hard_stop(edge)
        await scene.publish()
        (worker,) = await edge.pids("worker")
        held = await held_back(edge, tally, idle=4, half=4)
        lease = scene.of(ALPHA)[0]
        await scene.die(lease)
        await scene.publish()
        await freed(scene, lease)
        assert worker in await edge.pids("old")
        await scene.start(BETA, port=lease.port)
        await go_on(held)
    assert (tally.wrong, tally.lost) == (0, 0)


# ---------------------------------------------------------------------- signals that never came


async def test_a_reload_that_nobody_heard_counts_as_done(edge, tmp_path):
    """The file is written and the process still runs the one before, whatever the controller believes."""
    tally = Tally()
    async with controller(tmp_path / "log", edge, hold_s=SHORT_HOLD_S, by_reload=True) as scene:
        lease = scene.of(ALPHA)[0]
        await scene.die(lease)
        scene.write(edge)
        await outlasts(scene, lease, "in service at that address")
        await scene.publish()
        await freed(scene, lease)
        await scene.start(BETA, port=lease.port)
        await fresh(edge, tally, 10)
    assert tally.wrong == 0


async def test_a_reload_of_another_file_counts_as_done(edge, tmp_path):
    """The file that was written is not the one that the master reads: the reload succeeds, and the call that made it says no."""
    async with controller(tmp_path / "log", edge, hold_s=SHORT_HOLD_S, by_reload=True) as scene:
        lease, before = scene.of(ALPHA)[0], scene.manager.seq
        await scene.die(lease)
        write(edge.directory / "elsewhere.cfg", edge.rendered(list(scene.routed), scene.manager.seq))
        with pytest.raises(ReloadFailed, match="the one that the master was started with") as failure:
            await reload(edge.master_socket, generation=scene.manager.seq, wait_s=0.5)
        assert failure.value.running is not None
        assert failure.value.running <= before
        await stays(scene, lease)
        await scene.publish()
        await freed(scene, lease)


async def stranded(scene: Controller, edge: Edge, lease: Lease) -> int:
    """A worker that sleeps while its master is killed and another takes its place."""
    (worker,) = await edge.pids("worker")
    os.kill(worker, signal.SIGSTOP)
    await scene.die(lease)
    assert edge.process is not None
    edge.process.kill()
    edge.process.wait()
    scene.write(edge)
    await edge.start()
    return worker


async def test_a_worker_that_its_master_has_lost_is_taken_for_gone(edge, tmp_path):
    """`show proc` has it no more; awake again it would serve what it has read from lists that have the port."""
    tally = Tally()
    async with controller(tmp_path / "log", edge, hold_s=SHORT_HOLD_S) as scene:
        held = await held_back(edge, tally, idle=4, half=4)
        lease = scene.of(ALPHA)[0]
        worker = await stranded(scene, edge, lease)
        try:
            await outlasts(scene, lease, f"old worker {worker} holds every port", "its master does not know it any more")
        finally:
            os.kill(worker, signal.SIGCONT)
        await freed(scene, lease)
        await scene.start(BETA, port=lease.port)
        await scene.publish()
        await go_on(held)
        await fresh(edge, tally, 10)
    assert tally.wrong == 0


async def test_workers_beyond_the_most_that_a_master_keeps_are_taken_for_gone(plain_edge, tmp_path):
    """With `mworker-max-reloads 1` the master ends the oldest in a storm of reloads; until they exit they hold what they have."""
    tally = Tally()
    async with controller(tmp_path / "log", plain_edge, hold_s=SHORT_HOLD_S, by_reload=True) as scene:
        own = plain_edge.config / "1.cfg"
        own.write_text(own.read_text().replace("global\n", "global\n    mworker-max-reloads 1\n", 1))
        await scene.publish()
        (worker,) = await plain_edge.pids("worker")
        held = await held_back(plain_edge, tally, idle=2, half=2)
        os.kill(worker, signal.SIGSTOP)  # it does not even hear that it is to end
        try:
            lease = scene.of(ALPHA)[0]
            await scene.die(lease)
            for _ in range(4):
                scene.write(plain_edge)
                await plain_edge.reload()
            await outlasts(scene, lease, f"old worker {worker}")
        finally:
            os.kill(worker, signal.SIGCONT)
        await freed(scene, lease)
        await scene.start(BETA, port=lease.port)
        await go_on(held)
        await fresh(plain_edge, tally, 10)
    assert tally.wrong == 0
