"""Following the log while it grows: from the events still in memory, else from the journal itself."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import anyio.to_thread

from portfsm.errors import InvalidValue
from portfsm.journals import read_journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from portfsm._engine import Engine
    from portfsm.events import Event

__all__ = ["watch"]

_CHUNK = 1024


async def watch(engine: Engine, *, after: int | None) -> AsyncIterator[Event]:
    """Durable events with `seq > after` (None: the last one now), each once and in order, until the manager is left."""
    seq = engine.published.seq if after is None else after
    if seq < 0 or seq > engine.published.seq:
        raise InvalidValue(f"after must be a seq from 0 to {engine.published.seq}, not {after!r}", name="after", value=after)
    while True:
        news = engine.news
        async for event in _missed(engine, seq):
            seq = event.seq
            yield event
        if seq < engine.published.seq:
            continue
        if engine.closed and engine.published.seq == engine.ahead.seq:
            return
        if engine.writer.failure is not None:
            raise engine.writer.failure
        await news.wait()


async def _missed(engine: Engine, seq: int) -> AsyncIterator[Event]:
    """What is durable now and was not seen."""
    recent = engine.recent
    if seq < engine.published.seq and (not recent or recent[0].seq > seq + 1):
        source = read_journal(engine.journal, after=seq)
        last = recent[0].seq if recent else engine.published.seq + 1
        while chunk := await anyio.to_thread.run_sync(_take, source):
            for event in chunk:
                if event.seq >= last:
                    return
                yield event
    else:
        # A copy: the deque may grow while the consumer works on what it was given.
        for event in list(islice(recent, max(0, seq + 1 - recent[0].seq) if recent else 0, None)):
            yield event


def _take(source: Iterator[Event]) -> list[Event]:
    return list(islice(source, _CHUNK))
