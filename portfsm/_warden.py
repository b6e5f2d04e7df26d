"""Ends quarantines: asks the witnesses about the ports that wait for their answer, and records what is complete.

Rule: one task a proxy (`_post`), whatever the number of ports; all its open cases go into one round of questions. A round is
followed by a pause that grows from 5 ms to 500 ms while nothing changes. A new case, `wait_clear`, a witness's own wake-up or a changed set
of proxies ends it. When an `allocate` begins to wait in a pool that has cases the pauses start over, and while anybody waits they grow to
50 ms and no further. Nothing is asked while nothing waits. What a proxy holds it is told to take out of service, again and again.
What answers mean is `_evidence`'s business, and whether they free a port the machine's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from portfsm import commands
from portfsm._evidence import Cases, Place
from portfsm._pool import ALLOCATED, QUARANTINED
from portfsm._post import Post
from portfsm.errors import InvalidValue, PortfsmError
from portfsm.evidence import Witness
from portfsm.specs import check_seconds, check_text
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from portfsm._engine import Engine
    from portfsm._evidence import Case
    from portfsm.events import Event
    from portfsm.values import Lease

    AddressOf = Mapping[str, str] | Callable[[str], str]

__all__ = ["Warden", "check_witnesses"]

_LAST_PAUSE_NS = 500_000_000
_AWAITED_PAUSE_NS = 50_000_000
_NEVER = 1 << 63
_LOOPBACK = "127.0.0.1"


def check_witnesses(witnesses: Iterable[Witness]) -> tuple[Witness, ...]:
    """Return `witnesses` as a tuple if each is one, else raise `InvalidValue`."""
    found = tuple(witnesses)
    for witness in found:
        if isinstance(witness, type) or not isinstance(witness, Witness):
            raise InvalidValue(f"a witness has proxy, fallback_s, check(), changed(), not so {witness!r}", name="witnesses", value=witness)
        check_text("proxy", witness.proxy, required=True)
        if witness.fallback_s is not None:
            check_seconds("fallback_s", witness.fallback_s)
    return found


class Warden:
    """All witnesses of one manager. Made and used on its loop."""

    def __init__(self, engine: Engine, tasks: TaskGroup, *, address_of: AddressOf | None = None) -> None:
        """Take up what the log leaves open, and follow the engine from now on."""
        self.cases = Cases()
        self._engine = engine
        self._tasks = tasks
        self._address_of = address_of
        self._posts: dict[str, Post] = {}
        self._ripe: dict[Place, int] = {}
        """Ports to look at again, and when (log time): their evidence is complete, their floor is not over."""
        self._look = anyio.Event()
        self._news: anyio.Event | None = None
        """Set for those in `wait_clear`, if there are any."""
        self._awaiting = 0
        """Calls in `wait_clear`."""
        if engine.ahead.proxies:
            self.cases.restore(engine.ahead)
        engine.on_commit = self._take_events
        engine.waiters.on_first = self._hurry_posts
        tasks.start_soon(self._ripen)

    # ------------------------------------------------------------------ what happens to ports

    def _take_events(self, events: Sequence[Event]) -> None:
        """No events: the journal failed, which those who wait must hear."""
        if events and (self._engine.ahead.proxies or self.cases.open):  # of a controller without proxies nothing is noted
            if events[0].kind is EventKind.PROXY_JOINED and len(self._engine.ahead.proxies) == 1:
                self.cases.restore(self._engine.ahead)
            if self.cases.take_events(events):
                self._wake_posts()
            self._look_at(self._settled_by(events))
        self._tell()

    def _settled_by(self, events: Sequence[Event]) -> list[Place]:
        """Ports whose evidence was complete before they were released, or is now that a proxy has left or a floor is shorter."""
        if events[0].kind in (EventKind.PROXY_LEFT, EventKind.POOL_DEFINED):
            return list(self.cases.open)
        places = [Place(event.node, event.pool, event.port) for event in events if event.kind is EventKind.RELEASED]
        return [place for place in places if place in self.cases.open and self.is_complete(self.cases.open[place])]

    def _wake_posts(self) -> None:
        for post in self._posts.values():
            post.ask_now()

    def _hurry_posts(self, place: tuple[str, str]) -> None:
        if any(case[:2] == place for case in self.cases.open):
            for post in self._posts.values():
                post.hurry()

    def longest_pause_ns(self, cases: Sequence[Case]) -> int:
        """How long these may go unasked: less while somebody waits for one of them."""
        awaited = self._awaiting or any(self._engine.waiters.has(case.place[:2]) for case in cases)
        return _AWAITED_PAUSE_NS if awaited else _LAST_PAUSE_NS

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    # ------------------------------------------------------------------ witnesses

    async def join(self, witness: Witness) -> None:
        """Require this proxy's evidence from now on; returns when that is durable."""
        present = self._posts.get(witness.proxy)
        if present is not None and present.witness is not witness:
            raise InvalidValue(
                f"proxy {witness.proxy!r} has another witness here: give each proxy instance its own name",
                name="proxy",
                value=witness.proxy,
            )
        self._engine.submit(commands.Join(witness.proxy))
        if present is None:
            post = self._posts[witness.proxy] = Post(self, witness)
            self._tasks.start_soon(post.run)
        await self._engine.settle()

    async def leave(self, proxy: str, *, reason: str) -> None:
        """Require it no more."""
        self._engine.submit(commands.Leave(proxy, reason=reason))
        self._engine.serve(self._engine.waiters.places)  # with the last one, holds that were over are
        if (post := self._posts.pop(proxy, None)) is not None:
            post.scope.cancel()
        self.cases.forget(proxy)  # who comes back under its name is somebody else
        await self._engine.settle()

    def host(self, node: str) -> str:
        """What proxies call a node."""
        if callable(self._address_of):
            return self._address_of(node)
        if self._address_of is not None and node in self._address_of:
            return self._address_of[node]
        return node or _LOOPBACK

    # ------------------------------------------------------------------ conclusions

    def is_complete(self, case: Case) -> bool:
        """Whether every required proxy has let go of the case's port."""
        bounds = {proxy: post.witness.fallback_s for proxy, post in self._posts.items()}
        return self.cases.is_complete(case, self._engine.ahead.required, bounds, self._engine.now())

    def evidence_for(self, lease: Lease) -> str:
        """That every proxy has let go of a withdrawn lease's port, for the event's reason; empty while one has not."""
        if not self.cases.open:  # of most controllers, on most calls
            return ""
        case = self.cases.open.get(Place(lease.node, lease.pool, lease.port))
        return case.why_clear(self._engine.ahead.required) if case is not None and self.is_complete(case) else ""

    def conclude(self, cases: Iterable[Case]) -> None:
        """End the quarantines whose evidence is complete."""
        complete = [case for case in cases if self.cases.open.get(case.place) is case and self.is_complete(case)]
        for case in complete:
            self._free(case)
        if complete:
            self._tell()

    def _free(self, case: Case) -> None:
        node, name, port = case.place
        pool = self._engine.ahead.pool(name, node)
        offset = pool.row(port)
        if offset < 0 or pool.state[offset] != QUARANTINED:
            return  # withdrawn, and its replica still drains
        due = pool.evidence_frees_at(offset)
        if due > self._engine.now():
            self._look_at((case.place,), due)
            return
        reason = case.why_clear(self._engine.ahead.required)[: commands.REASON_LIMIT]
        with suppress(PortfsmError):  # the manager is being left, or its journal failed: reopening asks again
            self._engine.submit(commands.Clear(name, port, node=node, reason=reason))

    def _look_at(self, places: Iterable[Place], when: int = 0) -> None:
        for place in places:
            self._ripe[place] = when
            self._look.set()

    async def _ripen(self) -> None:
        """Look again at complete cases when their floor is over."""
        while True:
            self._look = anyio.Event()
            now = self._engine.now()
            ripe = [place for place, when in self._ripe.items() if when <= now]
            for place in ripe:
                del self._ripe[place]
            self.conclude(case for place in ripe if (case := self.cases.open.get(place)) is not None)
            if not self._look.is_set():
                await self.pause(self._look, min(self._ripe.values()) - now if self._ripe else None)

    async def wait_clear(self, lease: Lease, *, timeout_s: float | None) -> bool:
        """Whether every required proxy let go of a withdrawn or released port in time, or time alone ended its hold."""
        self._awaiting += 1
        try:
            self._wake_posts()  # the proxies have most likely just been told
            return await self._until_clear(lease, timeout_s)
        finally:
            self._awaiting -= 1

    async def _until_clear(self, lease: Lease, timeout_s: float | None) -> bool:
        engine = self._engine
        end = _NEVER if timeout_s is None else engine.now() + round(timeout_s * 1e9)
        while True:
            while not self._is_clear(lease):
                engine.check_open()
                now, wake = engine.now(), min(end, self._over_at(lease))
                if end <= now:
                    return False
                self._news = self._news or anyio.Event()
                await self.pause(self._news, wake - now if wake < _NEVER else None)
            await engine.settle()  # of what is not durable no proxy was told
            if self._is_clear(lease):
                return True

    def _is_clear(self, lease: Lease) -> bool:
        pool = self._engine.ahead.pool(lease.pool, lease.node)
        offset = pool.row(lease.port)
        if offset < 0 or pool.token[offset] != lease.token or pool.state[offset] not in (ALLOCATED, QUARANTINED):
            return True
        if pool.state[offset] == ALLOCATED and not pool.note(offset).withdrawn:
            raise InvalidValue("nobody has told the proxies: withdraw(lease) or release(lease) first", name="lease", value=lease)
        case = self.cases.open.get(Place(lease.node, lease.pool, lease.port))
        return (case is not None and self.is_complete(case)) or self._over_at(lease) <= self._engine.now()

    def _over_at(self, lease: Lease) -> int:
        """When time alone ends the hold of a QUARANTINED port, noticed or not."""
        pool = self._engine.ahead.pool(lease.pool, lease.node)
        offset = pool.row(lease.port)
        return _NEVER if pool.kept or pool.state[offset] != QUARANTINED else pool.until[offset]

    def boot_ns(self) -> int:
        """The clock of pauses."""
        return self._engine.clock.boot_ns()

    async def pause(self, event: anyio.Event, ns: int | None) -> None:
        """Until the event is set, and no longer than `ns` nanoseconds of the clock."""
        if ns is None:
            await event.wait()
        else:
            await self.within(ns, event.wait)

    async def within(self, ns: int, call: Callable[[], Awaitable[object]]) -> bool:
        """Until `call` returns, and no longer than `ns` nanoseconds of the clock; whether it did."""
        clock, done = self._engine.clock, False
        async with anyio.create_task_group() as tasks:

            async def sleep() -> None:
                await clock.sleep_until(clock.boot_ns() + ns)
                tasks.cancel_scope.cancel()

            tasks.start_soon(sleep)
            await call()
            done = True
            tasks.cancel_scope.cancel()
        return done

    def explain(self, place: Place) -> str:
        """Which proxies still hold a port, in words; empty when none is asked."""
        case = self.cases.open.get(place)
        return "" if case is None else case.why_held(self._engine.ahead.required)
