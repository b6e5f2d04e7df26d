"""Clients that know which service they asked: fresh ones, idle ones on kept connections, and ones that stop in mid-request."""

from __future__ import annotations

import contextlib
import re

import anyio
import anyio.abc
import attrs

from tests.evidence.scene import HOST, SERVICES, Edge

LOST = (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError)
REPLY = re.compile(rb"HTTP/1\.1 (\d+).*?content-length: (\d+)\b.*?\r\n\r\n", re.DOTALL | re.IGNORECASE)


@attrs.define
class Tally:
    """What clients got. `lost`: an error of the proxy, or a connection that was closed; annoying, not wrong."""

    right: int = 0
    wrong: int = 0
    lost: int = 0

    @property
    def requests(self) -> int:
        return self.right + self.wrong + self.lost

    def take(self, service: str, name: str) -> None:
        """Count one answer."""
        if not name:
            self.lost += 1
        elif name == service:
            self.right += 1
        else:
            self.wrong += 1


def _request(service: str) -> bytes:
    return f"GET /{service}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def _name(stream: anyio.abc.SocketStream) -> str:
    """The name in the next answer; empty for one that is not 200."""
    data = b""
    while (found := REPLY.match(data)) is None or len(data) < found.end() + int(found[2]):
        data += await stream.receive()
    return data[found.end() :].decode() if found[1] == b"200" else ""


@attrs.define(eq=False)
class Client:
    """One connection to a proxy, for one service."""

    service: str
    stream: anyio.abc.SocketStream
    tally: Tally
    owed: bytes = b""
    """What is still to be sent of the next request."""

    async def ask(self) -> None:
        """Send what is owed, and count what comes."""
        name = ""
        with contextlib.suppress(*LOST):
            with anyio.fail_after(20):
                await self.stream.send(self.owed)
                name = await _name(self.stream)
        self.tally.take(self.service, name)
        self.owed = _request(self.service)

    async def close(self) -> None:
        with contextlib.suppress(*LOST):
            await self.stream.aclose()


async def connected(edge: Edge, service: str, tally: Tally) -> Client:
    return Client(service, await anyio.connect_tcp(HOST, edge.front), tally, _request(service))


async def fresh(edge: Edge, tally: Tally, count: int) -> None:
    """`count` requests for each service, each on a connection of its own."""
    for _ in range(count):
        for service in SERVICES:
            client = await connected(edge, service, tally)
            await client.ask()
            await client.close()


async def held_back(edge: Edge, tally: Tally, *, idle: int, half: int) -> list[Client]:
    """For each service so many connections that had an answer and now sit idle, and so many that sent half a request."""
    clients = []
    for service in SERVICES:
        for number in range(idle + half):
            client = await connected(edge, service, tally)
            if number < idle:
                await client.ask()
            else:
                await client.stream.send(client.owed[:20])
                client.owed = client.owed[20:]
            clients.append(client)
    return clients


async def go_on(clients: list[Client]) -> None:
    """Each one asks, all at once, and closes."""

    async def finish(client: Client) -> None:
        await client.ask()
        await client.close()

    async with anyio.create_task_group() as tasks:
        for client in clients:
            tasks.start_soon(finish, client)
