"""How evenly nodes fall into shards, how many move when shards are added, and what one shard of many nodes costs.

    python benchmarks/bench_shards.py [NODES]

Balance: the fullest and the emptiest shard against the mean, over several families of node names. Moved: the share of nodes that
change their shard, against the least possible (the new shards' own share) and against `hash(node) % shards`. One shard: a ledger of
so many nodes with ten live ports each, replayed from events in memory; its memory, and the pause of a copy of the state.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections import Counter
from functools import partial
from hashlib import blake2b
from pathlib import Path

from common import Core, machine, owner, rounds, spread

from portfsm import Allocate, Event, Ledger, PoolSpec, moved_nodes, shard_of
from portfsm._dump import dump, load
from portfsm._replay import replay

FAMILIES = {
    "node-00001": lambda n: f"node-{n:05d}",
    "10.0.3.17": lambda n: f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}",
    "ip-10-0-3-17.eu-west-1": lambda n: f"ip-10-{n >> 16 & 255}-{n >> 8 & 255}-{n & 255}.eu-west-1.compute.internal",
    "hex of 16": lambda n: blake2b(str(n).encode(), digest_size=8).hexdigest(),
}
PORTS_A_NODE = 10


def shards(count: int) -> list[str]:
    return [f"shard-{number}" for number in range(count)]


def balance(nodes: int) -> None:
    print(f"{nodes} nodes; fullest and emptiest shard against the mean (over {len(FAMILIES)} families of names)")
    for count in (2, 4, 8, 16, 32):
        most, least = [], []
        for name in FAMILIES.values():
            found = Counter(shard_of(name(number), shards(count)) for number in range(nodes))
            most.append(max(found.values()) * count / nodes)
            least.append(min(found.values()) * count / nodes)
        print(f"    {count:3d} shards: fullest {spread(most, 'x')}, emptiest {spread(least, 'x')}")


def moves(nodes: int) -> None:
    print("nodes moved when shards are added, of all; the least possible; by modulo")
    for before, after in ((1, 2), (2, 3), (4, 5), (8, 9), (8, 16), (16, 17)):
        shares, modulo = [], []
        for name in FAMILIES.values():
            places = [name(number) for number in range(nodes)]
            shares.append(len(moved_nodes(places, shards(before), shards(after))) / nodes)
            scores = [int.from_bytes(blake2b(place.encode(), digest_size=8).digest(), "big") for place in places]
            modulo.append(sum(score % before != score % after for score in scores) / nodes)
        print(f"    {before:2d} -> {after:2d}: {spread(shares)}, least {1 - before / after:.3f}, modulo {spread(modulo)}")


def speed() -> None:
    for count in (4, 16, 64):
        names = shards(count)
        began = time.perf_counter()
        for number in range(2000):
            shard_of(f"node-{number}", names)
        print(f"    one answer among {count} shards: {(time.perf_counter() - began) / 2000 * 1e6:.0f} us")


def resident() -> int:
    """Bytes of this process in memory now."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def one_shard(nodes: int) -> None:
    """One ledger with all of these nodes; the events are not kept."""
    gc.collect()
    base = resident()
    core = Core(PoolSpec("http", ports="30000-30999", hold_s=10.0))
    for number in range(nodes):
        for port in range(PORTS_A_NODE):
            core.do(Allocate("http", owner=owner(number * PORTS_A_NODE + port), node=f"node-{number:05d}"))
        core.log.clear()
    grown = resident() - base
    shown = core.ledger.copy()
    both = resident() - base
    began = time.perf_counter()
    lines = list(dump(core.ledger))
    paused = time.perf_counter() - began
    began = time.perf_counter()
    load(Ledger(), lines)
    loaded = time.perf_counter() - began
    live = nodes * PORTS_A_NODE
    print(f"one ledger of {nodes} nodes with {PORTS_A_NODE} live ports each: {grown / 2**20:.0f} MiB, {grown / live:.0f} bytes a live port")
    print(
        f"    with the one that is shown, as in a manager ({shown.seq} events): {both / 2**20:.0f} MiB, {both / live:.0f} bytes a live port"
    )
    size = sum(len(line) for line in lines) / 2**20
    print(f"    a copy of the state: {size:.0f} MiB, made in {paused:.2f} s, opened from in {loaded:.2f} s")


def replay_rates(live: int) -> None:
    """As many events on few nodes and on many, in turns."""
    logs = {}
    for nodes in (live // 1000, live // PORTS_A_NODE):
        core = Core(PoolSpec("http", ports="30000-30999", hold_s=10.0))
        for number in range(live):
            core.do(Allocate("http", owner=owner(number), node=f"node-{number % nodes:05d}"))
        logs[nodes] = core.log
    gc.collect()

    def rate(log: list[Event]) -> float:
        began = time.perf_counter()
        replay(log)
        return len(log) / (time.perf_counter() - began) / 1e6

    found = rounds(5, **{str(nodes): partial(rate, log) for nodes, log in logs.items()})
    for nodes, rates in found.items():
        print(f"    replay of {live} leases on {nodes} nodes: {spread(rates)} million events/s")


def main() -> None:
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print(machine())
    for size in (nodes // 10, nodes):
        one_shard(size)
    replay_rates(nodes)
    balance(nodes)
    moves(nodes // 5)
    speed()


if __name__ == "__main__":
    main()
