"""A thousand callers want a hundred ports, again and again: everyone is served in turn, and nothing is left over.

Waiting is counted in grants and not in seconds, so that no machine is too slow to be fair.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from itertools import count
from statistics import mean

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portfsm import EventKind, PoolSpec, open_manager, replay
from portfsm.contrib.metrics import metrics_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CALLERS, ROUNDS = 1000, 8
POOL = PoolSpec("load", ports="30000-30099", hold_s=0)


class Load:
    """Callers that take a port, use it for a moment and give it back; how long each waited, and what was counted on the way."""

    def __init__(self, manager):
        self.manager, self.grants, self.waits, self.held, self.most = manager, count(), [], Counter(), 0
        self.granted = 0

    async def caller(self, name, rounds):
        for number in range(rounds):
            asked = self.granted
            lease = await self.manager.allocate("load", owner=f"{name}-{number}", wait_s=None)
            self.granted += 1
            self.waits.append(self.granted - asked)
            self.held[lease.port] += 1
            assert self.held[lease.port] == 1, "a port has two holders"
            self.most = max(self.most, self.held.total())
            await checkpoint()
            self.held[lease.port] -= 1
            await self.manager.release(lease)

    async def run(self, rounds):
        async with anyio.create_task_group() as tasks:
            for number in range(CALLERS):
                tasks.start_soon(self.caller, f"c{number}", rounds)


def left_open():
    return len(os.listdir("/proc/self/fd"))


def counted(metrics, kind):
    samples = [sample for family in metrics.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == "portfsm_events_total" and sample.labels["kind"] == kind.value)


async def test_under_load_somebody_starves_or_something_leaks(log, times):
    """Longest wait within three times the mean; no task, file or object is left; the counts are those of the log."""
    all_rounds = ROUNDS * times
    files, tasks = left_open(), len(anyio.get_running_tasks())
    async with open_manager(log.handle(), pools=[POOL]) as manager, metrics_of(manager) as metrics:
        load, objects = Load(manager), []
        for rounds in (1, 1, all_rounds - 2):
            await load.run(rounds)
            gc.collect()
            objects.append(len(gc.get_objects()))
        steady = load.waits[CALLERS:]
        assert load.granted == len(load.waits) == CALLERS * all_rounds
        assert load.most == POOL.size, "the pool never was full, so this was no load"
        assert max(steady) <= 3 * mean(steady), f"longest {max(steady)} grants, mean {mean(steady):.0f}"
        assert objects[2] < objects[1] * 1.02 + 2000, f"objects grow with the work: {objects}"
        assert manager.statistics("load").free == POOL.size
        digest, seq = manager.digest(), manager.seq
    events = log.events()
    kinds = Counter(event.kind for event in events)
    assert kinds[EventKind.ALLOCATED] == kinds[EventKind.RELEASED] == kinds[EventKind.FREED] == CALLERS * all_rounds
    assert replay(events, until=seq).digest() == digest
    for kind in (EventKind.ALLOCATED, EventKind.RELEASED, EventKind.FREED):
        assert counted(metrics, kind) == kinds[kind], "the metrics are not what the log says"
    assert (left_open(), len(anyio.get_running_tasks())) == (files, tasks)
