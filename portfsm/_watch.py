"""Following the log while it grows: from the events still in memory, else from the journal itself."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import anyio.to_thread
from anyio.lowlevel import checkpoint

from portfsm.errors import InternalError, InvalidValue
from portfsm.journals import read_journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm._ledger import Ledger
    from portfsm.events import Event

__all__ = ["Source", "Watch"]

_CHUNK = 1024


class Checked(Protocol):
    """What can fail for good."""

    def check(self) -> None:
        """Raise what stopped it, if anything did."""
        ...


class Source(Protocol):
    """What can be watched: a manager's engine, or whoever follows a log."""

    journal: Any
    published: Ledger
    recent: deque[Event]
    """The last ones of `published`."""
    news: anyio.Event
    """Set, and another in its place, when there is more."""
    closed: bool
    """What is in `ahead` is the end."""

    @property
    def ahead(self) -> Ledger: ...
    @property
    def writer(self) -> Checked: ...


class Watch:
    """Durable events with `seq > after` (None: the last one now), each once and in order, until the manager is left.

    A class and not a generator: a cancelled wait loses nothing and the next one goes on, and a watch that is
    dropped half-way leaves nothing to clean up.
    """

    def __init__(self, engine: Source, after: int | None) -> None:
        last = engine.published.seq
        if after is not None and (type(after) is not int or not 0 <= after <= last):
            raise InvalidValue(f"after must be a seq from 0 to {last}, the last one now, not {after!r}", name="after", value=after)
        self._engine = engine
        self._seq = last if after is None else after
        self._ready: deque[Event] = deque()
        self._source: Iterator[Event] | None = None

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            await checkpoint()
            if not self._ready:  # another task that shares this watch may have come first
                await self._refill()
        event = self._ready.popleft()
        self._seq = event.seq
        return event

    async def _refill(self) -> None:
        engine = self._engine
        missed = engine.published.seq - self._seq
        if missed > len(engine.recent):
            await self._read()
        elif missed:
            self._source = None
            start = len(engine.recent) - missed
            self._ready.extend(engine.recent[place] for place in range(start, min(start + _CHUNK, len(engine.recent))))
        elif engine.closed and engine.published.seq == engine.ahead.seq:
            raise StopAsyncIteration
        else:
            engine.writer.check()
            await engine.news.wait()

    async def _read(self) -> None:
        """From the log, in a thread. What is written there and not yet durable is left for later."""
        seq, source = self._seq, self._source or read_journal(self._engine.journal, after=self._seq)
        self._source = None  # a native cancellation does not wait for the thread: what it takes would be missing then
        chunk = await anyio.to_thread.run_sync(_take, source)
        if self._ready or self._seq != seq:
            return
        durable = [event for event in chunk if event.seq <= self._engine.published.seq]
        if not durable:
            raise InternalError(f"the log ends before seq {self._seq + 1}, which is durable: was it cut while it was open?")
        self._source = source if len(durable) == len(chunk) else None
        self._ready.extend(durable)


def _take(source: Iterator[Event]) -> list[Event]:
    return list(islice(source, _CHUNK))
