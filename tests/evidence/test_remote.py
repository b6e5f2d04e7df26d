"""A proxy on another node: the same safety by way of `portfsm agent`, which looks at the file there."""

from __future__ import annotations

import pytest

from portfsm import Lease
from tests.evidence.clients import Tally, fresh
from tests.evidence.scene import PATIENCE_S, SERVICES, Controller, controller
from tests.evidence.test_held import explained, freed, stays
from tests.witnesses.real import agent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ALPHA, BETA = SERVICES


async def ended_and_taken_out(scene: Controller) -> Lease:
    """A replica died; its slot was taken out of service, and no file is newer than that."""
    lease = scene.of(ALPHA)[0]
    await scene.die(lease)
    return lease


async def test_a_remote_proxy_whose_next_reload_brings_a_port_back(edge, tmp_path):
    """The publication under way was rendered before the release: seen from the agent, too, its slot is held."""
    tally = Tally()
    async with controller(tmp_path / "log", edge, watched=False) as scene:
        with agent(tmp_path, edge.master_socket, "--ports-file", f"edge={edge.ports_file}", "--config", f"edge={edge.config}") as witness:
            await scene.manager.join(witness)
            lease = await ended_and_taken_out(scene)
            await explained(scene, lease, "edge says HELD", "the next reload would bring the port back")
            await stays(scene, lease)
            await edge.reload()
            await stays(scene, lease)
            await scene.publish()
            await freed(scene, lease)
            await scene.start(BETA, port=lease.port)
            await fresh(edge, tally, 10)
    assert (tally.wrong, tally.lost) == (0, 0)


async def test_a_test_of_remote_proxies_that_would_pass_without_the_file(edge, tmp_path):
    """The negative control: an agent that does not look at the file frees the port, and the reload gives wrong answers."""
    tally = Tally()
    async with controller(tmp_path / "log", edge, watched=False) as scene:
        with agent(tmp_path, edge.master_socket) as witness:
            await scene.manager.join(witness)
            lease = await ended_and_taken_out(scene)
            await scene.start(BETA, port=lease.port, wait_s=PATIENCE_S)
            await edge.reload()
            await fresh(edge, tally, 10)
    assert tally.wrong >= 3
