"""Clients of three habits, all of which look at who answered: some are busy, some come anew each time, some mostly idle.

The idle ones keep a connection to a worker of HAProxy that has long been replaced: their next request is the one that an old worker
sends to where a replica used to be.
"""

from __future__ import annotations

import itertools
import sys
from functools import partial
from typing import TYPE_CHECKING

import anyio
import attrs
from anyio.streams.buffered import BufferedByteReceiveStream

from portfsm.demo.clients import HEAD_LIMIT, PATIENCE_S, PAUSE_S, Counts, report_for_ever
from portfsm.demo.processes import run_until_dismissed, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@attrs.frozen
class Habit:
    """So many clients that pause so long between two requests; `fresh` ones open a connection for each."""

    clients: int
    pause_s: float
    fresh: bool = False


HABITS = (Habit(4, 0.06), Habit(4, 0.06, fresh=True), Habit(12, 1.2))
"""About 140 requests a second."""


async def ask_for_ever(port: int, services: Sequence[str], counts: Counts, habit: Habit, numbers: Iterator[int]) -> None:
    """One client: ask, judge, pause. A connection that breaks counts as one failure and is made anew."""
    while True:
        try:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                lines, stays = BufferedByteReceiveStream(stream), True
                while stays:
                    number = next(numbers)
                    service, path = services[number % len(services)], f"/{number}"
                    with anyio.fail_after(PATIENCE_S):
                        head = f"GET {path} HTTP/1.1\r\nHost: {service}\r\n{'Connection: close' * habit.fresh}\r\n"
                        await stream.send(f"{head.rstrip()}\r\n\r\n".encode())
                        status, body, stays = await read_answer(lines)
                    counts.judge(service, path, status, body)
                    await anyio.sleep(habit.pause_s * stays)
        except (OSError, TimeoutError, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            counts.fail(repr(error))
            await anyio.sleep(PAUSE_S)
        await anyio.sleep(habit.pause_s * habit.fresh)


async def read_answer(lines: BufferedByteReceiveStream) -> tuple[int, bytes, bool]:
    """Status and body of the next answer, and whether the connection stays."""
    head = (await lines.receive_until(b"\r\n\r\n", HEAD_LIMIT)).lower()
    _, _, length = head.partition(b"content-length: ")
    body = await lines.receive_exactly(int(length.split(b"\r\n")[0]))
    return int(head.split(b" ", 2)[1]), body, b"connection: close" not in head


async def main(port: int, leash: int, services: Sequence[str]) -> None:
    """Ask the proxy on `port` until dismissed; the last line has the final counts."""
    counts, numbers = Counts(), itertools.count()

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(report_for_ever, counts)
            for habit in HABITS:
                for _ in range(habit.clients):
                    group.start_soon(partial(ask_for_ever, port, services, counts, habit, numbers))

    await run_until_dismissed(work, leash=leash)
    say(counts)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
