"""What the model of the manager knows, and what happens to its controller: crashes, restarts, time, other ranges."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import attrs
import hypothesis.strategies as st
from anyio.from_thread import start_blocking_portal
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from portfsm import FileJournal, Lease, PoolSpec, open_manager, read_journal
from portfsm.testing import ManualClock

HOLD = 10
PORTS = range(100, 106)
RANGES = ("100-103", "100-105", "100-102", "100,102-104")
"""The pool as it begins, and what it grows, shrinks or is torn to while everything goes on."""
NODES = ("", "b")
OWNERS = ("r1", "r2", "r3")
SERVICES = ("", "s1", "s2")
SECOND = 1_000_000_000
MEMORY = Path("/dev/shm")
"""Killing a process loses nothing that was written, wherever it was written; syncs are what takes the time here."""


@attrs.define
class Port:
    """What the model knows of one port. `until` in seconds of its own clock; None for no end."""

    state: str = "FREE"
    owner: str = ""
    service: str = ""
    until: float | None = None
    lease: Lease | None = None
    floor: float = 0
    """End of a hold that was running when the port was taken or blocked: it outlasts what came between."""
    mixed: float = 0
    """Until then another service's traffic may come than that of the last one, which so has no claim to the port."""
    ttl_s: float | None = None
    expires: float = 0


class Controller(RuleBasedStateMachine):
    """What happens to the manager, and what the model knows of it."""

    backend = "asyncio"

    @initialize()
    def open(self):
        self.loop = start_blocking_portal(self.backend)
        self.portal = self.loop.__enter__()
        self.call = self.portal.call
        self.home = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.turn = 0
        self.clock = ManualClock()
        self.now = 0.0
        self.model = {(node, port): Port() for node in NODES for port in PORTS}
        self.leases: list[Lease] = []
        self.claims: dict[tuple[str, int], str] = {}
        self.spec = PoolSpec("p", ports=RANGES[0], hold_s=HOLD)
        self.enter()

    def enter(self):
        spec = self.spec
        self.journal = FileJournal(self.home / str(self.turn), reserve_bytes=100)
        self.context = self.portal.wrap_async_context_manager(open_manager(self.journal, pools=[spec], clock=self.clock))
        self.manager = self.context.__enter__()
        self.claims.clear()  # live replicas would be heard anew
        for port in self.model.values():
            port.expires = self.now + (port.ttl_s or 0)
        self.missed: dict[int, tuple[int, int]] = {}  # token -> times, last at: in memory alone
        self.looked: dict[str, int] = {}

    def teardown(self):
        if hasattr(self, "context"):
            self.context.__exit__(None, None, None)
            self.loop.__exit__(None, None, None)
            shutil.rmtree(self.home)

    # ---- what happens to the controller ---------------------------------------------------------------------

    @rule()
    def crash(self):
        """The directory as a kill -9 leaves it; the old manager is dismissed afterwards."""
        old = self.context
        before = self.home / str(self.turn)
        self.turn += 1
        shutil.copytree(before, self.home / str(self.turn))
        old.__exit__(None, None, None)
        self.enter()

    @rule()
    def reopen(self):
        self.context.__exit__(None, None, None)
        self.enter()

    @rule(seconds=st.sampled_from([0.001, 1, 4, HOLD, 25]))
    def pass_time(self, seconds):
        self.call(self.clock.advance, seconds)
        self.now += seconds
        over = [port for port in self.model.values() if port.state == "ALLOCATED" and port.ttl_s and port.expires <= self.now + 1e-9]
        for port in over:
            self.end(port)
        if over:
            self.sweep()

    @rule(seconds=st.sampled_from([-3600, 3600]))
    def set_the_wall_clock(self, seconds):
        self.clock.step_wall(seconds)

    @rule(down_s=st.sampled_from([0, 5.07]))  # no sum of the other times: after a reboot the log is a nanosecond ahead
    def reboot(self, down_s):
        """Every hold starts over in full; the ends of blocks, and of holds under a block or a lease, go by the wall clock."""
        self.context.__exit__(None, None, None)
        before = self.log_now()
        self.clock.reboot(down_s=down_s)
        self.enter()
        jump = (self.log_now() - before) / SECOND
        for (node, number), port in self.model.items():
            port.floor -= jump
            port.mixed -= jump
            if port.state == "BLOCKED" and port.until is not None:
                port.until -= jump
            elif port.state == "QUARANTINED":
                left = (self.manager.port("p", number, node=node).until - self.log_now()) / SECOND
                assert left >= min(HOLD, port.until - self.now)
                port.until = self.now + left
                port.mixed = max(port.mixed, port.until) if port.mixed + jump > 0 else port.mixed

    def log_now(self):
        """The time of the log, from the event that every opening records."""
        opened = [event for event in read_journal(self.home / str(self.turn)) if event.kind == "opened"][-1]
        return opened.ts + self.clock.boot_ns() - opened.data["boot_ns"]

    @rule(ports=st.sampled_from(RANGES))
    def define(self, ports):
        """Leases and holds of ports that leave the ranges go on; a port that comes back finds its hold."""
        self.spec = PoolSpec("p", ports=ports, hold_s=HOLD)
        counts = self.call(self.manager.define, self.spec)
        held = [number for (_, number), port in self.model.items() if port.state != "FREE"]
        assert counts.retired == len([number for number in held if not self.inside(number)])

    def inside(self, number):
        return any(number in piece for piece in self.spec.ports)

    def gone(self, node, number):
        """Whether the port is none of the pool's any more: no call knows it."""
        return self.model[node, number].state == "FREE" and not self.inside(number)

    # ---- what the model knows of a port --------------------------------------------------------------------------

    def due(self, node):
        """What an `allocate` or a `sweep` notices first."""
        for port in (port for (at, _), port in self.model.items() if at == node):
            if port.state == "BLOCKED" and port.until is not None and port.until <= self.now + 1e-9:
                port.state, port.until, port.lease = "QUARANTINED", max(self.now + HOLD, port.floor), None
            elif port.state == "QUARANTINED" and port.until <= self.now + 1e-9:
                self.set_free(port)

    @staticmethod
    def set_free(port):
        port.state, port.owner, port.service, port.until, port.floor, port.mixed = "FREE", "", "", None, 0, 0

    def end(self, port):
        """A lease ends: a hold follows, or a block, if somebody else claims the port."""
        port.state, port.until = "QUARANTINED", max(self.now + HOLD, port.floor)
        port.mixed = port.mixed if port.mixed > self.now else 0
        place = next(place for place, found in self.model.items() if found is port)
        if self.claims.pop(place, ""):
            port.state, port.until, port.floor = "BLOCKED", None, port.until

    def take(self, port, owner, service, lease, *, floor, ttl_s=None):
        mixed = port.mixed if service == port.service else max(port.mixed, floor)
        place = next(place for place, found in self.model.items() if found is port)
        self.model[place] = Port("ALLOCATED", owner, service, None, lease, floor, mixed, ttl_s, self.now + (ttl_s or 0))
        self.leases.append(lease)

    def holder(self, owner, node):
        return next(
            (number for (at, number), port in self.model.items() if at == node and port.state == "ALLOCATED" and port.owner == owner), None
        )
