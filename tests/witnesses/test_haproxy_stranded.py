"""Processes of HAProxy that its master has lost, real ones: they hold what they have until they are gone."""

from __future__ import annotations

import pytest

from tests.witnesses.helpers import free_port, frozen, until
from tests.witnesses.real import ask_for_a_while, cleared, held, keep_alive, proxy_home, running

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"]), pytest.mark.timeout(120)]


async def test_a_worker_of_a_killed_master_that_wakes_up_after_its_port_was_called_clear(proxy):
    """Frozen, it outlives its master; the next one does not know it, and it has a request to answer when it wakes."""
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept])
    await proxy.start()
    (stranded,) = await proxy.pids("worker")
    async with running("a", kept):
        async with running("a", taken):
            clients = await keep_alive(proxy, 4)
        with frozen(stranded):
            proxy.process.kill()
            proxy.process.wait()
            for client in clients:
                await client.send(b"GET /a/ HTTP/1.1\r\nHost: x\r\n\r\n")
            proxy.write(20, a=[kept])
            await proxy.start()
            witness = proxy.witness()
            for _ in range(3):
                await held(witness, taken, f"old worker {stranded} holds every port: its master does not know it any more", since=15)
            assert stranded not in [*await proxy.pids("worker"), *await proxy.pids("old")]
        await cleared(witness, taken, 15)
        async with running("b", taken) as other:
            await ask_for_a_while(proxy)
        assert other.wrong == 0
    for client in clients:
        await client.aclose()


async def test_a_proxy_started_twice_of_which_only_one_can_be_asked(proxy):
    """The second takes the socket over; the first still serves whoever its kernel gives it, and its master cannot be reached."""
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept])
    await proxy.start()
    first, pids = proxy.process, await proxy.pids("worker")
    try:
        proxy.write(20, a=[kept])
        proxy.launch()

        async def taken_over() -> bool:
            return await proxy.pids("worker") not in ([], pids)

        await until(taken_over)
        await held(proxy.witness(), taken, f"old worker {pids[0]} holds every port", since=15)
        async with running("a", taken) as misled, running("a", kept):
            await ask_for_a_while(proxy)
        assert misled.right, "the first one serves still, or this shows nothing"
    finally:
        first.terminate()
        first.wait()
    await cleared(proxy.witness(), taken, 15)


async def test_another_proxy_that_passes_for_a_lost_part_of_this_one(proxy):
    """Old workers are known; another HAProxy has another socket."""
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept])
    with proxy_home() as neighbour:
        neighbour.write(10, a=[taken])
        async with running("a", taken), running("a", kept):
            await proxy.start()
            await neighbour.start()
            clients = await keep_alive(proxy, 2)
            proxy.write(20, a=[kept])
            await proxy.reload()
            assert await proxy.pids("old")
            await cleared(proxy.witness(), taken, 15)
            for client in clients:
                await client.aclose()
