"""Ports that go from one service to the other, again and again, while clients of both are in the middle of something."""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path

import anyio
import pytest

from portfsm import EventKind, read_journal
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

    async def take_over(lease) -> None:
        # By number: left to itself the manager gives a service its own quarantined port, for which no proxy need be asked.
        began = time.monotonic()
        await scene.start(SERVICES[lease.service == SERVICES[0]], port=lease.port)
        taken.append(time.monotonic() - began)

    async with anyio.create_task_group() as tasks:
        for lease in leases:
            tasks.start_soon(scene.die, lease)
    async with anyio.create_task_group() as tasks:
        for lease in leases:
            tasks.start_soon(take_over, lease)
        await scene.publish()
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


def freed_by_evidence(log: Path) -> int:
    return sum(event.kind is EventKind.FREED and event.cause == "evidence" for event in read_journal(log))


async def test_a_test_that_gives_no_wrong_answer_without_evidence(plain_edge, tmp_path):
    """The negative control: with neither hold nor witness there are wrong answers, or nothing here proves anything."""
    tally = Tally()
    async with controller(tmp_path / "log", plain_edge, size=PORTS, hold_s=0, watched=False) as scene:
        with anyio.fail_after(PATIENCE_S):
            await turn(scene, tally, [], clients=8)
    assert tally.wrong >= 5
    assert tally.right >= 5


async def no_wrong_answer(edge, log: Path, *, by_reload: bool, reuses: int, requests: int) -> None:
    tally = Tally()
    async with controller(log, edge, size=PORTS, hold_s=HOLD_S, by_reload=by_reload) as scene:
        taken = await reuse(scene, tally, reuses=reuses, requests=requests)
    assert tally.wrong == 0
    assert tally.requests >= requests
    assert tally.lost < tally.right / 10
    assert len(taken) == freed_by_evidence(log) >= reuses
    assert statistics.median(taken) < 1, "a second is what the port is to be free in"
    assert max(taken) < HOLD_S / 4


@pytest.mark.parametrize("by_reload", [False, True], ids=["runtime", "reload"])
async def test_wrong_answers_from_ports_that_are_given_on_by_evidence(edge, tmp_path, by_reload):
    await no_wrong_answer(edge, tmp_path / "log", by_reload=by_reload, reuses=50, requests=700)


@pytest.mark.slow
@pytest.mark.parametrize("by_reload", [False, True], ids=["runtime", "reload"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_wrong_answer_in_ten_thousand(edge, tmp_path, by_reload):
    await no_wrong_answer(edge, tmp_path / "log", by_reload=by_reload, reuses=500, requests=10_000)
