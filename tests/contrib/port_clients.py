"""Clients of the port server, and the server in the test's own loop."""

from __future__ import annotations

import contextlib
import json

import anyio
import attrs

from portfsm import PoolSpec, PortManager, open_manager
from portfsm.contrib.portserver import PortServer, unix_socket
from tests.strangers import free_range

PATIENCE_S = 20.0


@attrs.frozen
class Served:
    """A server, how to ask it, and its manager."""

    path: str
    manager: PortManager
    ports: range

    async def say(self, data: bytes) -> bytes:
        """All that is answered to `data`."""
        with anyio.fail_after(PATIENCE_S):
            async with await anyio.connect_unix(self.path) as stream:
                await stream.send(data)
                return await rest(stream)

    async def pick(self, pid: int) -> int:
        """A port for a process, 0 when it is refused."""
        return int((await self.say(b"%d\n" % pid)).split(b"\n")[0])

    async def call(self, target: str, body=None, *, method: str = ""):
        """Status and JSON of a request."""
        answer = await self.say(request(target, body, method=method))
        return parsed(answer)

    @property
    def waiting(self) -> int:
        """How many wait for a port."""
        return len(self.manager._engine.waiters)

    def state(self, port: int) -> str:
        return self.manager.port("tests", port).state.value


async def rest(stream) -> bytes:
    answer = b""
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError), anyio.fail_after(PATIENCE_S):
        while True:
            answer += await stream.receive()
    return answer


def request(target: str, body=None, *, method: str = "") -> bytes:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    return f"{method} {target} HTTP/1.1\r\nhost: ports\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def parsed(answer: bytes):
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@contextlib.asynccontextmanager
async def serving(journal, folder, *, ports: range | None = None, clock=None, size: int = 6, **options):
    """A server of pool `tests` over `journal`, until the block is left."""
    ports = ports or free_range(size)
    spec = PoolSpec("tests", ports=ports, hold_s=60.0)
    path = str(folder / "s")
    async with open_manager(journal, pools=[spec], clock=clock) as manager:
        with unix_socket(path) as listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(PortServer(manager, pool="tests", **options).serve, listener)
                yield Served(path, manager, ports)
                tasks.cancel_scope.cancel()


def ask(**options):
    """The body of a call for a port."""
    return {"pool": "tests", "owner": "r1", **options}
