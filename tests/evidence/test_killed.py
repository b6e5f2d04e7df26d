"""A controller killed while it collects evidence: whom it had to ask is in the log, and so is every lease."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import portfsm
from portfsm import EventKind, PoolSpec, PortUnavailable, open_manager, read_journal
from tests.evidence.scene import HOST, PATIENCE_S, SERVICES, Edge
from tests.witnesses.helpers import free_port, until
from tests.witnesses.real import running

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

HOLD_S = 0.2
VICTIM = """
import sys
import anyio
from portfsm import PoolSpec, open_manager
from portfsm.witnesses import HAProxyWitness

log, master_socket, ports_file, *ports = sys.argv[1:]

async def main():
    pool = PoolSpec("http", ports=[int(port) for port in ports], hold_s=0.2)
    async with open_manager(log, pools=[pool]) as manager:
        await manager.join(HAProxyWitness(master_socket, proxy="edge", ports_file=ports_file))
        leases = [await manager.allocate("http", owner=f"r{number}", service="alpha", port=int(port)) for number, port in enumerate(ports)]
        await manager.release(leases[0])
        await manager.withdraw(leases[1])
        while "edge says" not in manager.explain("http", leases[0].port):
            await anyio.sleep(0.001)
        print("asking", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def killed_in_the_middle(log: Path, edge: Edge, ports: list[int]) -> None:
    """A controller that has had an answer, still asks, and is killed."""
    command = [sys.executable, "-c", VICTIM, str(log), edge.master_socket, str(edge.ports_file), *map(str, ports)]
    environment = {**os.environ, "PYTHONPATH": str(Path(portfsm.__file__).parents[1])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        process.kill()
    assert process.returncode == -9


async def test_a_killed_controller_that_leaves_its_ports_to_the_clock(edge, tmp_path):
    """The port stays held past its hold until the proxy is heard again; no lease is lost, and the withdrawal stands."""
    log, ports = tmp_path / "log", [free_port() for _ in range(3)]
    edge.prepare()
    edge.ports_file.write_text(edge.rendered([], 0).replace("backend alpha\n", f"backend alpha\n    server gone {HOST}:{ports[0]}\n"))
    await edge.start()
    killed_in_the_middle(log, edge, ports)
    pool = PoolSpec("http", ports=ports, hold_s=HOLD_S)
    async with open_manager(log, pools=[pool]) as manager:

        async def over() -> bool:
            return "its hold ended" in manager.explain("http", ports[0])

        await until(over, within_s=PATIENCE_S)
        assert await manager.sweep() == ()
        assert "edge was not heard" in manager.explain("http", ports[0])
        with pytest.raises(PortUnavailable):
            await manager.allocate("http", owner="thief", service=SERVICES[1], port=ports[0])
        kept = [*manager.find("r1"), *manager.find("r2")]
        assert [lease.port for lease in kept] == ports[1:]
        await manager.join(edge.witness())

        async def asked() -> bool:
            return "edge says HELD" in manager.explain("http", ports[0])

        await until(asked, within_s=PATIENCE_S)
        edge.ports_file.write_text(edge.rendered([], manager.seq))
        await edge.reload()

        async def free() -> bool:
            return manager.port("http", ports[0]).state.value == "FREE"

        await until(free, within_s=PATIENCE_S)
        assert await manager.wait_clear(kept[0], timeout_s=PATIENCE_S)
        await manager.release(kept[0])
        assert manager.port("http", ports[1]).state.value == "FREE"
        lease = await manager.allocate("http", owner="next", service=SERVICES[1], port=ports[0])
    async with running("b", lease.port) as other:
        async with await anyio.connect_tcp(HOST, edge.front) as stream:
            await stream.send(b"GET /alpha/ HTTP/1.1\r\nHost: x\r\n\r\n")
            await stream.receive()
        assert (other.right, other.wrong) == (0, 0)
    joined = [event for event in read_journal(log) if event.kind is EventKind.PROXY_JOINED]
    assert len(joined) == 1, "it was required all along"
