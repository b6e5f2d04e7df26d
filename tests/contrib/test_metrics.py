"""Metrics that a recount of the log would not confirm, and scrapes that see the middle of a change."""

from __future__ import annotations

import threading
from collections import Counter

import anyio
import anyio.to_thread
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from portfsm import EventKind, OutcomeUnknown, PoolSpec, PortState, open_manager
from portfsm.contrib.metrics import metrics_of
from tests.conftest import SECOND

pytestmark = pytest.mark.anyio

POOLS = [PoolSpec("http", ports="1000-1009", hold_s=2.0), PoolSpec("grpc", ports="2000-2004", hold_s=0)]


def registered(metrics):
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry


LABELS = ("pool", "kind", "cause", "ended", "state", "le")


def scraped(registry):
    """{(sample, labels…): value} of what a Prometheus would read."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *(sample.labels[name] for name in LABELS if name in sample.labels)): sample.value for sample in samples}


def recount(events):
    return Counter(("portfsm_events_total", event.pool, event.kind.value, event.cause) for event in events)


def counted(found):
    return {key: value for key, value in found.items() if key[0] == "portfsm_events_total"}


async def work(manager, clock):
    """Some of everything."""
    kept = [await manager.allocate("http", owner=f"a{number}", service="a", node=f"n{number % 2}") for number in range(6)]
    for lease in kept[:3]:
        await manager.release(lease)
    clock.advance(1)
    await manager.allocate("http", owner="again", service="a", node="n0")
    await manager.block("http", 1009, node="n1", reason="broken")
    await manager.release(await manager.allocate("grpc", owner="g"))
    clock.advance(5)
    await manager.sweep()


async def test_a_count_that_the_log_does_not_confirm(log, clock):
    async with open_manager(log.handle(), pools=POOLS, clock=clock) as manager:
        await manager.allocate("http", owner="before")
        after = manager.seq
        async with metrics_of(manager) as metrics:
            await work(manager, clock)
            registry = registered(metrics)
        found, until = scraped(registry), manager.seq
        for pool in ("http", "grpc"):
            statistics = manager.statistics(pool)
            for state in PortState:
                assert found["portfsm_ports", pool, state.value.lower()] == getattr(statistics, state.value.lower())
        assert (found["portfsm_seq",], found["portfsm_durable_seq",], found["portfsm_epoch",]) == (until, until, 1)
    assert counted(found) == recount(event for event in log.events(after=after) if event.seq <= until)


async def test_the_time_that_ports_were_held_back_is_another_in_the_log(memory_log, clock):
    """One port goes back to its service after a second, the others by time after six; the one that was held before is told as well."""
    async with open_manager(memory_log.handle(), pools=POOLS, clock=clock) as manager:
        await manager.release(await manager.allocate("http", owner="early"))
        clock.advance(1)
        async with metrics_of(manager) as metrics:
            await work(manager, clock)
        found = scraped(registered(metrics))
    times = {
        key[1:]: (found["portfsm_quarantine_seconds_sum", *key[1:]], value) for key, value in found.items() if key[0].endswith("s_count")
    }
    since, by_hand = {}, {}
    for event in memory_log.events():
        place = (event.node, event.pool, event.port)
        if event.kind == EventKind.RELEASED:
            since[place] = event.ts
        elif place in since and event.kind in {"allocated", "freed"}:
            took = (event.ts - since.pop(place)) / SECOND
            label = (event.pool, event.cause if event.kind == "freed" else "reused")
            by_hand[label] = tuple(map(sum, zip(by_hand.get(label, (0.0, 0)), (took, 1), strict=True)))
    assert times == {label: pytest.approx(both) for label, both in by_hand.items()}
    assert times["http", "reused"] == (1.0, 1)


class Watched:
    """A manager that knows from which threads it was read."""

    def __init__(self, manager):
        self._manager, self.threads = manager, set()

    def __getattr__(self, name):
        self.threads.add(threading.get_ident())
        return getattr(self._manager, name)


async def test_a_scrape_from_another_thread_sees_the_middle_of_a_change(memory_log):
    """A manager belongs to its loop: a scrape is taken there, at one moment, whoever asks."""
    async with open_manager(memory_log.handle(), pools=POOLS) as manager:
        watched = Watched(manager)
        async with metrics_of(watched) as metrics:
            await manager.allocate("http", owner="a")
            found = await anyio.to_thread.run_sync(scraped, registered(metrics))
    assert found["portfsm_ports", "http", "allocated"] == 1
    assert watched.threads == {threading.get_ident()}


async def test_metrics_that_cannot_be_left_when_cancelled(memory_log):
    async with open_manager(memory_log.handle(), pools=POOLS) as manager:
        with anyio.CancelScope() as scope:
            async with metrics_of(manager):
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await manager.allocate("http", owner="a")


async def test_metrics_that_outlive_their_manager_or_end_it(log):
    """A log that fails fails its callers; the collector shows what it saw last, from any thread."""
    gated = log.gated()
    async with open_manager(gated, pools=POOLS) as manager:
        with pytest.raises(OutcomeUnknown):
            async with metrics_of(manager) as metrics:
                await manager.allocate("http", owner="a")
                gated.fail(OutcomeUnknown("the disk is gone", path="x"))
                await manager.allocate("http", owner="b")
        found = await anyio.to_thread.run_sync(scraped, registered(metrics))
        assert found["portfsm_events_total", "http", "allocated", ""] == 1
        assert found["portfsm_durable_seq",] == manager.durable_seq
