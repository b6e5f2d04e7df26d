"""Prometheus metrics of one manager: how its ports are, what happened to them, and how long they were held back.

Rule: what is shown can be counted again from the log. Gauges are read from the manager at the moment of a scrape and on its event loop, so
a scrape from another thread sees one moment and not the middle of a change. Counters count durable events, each once, from when this began
to follow the log, and may be a moment behind. There is no label for a node, an owner or a port: those are questions for the log.

    async with open_manager(...) as manager, metrics_of(manager) as metrics:
        prometheus_client.REGISTRY.register(metrics)

Needs the extra `metrics`. The names, and rules for alerts, are in `docs/metrics.md`.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from anyio.from_thread import BlockingPortal
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from portfsm.errors import PortfsmError
from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from prometheus_client import Metric

    from portfsm.events import Event
    from portfsm.manager import PortManager

__all__ = ["Metrics", "metrics_of"]

_STATES = ("free", "allocated", "quarantined", "blocked")
_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 150.0, 300.0, 900.0, 3600.0)
_BEGIN = {EventKind.RELEASED, EventKind.HELD, EventKind.UNBLOCKED}
_END = {EventKind.FREED: "", EventKind.ALLOCATED: "reused", EventKind.ADOPTED: "reused", EventKind.BLOCKED: "blocked"}


class Metrics(Collector):
    """What a `prometheus_client` registry collects from. Made by `metrics_of`; afterwards it goes on to show what it saw last."""

    def __init__(self, manager: PortManager, *, buckets_s: Sequence[float] = _BUCKETS_S) -> None:
        """On the manager's event loop."""
        self._manager = manager
        self._counted = CollectorRegistry()
        self._events = Counter("portfsm_events", "Durable events.", ["pool", "kind", "cause"], registry=self._counted)
        self._held = Histogram(
            "portfsm_quarantine_seconds", "How long ports were held back.", ["pool", "ended"], registry=self._counted, buckets=buckets_s
        )
        held = manager.ports(state=PortState.QUARANTINED)
        self._since = {(view.node, view.pool, view.port): view.since or 0 for view in held}
        self.seen = manager.durable_seq
        """The last event that was counted."""
        self._thread = threading.get_ident()
        self.portal: BlockingPortal | None = None
        """The way onto the event loop, while there is one."""

    def collect(self) -> Iterable[Metric]:
        """Everything at one moment. From any thread; another one's waits for its turn on the event loop."""
        if self.portal is None or threading.get_ident() == self._thread:
            return self._sample()
        return self.portal.call(self._sample)

    def _sample(self) -> list[Metric]:
        return [*self._gauges(), *self._counted.collect()]

    def _gauges(self) -> Iterator[Metric]:
        manager = self._manager
        ports = GaugeMetricFamily("portfsm_ports", "Ports of a pool on all nodes in use, by state.", labels=["pool", "state"])
        retired = GaugeMetricFamily("portfsm_retired_ports", "Ports outside the present ranges that are still held.", labels=["pool"])
        kept = GaugeMetricFamily("portfsm_kept_ports", "Quarantined ports that wait for proxies to let go.", labels=["pool"])
        for pool in manager.pools:
            found = manager.statistics(pool)
            for state in _STATES:
                ports.add_metric([pool, state], getattr(found, state))
            retired.add_metric([pool], found.retired)
            kept.add_metric([pool], found.kept)
        yield from (ports, retired, kept)
        yield GaugeMetricFamily("portfsm_seq", "Last event decided.", value=manager.seq)
        yield GaugeMetricFamily("portfsm_durable_seq", "Last event on disk.", value=manager.durable_seq)
        yield GaugeMetricFamily("portfsm_epoch", "Number of this opening of the log.", value=manager.epoch)

    async def follow(self, *, until: int | None = None) -> None:
        """Count each durable event, up to `until`, or for as long as there are any."""
        with suppress(PortfsmError):  # the log failed: its own callers are told
            async for event in self._manager.watch(after=self.seen):
                self._count(event)
                self.seen = event.seq
                if event.seq == until:
                    break

    def _count(self, event: Event) -> None:
        self._events.labels(event.pool, event.kind.value, event.cause).inc()
        place = (event.node, event.pool, event.port)
        if event.kind in _BEGIN:
            self._since.setdefault(place, event.ts)
        elif event.kind in _END and (since := self._since.pop(place, None)) is not None:
            self._held.labels(event.pool, _END[event.kind] or event.cause).observe((event.ts - since) / 1e9)


@asynccontextmanager
async def metrics_of(manager: PortManager, *, buckets_s: Sequence[float] = _BUCKETS_S) -> AsyncIterator[Metrics]:
    """A collector that follows `manager` until the block is left. `buckets_s`: of how long ports were held back, in seconds."""
    metrics = Metrics(manager, buckets_s=buckets_s)
    tasks, portal = anyio.create_task_group(), BlockingPortal()
    await tasks.__aenter__()
    await portal.__aenter__()
    metrics.portal = portal
    tasks.start_soon(metrics.follow)
    try:
        yield metrics
    finally:
        metrics.portal = None
        # Both are left by hand: their own way wraps what the block raised in an ExceptionGroup.
        try:
            await portal.__aexit__(None, None, None)
        finally:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)
    if metrics.seen < manager.durable_seq:
        await metrics.follow(until=manager.durable_seq)
