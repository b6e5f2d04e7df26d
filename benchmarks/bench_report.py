"""A page of a long log, and how it bears being used: a million events in one pool; 30,000 ports on each of 50 nodes.

PYTHONPATH=. python benchmarks/bench_report.py [EVENTS] [ROUNDS]

The browser's part needs Chromium with its driver and selenium, and is left out where they are missing.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Core, lease_of, machine, spread, write_log

from portfsm import Allocate, Close, DefinePool, PoolSpec, Release, Sweep, decide, read_journal, replay
from portfsm.journals import FileJournal

try:
    from tests.report.browser import chromium, missing
except ImportError:
    chromium = None

ROOT = Path(__file__).resolve().parent.parent
FRAMES = """
const done = arguments[arguments.length - 1], slider = document.getElementById("slider"), took = [];
let n = 0;
const step = () => {
  const began = performance.now();
  slider.value = (n * 397) % 2000;
  slider.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => requestAnimationFrame(() => { took.push(performance.now() - began); ++n < 60 ? step() : done(took); }));
};
step();
"""


def write_wide(path: Path, events: int, *, nodes: int = 50, ports: int = 30_000) -> None:
    """Leases of some minutes on fifty nodes, each with a pool of thirty thousand ports, 2,000 of them live."""
    luck = random.Random(50)
    core = Core(PoolSpec("http", ports=f"10000-{10000 + ports - 1}", hold_s=5.0, order="longest-idle"))
    core.do(DefinePool(PoolSpec("grpc", ports="50000-50999", hold_s=30.0)))
    journal = FileJournal(str(path))
    journal.open("benchmark")
    leases, number = [], 0
    while core.ledger.seq < events:
        core.now_ns += 3_000_000
        number += 1
        node, service = f"node-{number % nodes:02d}", f"service-{number % 37}"
        leases.append(lease_of(core.do(Allocate("http", owner=f"{service}-{luck.getrandbits(40):010x}", node=node, service=service))[-1]))
        if len(leases) > 2000 * nodes:
            core.do(Release(leases.pop(luck.randrange(len(leases)))))
        if not number % 2000:
            sweep(core)
        if len(core.log) >= 4096:
            journal.append(core.log)
            core.log.clear()
    core.do(Close())
    journal.append(core.log)
    journal.close()


def sweep(core: Core) -> None:
    """Free what is due, if anything is."""
    if decide(core.ledger, Sweep(), now_ns=core.now_ns):
        core.do(Sweep())


def measure(log: Path, page: Path) -> tuple[float, float, float]:
    """What `portfsm report` took: seconds on the clock, seconds of the processor, mebibytes at most."""
    command = [sys.executable, "-m", "portfsm", "report", str(log), "-o", str(page), "--json"]
    began = time.perf_counter()
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as process:
        out = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    assert not status, out
    print("   ", json.loads(out))
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def look(page: Path) -> str:
    """How long the page takes to come to life, and to answer the slider."""
    if chromium is None or missing():
        return "not measured: selenium, chromium or chromedriver is missing"
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as driver:
        began = time.perf_counter()
        driver.get(page.as_uri())
        while not driver.execute_script("return document.documentElement.dataset.ready"):
            time.sleep(0.02)
        loaded = time.perf_counter() - began
        driver.set_script_timeout(120)
        frames = driver.execute_async_script(FRAMES)
        driver.execute_script("document.querySelector('canvas[role=application]').scrollIntoView()")
        shown = driver.execute_async_script(FRAMES)
    return f"ready after {loaded:.2f} s; slider to picture {spread(frames, ' ms')}, with the map in view {spread(shown, ' ms')}"


def replayed(log: Path) -> float:
    """Seconds of the processor that reading the log and checking every step of it takes: what no report can do without."""
    began = time.process_time()
    replay(read_journal(str(log)))
    return time.process_time() - began


def main() -> None:
    """Both logs: made once, measured in turns."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        logs = {"one pool": Path(folder, "one"), "30,000 ports on 50 nodes": Path(folder, "wide")}
        write_log(FileJournal(str(logs["one pool"])), events)
        write_wide(logs["30,000 ports on 50 nodes"], events)
        for name, log in logs.items():
            page = Path(folder, "report.html")
            reports, floors = [], []
            for _ in range(rounds):
                floors.append(replayed(log))
                reports.append(measure(log, page))
            took, spent, held = ([row[column] for row in reports] for column in range(3))
            print(f"{name}: {spread(took, ' s')} on the clock, {spread(spent, ' s')} of the processor, target 20 s; {spread(held, ' MiB')}")
            print(f"  {spread([one / floor for one, floor in zip(spent, floors, strict=True)], ' times')} the replay")
            print(f"  page {page.stat().st_size / 1e6:.2f} MB (target 5)")
            print(f"  browser: {look(page)}")


if __name__ == "__main__":
    main()
