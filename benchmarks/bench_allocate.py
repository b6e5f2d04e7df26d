"""`allocate` awaited on the file journal: grouped against one sync a call, and a lone caller against the bare disk.

    python benchmarks/bench_allocate.py [SECONDS] [BACKEND ...]

Grouped: so many callers, each awaiting its own lease and releasing it, so two durable calls a turn. One sync a call: the same
callers, each doing an append of one event and its sync in a thread hop of its own, one after the other (no grouping).
Bare disk: one 128-byte `pwrite` and `fdatasync` through one hop to a waiting thread and back.
"""

from __future__ import annotations

import os
import queue
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import anyio
import anyio.lowlevel
from common import machine, one_append_a_call, owner, spread

from portfsm import FileJournal, PoolSpec, open_manager

CALLERS = 64
SPEC = PoolSpec("http", ports="10000-59999", hold_s=0.001)


async def grouped(folder: str, seconds: float, callers: int) -> tuple[float, list[int]]:
    """Durable calls a second, and each call's nanoseconds."""
    took: list[int] = []
    async with open_manager(folder, pools=[SPEC]) as manager:
        end = time.perf_counter() + seconds

        async def caller(number: int) -> None:
            turn = 0
            while time.perf_counter() < end:
                started = time.perf_counter_ns()
                lease = await manager.allocate("http", owner=owner(number * 10_000_000 + turn))
                between = time.perf_counter_ns()
                await manager.release(lease)
                took.append(between - started)
                took.append(time.perf_counter_ns() - between)
                turn += 1

        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for number in range(callers):
                tasks.start_soon(caller, number)
        return len(took) / (time.perf_counter() - started), took


async def one_sync_a_call(folder: str, seconds: float, callers: int) -> float:
    """The same callers without grouping."""
    return await one_append_a_call(FileJournal(folder), seconds, callers)


async def bare_us(folder: str, seconds: float) -> float:
    """Median microseconds of a raw append and sync through one hop."""
    fd = os.open(Path(folder, "bare"), os.O_RDWR | os.O_CREAT, 0o600)
    jobs: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    token = anyio.lowlevel.current_token().native_token
    post = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe  # type: ignore[attr-defined]
    done = anyio.Event()

    def work() -> None:
        while (offset := jobs.get()) is not None:
            os.pwrite(fd, b"x" * 128, offset)
            os.fdatasync(fd)
            post(lambda: done.set())  # noqa: PLW0108  (`done` is another one each time)

    thread = threading.Thread(target=work)
    thread.start()
    took: list[int] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        done = anyio.Event()
        started = time.perf_counter_ns()
        jobs.put(128 * len(took))
        await done.wait()
        took.append(time.perf_counter_ns() - started)
    jobs.put(None)
    thread.join()
    os.close(fd)
    return statistics.median(took) / 1000


def run(backend: str, function: object, *args: object) -> object:
    """On one of the loops, in a new folder."""
    options = {"use_uvloop": True} if backend == "uvloop" else {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        place = str(Path(folder, "log")) if function is not bare_us else folder
        return anyio.run(function, place, *args, backend="asyncio" if backend == "uvloop" else backend, backend_options=options)  # type: ignore[arg-type]


def main() -> None:
    """All, in turns."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    print(machine())
    for backend in sys.argv[2:] or ("asyncio", "uvloop", "trio"):
        many: list[float] = []
        singly: list[float] = []
        lone: list[float] = []
        bare: list[float] = []
        p99: list[float] = []
        for _ in range(5):
            rate, took = run(backend, grouped, seconds, CALLERS)  # type: ignore[misc]
            many.append(rate)
            p99.append(sorted(took)[len(took) * 99 // 100] / 1e6)
            singly.append(run(backend, one_sync_a_call, seconds, CALLERS))  # type: ignore[arg-type]
            lone.append(statistics.median(run(backend, grouped, seconds, 1)[1]) / 1000)  # type: ignore[index]
            bare.append(run(backend, bare_us, seconds))  # type: ignore[arg-type]
        print(f"{backend}: {CALLERS} callers {spread(many)} durable calls/s, p99 {spread(p99, ' ms')}; one sync a call {spread(singly)}/s")
        print(f"    gain {spread([a / b for a, b in zip(many, singly, strict=True)], 'x')} (target 15x, aim 25x)")
        print(f"    lone caller p50 {spread(lone, ' us')}, bare disk p50 {spread(bare, ' us')}")
        print(f"    ratio {spread([a / b for a, b in zip(lone, bare, strict=True)], 'x')} (target 1.6x)")


if __name__ == "__main__":
    main()
