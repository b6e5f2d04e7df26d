"""Clients that do not trust the answer: each asks for a service and looks at who answered.

Every client keeps one connection to the proxy; between them they ask for the services in turn. An answer from another service
than the one asked is *wrong*: in a real system it is a 404 from a stranger, or worse, a 200. No answer in time, or a 502,
is *failed*. The counts are printed as JSON lines while they grow, and once more at the end.
"""

from __future__ import annotations

import itertools
import sys
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import attrs
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from portfsm.demo.processes import run_until_dismissed, say

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIENTS = 8
PAUSE_S = 0.05
"""Between two requests of one client: eight of them make about 150 requests a second."""
PATIENCE_S = 5.0
REPORT_S = 0.2
HEAD_LIMIT = 65_536


class Answer(msgspec.Struct):
    """What a replica says of itself, and the path it was asked for."""

    service: str
    owner: str
    port: int
    path: str


@attrs.define
class Counts:
    """What came back so far; the first wrong answer and the first failure in words."""

    right: int = 0
    wrong: int = 0
    failed: int = 0
    example: str = ""
    failure: str = ""

    def judge(self, service: str, path: str, status: int, body: bytes) -> None:
        """Count one answer to a request for `path` of `service`."""
        if status != HTTPStatus.OK:
            self.fail(f"{service}{path}: status {status}")
            return
        answer = msgspec.json.decode(body, type=Answer)
        if (answer.service, answer.path) == (service, path):
            self.right += 1
            return
        self.wrong += 1
        self.example = self.example or f"asked for {service}{path}, answered by {answer.owner} on port {answer.port}"

    def fail(self, why: str) -> None:
        """Count a request that got no answer."""
        self.failed += 1
        self.failure = self.failure or why


async def ask_for_ever(port: int, services: Sequence[str], counts: Counts, *, name: int) -> None:
    """One client: ask, judge, pause. A broken connection counts as one failure and is made anew."""
    numbers = itertools.count(name, CLIENTS)
    while True:
        try:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                lines = BufferedByteReceiveStream(stream)
                while True:
                    number = next(numbers)
                    service, path = services[number % len(services)], f"/{number}"
                    with anyio.fail_after(PATIENCE_S):
                        await stream.send(f"GET {path} HTTP/1.1\r\nHost: {service}\r\n\r\n".encode())
                        counts.judge(service, path, *await read_answer(lines))
                    await anyio.sleep(PAUSE_S)
        except (OSError, TimeoutError, anyio.IncompleteRead, anyio.BrokenResourceError) as error:
            counts.fail(repr(error))
            await anyio.sleep(PAUSE_S)


async def read_answer(lines: BufferedByteReceiveStream) -> tuple[int, bytes]:
    """Status and body of the next answer on the connection."""
    head = await lines.receive_until(b"\r\n\r\n", HEAD_LIMIT)
    status = int(head.split(b" ", 2)[1])
    _, _, length = head.lower().partition(b"content-length: ")
    return status, await lines.receive_exactly(int(length.split(b"\r\n")[0]))


async def report_for_ever(counts: Counts) -> None:
    """Print the counts now and then, for whoever watches."""
    while True:
        say(counts)
        await anyio.sleep(REPORT_S)


async def main(port: int, leash: int, services: Sequence[str]) -> None:
    """Ask the proxy on `port` until dismissed; the last line has the final counts."""
    counts = Counts()

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(report_for_ever, counts)
            for name in range(CLIENTS):
                group.start_soon(partial(ask_for_ever, port, services, counts, name=name))

    await run_until_dismissed(work, leash=leash)
    say(counts)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
