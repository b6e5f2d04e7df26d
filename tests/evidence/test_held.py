"""What must keep a port in quarantine: an old worker, a proxy that does not answer, one of two, a configuration that comes back."""

from __future__ import annotations

import contextlib
import os

import anyio
import anyio.lowlevel
import pytest

from portfsm import Lease, PortUnavailable
from portfsm.errors import ReloadFailed, StaleGeneration
from portfsm.haproxy import reload, write
from tests.evidence.clients import Tally, fresh, go_on, held_back
from tests.evidence.scene import PATIENCE_S, SERVICES, Controller, controller, edge_home
from tests.witnesses.helpers import frozen, until
from tests.witnesses.real import complaint

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ALPHA, BETA = SERVICES
SHORT_HOLD_S = 0.2


async def freed(scene: Controller, lease: Lease) -> None:
    await until(lambda: scene.state(lease) == "FREE", within_s=PATIENCE_S)


async def explained(scene: Controller, lease: Lease, *words: str) -> str:
    """The first explanation that has all the words, of a port that is in quarantine."""

    async def said() -> str:
        text = scene.manager.explain("http", lease.port)
        return text if all(word in text for word in words) else ""

    text = str(await until(said, within_s=PATIENCE_S))
    assert scene.state(lease) == "QUARANTINED", text
    return text


async def stays(scene: Controller, lease: Lease) -> None:
    """Held though its proxies are asked again and again, and nobody else gets it."""
    assert not await scene.manager.wait_clear(lease, timeout_s=0.5)
    assert scene.state(lease) == "QUARANTINED"
    with pytest.raises(PortUnavailable):
        await scene.manager.allocate("http", owner="thief", service=BETA, port=lease.port)


async def hold_is_over(scene: Controller, lease: Lease) -> None:
    """The clock alone would free it by now."""
    await explained(scene, lease, "its hold ended", "waits until every proxy has let go")
    assert await scene.manager.sweep() == ()


async def outlasts(scene: Controller, lease: Lease, *words: str) -> None:
    """Held beyond the end of its hold, for the reason that has all the words."""
    await explained(scene, lease, *words)
    await hold_is_over(scene, lease)
    await stays(scene, lease)


async def test_a_port_that_is_free_before_the_last_old_worker_is_gone(plain_edge, tmp_path):
    """A worker that soft-stops still forwards by its frozen list (ray-project/ray#65267).

    Without the relay line: while the observer sees an old worker with idle clients, the port is held.
    """
    tally = Tally()
    async with controller(tmp_path / "log", plain_edge) as scene:
        held = await held_back(plain_edge, tally, idle=4, half=4)
        (worker,) = await plain_edge.pids("worker")
        await scene.publish()
        lease = scene.of(ALPHA)[0]
        await scene.die(lease)
        await scene.publish()
        text = await explained(scene, lease, f"old worker {worker} still has {ALPHA}/")
        assert "edge says HELD" in text
        await stays(scene, lease)
        assert worker in await plain_edge.pids("old"), "or this shows nothing"
        free_at_exit: list[bool] = []

        async def watch_worker() -> None:
            while os.path.exists(f"/proc/{worker}"):  # noqa: ASYNC240  (no disk behind it)
                free_at_exit[:] = [scene.state(lease) == "FREE"]
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch_worker)
            await go_on(held)
            await freed(scene, lease)
        assert free_at_exit == [False]
        await scene.start(BETA, port=lease.port)
        await fresh(plain_edge, tally, 10)
    assert tally.wrong == 0


async def test_a_frozen_proxy_that_loses_its_port_to_the_clock(edge, tmp_path):
    """Master and worker are stopped for longer than the hold; awake again they let go, and no client was misled."""
    tally = Tally()
    async with controller(tmp_path / "log", edge, hold_s=SHORT_HOLD_S) as scene:
        held = await held_back(edge, tally, idle=4, half=4)
        lease = scene.of(ALPHA)[0]
        assert edge.process is not None
        with frozen(edge.process.pid, group=True):
            await scene.die(lease)
            await outlasts(scene, lease, "edge says UNKNOWN")
        await scene.publish()
        await freed(scene, lease)
        await scene.start(BETA, port=lease.port)
        await go_on(held)
        await fresh(edge, tally, 10)
    assert (tally.wrong, tally.lost) == (0, 0)


