"""Ports that go from one service to the other, again and again, while clients of both are in the middle of something."""

from __future__ import annotations

import math
import time

import anyio
import pytest

from tests.evidence.clients import Client, Tally, fresh, go_on, held_back
from tests.evidence.scene import PATIENCE_S, SERVICES, Controller, controller

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(280)]

PORTS = 16
A_TURN = 8
HOLD_S = 60.0


async def all_change_sides(scene: Controller, count: int) -> list[float]:
    """`count` replicas crash and their ports go to the other service; the seconds each port was held."""
    leases = [lease for service in SERVICES for lease in scene.of(service)[: count // 2]]
    taken: list[float] = []

    async def change(lease) -> None:
        await scene.die(lease)
        began = time.monotonic()
        other = await scene.start(SERVICES[lease.service == SERVICES[0]])
        taken.append(time.monotonic() - began)
        ports.discard(other.port)

    ports = {lease.port for lease in leases}
    async with anyio.create_task_group() as tasks:
        for lease in leases:
            tasks.start_soon(change, lease)
        while any(lease in scene.routed for lease in leases):  # noqa: ASYNC110  (all are dead before the proxies are told)
            await anyio.sleep(0.001)
        await scene.publish()
    assert not ports, "each port went to the other service"
    return taken


async def turn(scene: Controller, tally: Tally, held: list[Client], *, clients: int) -> list[float]:
    """One round: clients in an old worker, clients in the present one, ports that change sides, all clients go on."""
    (edge,) = scene.edges
    held += await held_back(edge, tally, idle=clients, half=clients // 2)
    await scene.publish()
    held += await held_back(edge, tally, idle=clients, half=clients // 2)
    taken = await all_change_sides(scene, A_TURN)
    await go_on(held)
    held.clear()
    await fresh(edge, tally, clients)
    return taken


async def reuse(scene: Controller, tally: Tally, *, reuses: int, requests: int) -> list[float]:
    turns = math.ceil(reuses / A_TURN)
    # A turn's requests: two of each idle client, one of each half-sent, in both workers; and the fresh ones. Each for both services.
    clients = math.ceil(requests / turns / 12)
    taken: list[float] = []
    for _ in range(turns):
        taken += await turn(scene, tally, [], clients=clients)
    return taken


async def test_a_test_that_gives_no_wrong_answer_without_evidence(plain_edge, tmp_path):
    """The negative control: with neither hold nor witness there are wrong answers, or nothing here proves anything."""
    tally = Tally()
    async with controller(tmp_path / "log", plain_edge, size=PORTS, hold_s=0, watched=False) as scene:
        with anyio.fail_after(PATIENCE_S):
            await turn(scene, tally, [], clients=8)
    assert tally.wrong >= 5
    assert tally.right >= 5


@pytest.mark.parametrize("by_reload", [False, True], ids=["runtime", "reload"])
async def test_wrong_answers_from_ports_that_are_given_on_by_evidence(edge, tmp_path, by_reload):
    tally = Tally()
    async with controller(tmp_path / "log", edge, size=PORTS, hold_s=HOLD_S, by_reload=by_reload) as scene:
        taken = await reuse(scene, tally, reuses=50, requests=700)
    print(tally, f"held at most {max(taken):.3f} s")
    assert tally.wrong == 0
    assert tally.requests >= 700
    assert tally.lost < tally.right / 10
    assert len(taken) >= 50
    assert max(taken) < HOLD_S / 4


@pytest.mark.slow
@pytest.mark.parametrize("by_reload", [False, True], ids=["runtime", "reload"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_wrong_answer_in_ten_thousand(edge, tmp_path, by_reload):
    tally = Tally()
    async with controller(tmp_path / "log", edge, size=PORTS, hold_s=HOLD_S, by_reload=by_reload) as scene:
        taken = await reuse(scene, tally, reuses=500, requests=10_000)
    print(tally, f"held at most {max(taken):.3f} s")
    assert tally.wrong == 0
    assert tally.requests >= 10_000
    assert tally.lost < tally.right / 10
    assert len(taken) >= 500
    assert max(taken) < HOLD_S / 4
