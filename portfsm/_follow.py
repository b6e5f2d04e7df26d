"""A read-only copy of a log's state, kept up to date: for dashboards, stand-bys and whoever may look but not lead."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from portfsm._explain import explain
from portfsm._ledger import Ledger
from portfsm._log import warn
from portfsm._replay import replay
from portfsm._watch import Watch
from portfsm.clocks import SystemClock, Timeline
from portfsm.errors import JournalUnreadable, ManagerClosed, PortfsmError
from portfsm.journals._tail import tail_of
from portfsm.specs import check_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from portfsm.events import Event
    from portfsm.journals import Target
    from portfsm.journals._tail import Tail
    from portfsm.protocols import Clock
    from portfsm.specs import PoolSpec
    from portfsm.states import PortState
    from portfsm.values import Lease, PoolStatistics, PortView

__all__ = ["Follower", "follow"]

RECENT = 8_192


@asynccontextmanager
async def follow(journal: Target, *, poll_s: float = 0.5, clock: Clock | None = None) -> AsyncIterator[Follower]:
    """Read a log without its lock, and go on reading while the block runs: every event, each once, in order.

    `journal`: as for `open_manager`. PostgreSQL tells when there is more; the log is looked at every `poll_s` seconds all the same, so
    word that is lost costs time and no event. A server that goes away later is waited for, and the copy stays as old as
    it is meanwhile (`Follower.trouble`). Raises what `read_journal` does; a log found damaged later raises from every call.
    """
    tail = tail_of(journal)
    follower = Follower(journal, clock if clock is not None else SystemClock())
    with tail:
        await follower.catch_up(tail, at_first=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follower.keep_up, tail, check_seconds("poll_s", poll_s))
            try:
                yield follower
            finally:
                tasks.cancel_scope.cancel()
                follower.leave()


class Follower:
    """The state of a log as it was a moment ago. Made by `follow`; all calls belong on the event loop it was made on."""

    def __init__(self, journal: Target, clock: Clock) -> None:
        self.journal = journal
        """What is followed."""
        self.published = Ledger()
        """The state itself, for `decide` and whoever needs all of it. Do not change it."""
        self.recent: deque[Event] = deque(maxlen=RECENT)
        """The last events."""
        self.news = anyio.Event()
        """Set when there is more, and replaced by another."""
        self.trouble = ""
        """Why nothing comes at present, in a sentence; empty when all is well."""
        self.closed = False
        """The block was left."""
        self._clock = clock
        self._failure: PortfsmError | None = None
        self._limiter = anyio.CapacityLimiter(1)

    # ------------------------------------------------------------------ what is shown

    def port(self, pool: str, port: int, *, node: str = "") -> PortView:
        """One port as recorded. Raises `UnknownPool`, `PortOutOfRange`."""
        return self._checked().port(pool, port, node=node)

    def find(self, owner: str) -> tuple[Lease, ...]:
        """The leases that `owner` holds, by node and pool."""
        return tuple(self._checked().find(owner))

    def ports(self, pool: str | None = None, *, node: str | None = None, state: PortState | None = None) -> tuple[PortView, ...]:
        """Every port that is not FREE, by node, pool and number; with `state`, those in it that were ever used."""
        return tuple(self._checked().ports(pool, node=node, state=state))

    def statistics(self, pool: str | None = None, *, node: str | None = None) -> PoolStatistics:
        """Counts per state, summed over the pools and nodes that match and were ever used."""
        return self._checked().statistics(pool, node=node)

    def explain(self, pool: str, port: int, *, node: str = "") -> str:
        """Why a port is not free, since when, by whom, until when, and which call would free it."""
        ledger = self._checked()
        now_ns = max(ledger.ts, Timeline(self._clock, opened=ledger.opened, last_ts=ledger.ts).now())
        return explain(ledger, pool, port, node=node, now_ns=now_ns)

    def digest(self) -> str:
        """SHA-256 of the whole state, in hex: that of the leader at the same `seq`."""
        return self._checked().digest()

    @property
    def pools(self) -> dict[str, PoolSpec]:
        """The pools in force, by name."""
        return dict(self._checked().specs)

    @property
    def seq(self) -> int:
        """The last event that is shown."""
        return self._checked().seq

    @property
    def epoch(self) -> int:
        """The number of the opening that wrote it."""
        return self._checked().epoch

    def watch(self, *, after: int | None = None) -> AsyncIterator[Event]:
        """Events as they come: those after seq `after`, or those after now. Ends when the block is left.

        One that falls behind reads the log, so none is ever missed. Raises `InvalidValue` for a seq that is not there yet.
        """
        return Watch(self, after)

    async def reached(self, seq: int) -> None:
        """Return when the event `seq` is shown: what a leader acknowledged with it can be seen then."""
        while self.seq < seq:
            if self.closed:
                raise ManagerClosed("this follower was left: follow the log anew")
            await self.news.wait()

    # ------------------------------------------------------------------ how it goes on

    def _checked(self) -> Ledger:
        self.check()
        return self.published

    @property
    def ahead(self) -> Ledger:
        """As `published`: nothing is decided here."""
        return self.published

    @property
    def writer(self) -> Follower:
        """What `check` is asked of."""
        return self

    def check(self) -> None:
        """Raise what ended the following, if anything did."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def leave(self) -> None:
        """Nothing more will be read."""
        self.closed = True
        self._announce()

    def _announce(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    async def catch_up(self, tail: Tail, *, at_first: bool = False) -> None:
        """Take in what is there. Reading is done in a thread, and so is the work on it as long as nobody looks."""
        parts = tail.take()
        try:
            while (part := await anyio.to_thread.run_sync(self._next, parts, at_first, limiter=self._limiter)) is not None:
                if not at_first:
                    replay(part, onto=self.published)
                self.recent.extend(part)
                self._announce()
        finally:
            _close(parts)

    def _next(self, parts: Iterator[list[Event]], at_first: bool) -> list[Event] | None:  # noqa: FBT001
        part = next(parts, None)
        if part is not None and at_first:
            replay(part, onto=self.published)
        return part

    async def keep_up(self, tail: Tail, poll_s: float) -> None:
        """Until cancelled, or until the log cannot be believed."""
        while self._failure is None:
            await _news_of(tail, poll_s)
            try:
                await self.catch_up(tail)
            except JournalUnreadable as error:
                if not self.trouble:
                    warn("follower_behind", seq=self.published.seq, error=str(error))
                self.trouble = str(error)
            except PortfsmError as error:
                warn("follower_stopped", seq=self.published.seq, error=str(error))
                self._failure = error
                self._announce()
            else:
                self.trouble = ""


async def _news_of(tail: Tail, poll_s: float) -> None:
    """Sleep until there is word of more, `poll_s` seconds at most."""
    fd = tail.fileno()
    if fd < 0:
        await anyio.sleep(poll_s)
        return
    with anyio.move_on_after(poll_s):
        await anyio.wait_readable(fd)


def _close(parts: object) -> None:
    close = getattr(parts, "close", None)
    if close is not None:
        close()