async def test_a_proxy_frozen_at_the_release_that_is_never_told_again(edge, tmp_path):
    """Without a reload: the withdrawal that a frozen proxy did not hear is repeated, and the file alone is written."""
    async with controller(tmp_path / "log", edge) as scene:
        lease = scene.of(ALPHA)[0]
        assert edge.process is not None
        with frozen(edge.process.pid, group=True):
            await scene.die(lease)
            await explained(scene, lease, "edge says UNKNOWN")
            scene.write(edge)
        await freed(scene, lease)


async def test_a_late_push_of_an_older_configuration_that_brings_a_port_back(edge, tmp_path):
    tally = Tally()
    async with controller(tmp_path / "log", edge) as scene:
        old = edge.ports_file.read_text()
        lease = scene.of(ALPHA)[0]
        await scene.die(lease)
        await scene.publish()
        await freed(scene, lease)
        await scene.start(BETA, port=lease.port)
        with pytest.raises(StaleGeneration):
            write(edge.ports_file, old)
        await scene.publish()
        await fresh(edge, tally, 20)
    assert (tally.wrong, tally.lost) == (0, 0)


async def test_a_broken_reload_that_counts_as_let_go(edge, tmp_path):
    """The master keeps the worker that has the port; only the reload of a good file ends the quarantine."""
    async with controller(tmp_path / "log", edge, hold_s=SHORT_HOLD_S, by_reload=True) as scene:
        lease = scene.of(ALPHA)[0]
        await scene.die(lease)
        (edge.config / "3.cfg").write_text("backend broken\n    no such keyword\n")
        with pytest.raises(ReloadFailed, match=complaint()):
            await scene.publish()
        await outlasts(scene, lease, "edge says HELD", "in service at that address")
        (edge.config / "3.cfg").unlink()
        await scene.publish()
        await freed(scene, lease)


async def test_a_port_that_one_of_two_proxies_still_has(edge, tmp_path):
    with edge_home("second") as second:
        async with controller(tmp_path / "log", edge, second, hold_s=SHORT_HOLD_S, by_reload=True) as scene:
            lease = scene.of(ALPHA)[0]
            await scene.die(lease)
            await reload(edge.master_socket, generation=scene.write(edge))
            await outlasts(scene, lease, "second says HELD")
            assert "edge says" not in scene.manager.explain("http", lease.port)
            await scene.publish()
            await freed(scene, lease)
            tally = Tally()
            await scene.start(BETA, port=lease.port)
            await scene.publish()
            for proxy in (edge, second):
                await fresh(proxy, tally, 10)
    assert (tally.wrong, tally.lost) == (0, 0)


async def test_a_publication_under_way_that_brings_back_a_port_already_clear(edge, tmp_path):
    """Rendered before a release, written after it: the port must not be free before no such file can come any more."""
    tally = Tally()
    async with controller(tmp_path / "log", edge) as scene:
        lease = scene.of(ALPHA)[0]
        under_way = edge.rendered(list(scene.routed), scene.manager.seq), scene.manager.seq
        await scene.die(lease)
        given_on = False
        with contextlib.suppress(TimeoutError), anyio.fail_after(1):
            await scene.start(BETA, port=lease.port)
            given_on = True
        with contextlib.suppress(StaleGeneration):
            write(edge.ports_file, under_way[0])
            await reload(edge.master_socket, generation=under_way[1])
        await fresh(edge, tally, 20)
        if not given_on:
            await scene.publish()
            await scene.start(BETA, port=lease.port)
    assert tally.wrong == 0


async def test_a_drained_port_that_waits_after_its_replica_has_stopped(edge, tmp_path):
    """Withdraw, wait, stop, release: FREE in the same batch, and nobody notices, not even with an error."""
    tally = Tally()
    async with controller(tmp_path / "log", edge) as scene:
        for _ in range(5):
            held = await held_back(edge, tally, idle=4, half=4)
            await scene.publish()
            lease = scene.of(ALPHA)[0]
            replica = scene.routed.pop(lease)
            await scene.manager.withdraw(lease)
            await scene.publish()
            assert await scene.manager.wait_clear(lease, timeout_s=PATIENCE_S)
            assert scene.state(lease) == "ALLOCATED"
            await replica.stop()
            before = scene.manager.seq
            await scene.manager.release(lease)
            assert (scene.state(lease), scene.manager.seq) == ("FREE", before + 2)
            await scene.start(BETA, port=lease.port)
            await go_on(held)
            await scene.die(scene.of(BETA)[0])
            await scene.publish()
            await scene.start(ALPHA)
            await scene.publish()
            await fresh(edge, tally, 5)
    assert (tally.wrong, tally.lost) == (0, 0)
