"""nginx in front: its old workers hold a port until they exit, and their exit frees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from portfsm import PoolSpec, open_manager
from tests.evidence.clients import Client, Tally
from tests.evidence.scene import HOST, PATIENCE_S, SERVICES, Replica
from tests.witnesses.helpers import free_port, until
from tests.witnesses.real_nginx import Nginx, nginx_home

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ALPHA, BETA = SERVICES


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    with nginx_home(tmp_path) as home:
        yield home


def write(nginx: Nginx, generation: int, ports: list[int]) -> None:
    servers = " ".join(f"server {HOST}:{port};" for port in ports)
    nginx.write(generation, upstream=f"upstream alpha {{ {servers} }}", location="location /alpha/ { proxy_pass http://alpha; }")


async def _half_sent(nginx: Nginx, tally: Tally) -> Client:
    """A request that a worker has begun to read: its connection had an answer already."""

    async def first() -> Client | None:
        with contextlib.suppress(OSError):
            client = Client(ALPHA, await anyio.connect_tcp(HOST, nginx.front), tally, f"GET /{ALPHA}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await client.ask()
            return client
        return None

    client = await until(first, within_s=PATIENCE_S)
    assert isinstance(client, Client)
    await client.stream.send(client.owed[:20])
    client.owed = client.owed[20:]
    return client


async def test_a_port_that_is_free_before_the_old_workers_of_nginx_are_gone(nginx, tmp_path):
    tally, taken, kept = Tally(), free_port(), free_port()
    pool = PoolSpec("http", ports=[taken, kept], hold_s=60)
    async with open_manager(tmp_path / "log", pools=[pool]) as manager, anyio.create_task_group() as tasks:
        leases = [await manager.allocate("http", owner=f"r{port}", service=ALPHA, port=port) for port in (taken, kept)]
        replicas = [Replica(ALPHA, port) for port in (taken, kept)]
        for replica in replicas:
            await tasks.start(replica.run)
        write(nginx, manager.seq, [taken, kept])
        nginx.start()
        clients = [await _half_sent(nginx, tally) for _ in range(4)]
        await manager.join(nginx.witness())
        await replicas[0].stop()
        await manager.release(leases[0])
        old = nginx.workers()
        write(nginx, manager.seq, [kept])
        nginx.reload()

        async def held_by_exit() -> bool:
            return "waiting for the exit of" in manager.explain("http", taken)

        await until(held_by_exit, within_s=PATIENCE_S)
        assert manager.port("http", taken).state.value == "QUARANTINED"
        assert old & nginx.workers(), "or this shows nothing"
        for client in clients:
            await client.ask()
            await client.close()
        other = await manager.allocate("http", owner="other", service=BETA, port=taken, wait_s=PATIENCE_S)
        assert not old & nginx.workers()
        await tasks.start(Replica(BETA, other.port).run)
        for _ in range(10):
            client = await _half_sent(nginx, tally)
            await client.ask()
            await client.close()
        tasks.cancel_scope.cancel()
    assert tally.wrong == 0
    assert tally.right >= 20
