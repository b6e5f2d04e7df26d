"""What evidence costs, with a real HAProxy and the manager on its log: how soon a port is clear, and what waiting costs.

    python benchmarks/bench_evidence.py [clear] [churn] [warden]

Clear: `withdraw`, the file written (both durable), the reload where there is one, until `wait_clear` returns; ten clients a port
hold half a request each in the reload case. Churn: a pool of 8 ports, each with a replica that lives 0.3 s, crashes, and gives its port to
the other service; the proxies hear of every start and crash 0.2 s late. The bound is N/(L+lag) = 16 starts a second. Warden: the
share of a core that a manager takes with 10,000 quarantined ports that nobody lets go of, over ten seconds.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
from common import machine, owner

from portfsm import PoolSpec, Verdict, open_manager
from portfsm.haproxy import reload, write
from portfsm.testing import FakeWitness
from tests.evidence.clients import Tally, fresh, go_on, held_back
from tests.evidence.scene import SERVICES, ByReload, controller, edge_home

LIFE_S, LAG_S = 0.3, 0.2
PORTS = 8
MANY = 10_000


def milliseconds(took: list[float]) -> str:
    ordered = sorted(took)
    return (
        f"p50 {statistics.median(ordered) * 1e3:.1f} ms, p99 {ordered[len(ordered) * 99 // 100] * 1e3:.1f} ms, "
        f"most {ordered[-1] * 1e3:.1f} ms, n={len(ordered)}"
    )


async def clear(count: int, *, by_reload: bool) -> None:
    """One port after the other is withdrawn; its slot is in the file before that."""
    told, written, total = [], [], []
    tally = Tally()
    with edge_home() as edge, tempfile.TemporaryDirectory() as folder:
        async with controller(Path(folder, "log"), edge, size=count, by_reload=by_reload) as scene:
            for lease in list(scene.routed):
                held = await held_back(edge, tally, idle=0, half=5) if by_reload else []
                scene.routed.pop(lease)
                began = time.perf_counter()
                await scene.manager.withdraw(lease)
                told.append(time.perf_counter() - began)
                generation = scene.write(edge)
                written.append(time.perf_counter() - began)
                if by_reload:
                    await reload(edge.master_socket, generation=generation)
                assert await scene.manager.wait_clear(lease, timeout_s=20)
                total.append(time.perf_counter() - began)
                await go_on(held)
    print(f"withdraw to clear, {'reload' if by_reload else 'runtime API'}: {milliseconds(total)}; {tally.wrong} wrong answers")
    print(f"  of which: withdrawal durable {milliseconds(told)}")
    print(f"  and file written {milliseconds([b - a for a, b in zip(told, written, strict=True)])}")


async def churn(seconds: float, *, by_reload: bool, hold_s: float = 60.0, watched: bool = True) -> None:
    """Starts a second of a pool that is always short of ports, and what clients got meanwhile."""
    tally, starts = Tally(), 0
    with edge_home() as edge, tempfile.TemporaryDirectory() as folder:
        options = {"size": PORTS, "hold_s": hold_s, "by_reload": by_reload, "watched": watched}
        async with controller(Path(folder, "log"), edge, **options) as scene:
            dirty, seen = anyio.Event(), (0, [])
            end = time.perf_counter() + seconds

            async def publish() -> None:
                nonlocal dirty
                while True:
                    await dirty.wait()
                    dirty = anyio.Event()
                    generation, leases = seen
                    write(edge.ports_file, edge.rendered(leases, generation))
                    await reload(edge.master_socket, generation=generation)

            async def later(*now: object) -> None:
                nonlocal seen
                await anyio.sleep(LAG_S)
                seen = now
                dirty.set()

            def changed() -> None:
                # What is published is the state as it was, under the generation that it had.
                tasks.start_soon(later, scene.manager.seq, list(scene.routed))

            async def live(lease) -> None:
                nonlocal starts
                while time.perf_counter() < end:
                    await anyio.sleep(LIFE_S)
                    await scene.die(lease)
                    changed()
                    # By number: for its own service a port would need no evidence.
                    lease = await scene.start(SERVICES[lease.service == SERVICES[0]], port=lease.port)
                    starts += time.perf_counter() < end
                    changed()

            async def clients() -> None:
                while True:
                    held = await held_back(edge, tally, idle=4, half=4)
                    await fresh(edge, tally, 4)
                    await anyio.sleep(0.05)
                    await go_on(held)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish)
                tasks.start_soon(clients)
                async with anyio.create_task_group() as lives:
                    for lease in list(scene.routed):
                        lives.start_soon(live, lease)
                tasks.cancel_scope.cancel()
    bound = PORTS / (LIFE_S + LAG_S)
    how = ("by reload" if by_reload else "by runtime API") if watched else "no evidence, no hold"
    print(
        f"churn, {how}: {starts / seconds:.1f} starts/s, {starts / seconds / bound:.2f} of N/(L+lag); "
        f"{tally.wrong} wrong of {tally.requests} ({tally.lost} lost)"
    )


async def share(name: str, witness, seconds: float = 10.0) -> None:
    """The share of a core with so many ports waiting, without the burst of their releases."""
    pool = PoolSpec("http", ports=f"20000-{20000 + MANY - 1}", hold_s=3600)
    with tempfile.TemporaryDirectory() as folder:
        async with open_manager(Path(folder, "log"), pools=[pool], witnesses=[witness] if witness else []) as manager:
            async with anyio.create_task_group() as tasks:

                async def one(number: int) -> None:
                    await manager.release(await manager.allocate("http", owner=owner(number), service="alpha"))

                for number in range(MANY):
                    tasks.start_soon(one, number)
            began = time.perf_counter()
            while witness and "says" not in manager.explain("http", 20000 + MANY - 1):  # noqa: ASYNC110  (nobody tells)
                await anyio.sleep(0.05)
            heard = time.perf_counter() - began
            await anyio.sleep(3)
            assert manager.statistics().quarantined == MANY
            began, cpu = time.perf_counter(), time.process_time()
            await anyio.sleep(seconds)
            used = (time.process_time() - cpu) / (time.perf_counter() - began)
    print(f"warden, {name}: {used:.1%} of a core; all heard of {heard:.2f} s after the last release")


async def real_share(*, slots: bool, by_reload: bool) -> None:
    """The same against HAProxy, with all the ports in its table or none; the file is older than the releases."""
    with edge_home() as edge:
        edge.prepare()
        text = edge.rendered([], 0)
        if slots:
            servers = "".join(f"    server p-{port} 127.0.0.1:{port}\n" for port in range(20000, 20000 + MANY))
            text = text.replace("backend alpha\n", f"backend alpha\n{servers}")
        edge.ports_file.write_text(text)
        await edge.start()
        witness = ByReload(edge.master_socket, proxy=edge.name) if by_reload else edge.witness()
        how = ("in service" if by_reload else "in maintenance, file older") if slots else "not in its table, configuration older"
        await share(f"HAProxy with {MANY} ports {how}", witness)


async def warden() -> None:
    await share("nobody to ask", None)
    await share("witness that answers at once and holds all", FakeWitness("edge", Verdict.HELD))
    await real_share(slots=False, by_reload=False)
    await real_share(slots=True, by_reload=True)
    await real_share(slots=True, by_reload=False)


async def main() -> None:
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a listener that is cancelled while a client comes in
    print(machine())
    parts = sys.argv[1:] or ["clear", "churn", "warden"]
    if "clear" in parts:
        await clear(200, by_reload=False)
        await clear(60, by_reload=True)
    if "churn" in parts:
        await churn(15, by_reload=False, hold_s=0, watched=False)
        await churn(15, by_reload=True)
        await churn(15, by_reload=False)
    if "warden" in parts:
        await warden()


if __name__ == "__main__":
    anyio.run(main)
