"""A controller with its log on disk, an HAProxy it configures, and replicas that answer their service's name to everybody.

A replica refuses nothing: whoever reaches it by a wrong way gets the wrong name, and the clients count that.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import anyio
import anyio.abc
import attrs

from portfsm import Lease, PoolSpec, PortManager, open_manager
from portfsm.haproxy import RELAY_RULE, reload, render, write
from portfsm.witnesses import HAProxyWitness
from tests.witnesses.helpers import free_port
from tests.witnesses.real import CONFIG, Proxy, proxy_home

HOST = "127.0.0.1"
SERVICES = ("alpha", "beta")
OWN_PART = re.compile(r"(?m)^ *(setenv|description|use_backend b|default_backend) .*\n|^backend relay\n.*\n")
PATIENCE_S = 30.0


@attrs.define
class Edge(Proxy):
    """An HAProxy whose file of backends `portfsm.haproxy` makes, beside one that stays."""

    name: str = "edge"

    @property
    def ports_file(self) -> Path:
        return self.config / "2.cfg"

    def prepare(self) -> None:
        """Write the part that stays."""
        self.config.mkdir()
        rule = RELAY_RULE if self.relay else ""
        text = OWN_PART.sub("", CONFIG.format(stamps="", hard_stop=self.hard_stop, front=self.front, rule=rule, retries=self.retries))
        routes = [f"    use_backend {service} if {{ path_beg /{service}/ }}\n" for service in SERVICES]
        (self.config / "1.cfg").write_text(text + "".join(routes))

    def rendered(self, leases: Sequence[Lease], generation: int) -> str:
        relay = f"{HOST}:{self.front}" if self.relay else None
        return render(leases, generation=generation, services=SERVICES, relay=relay)

    def witness(self, **options) -> HAProxyWitness:
        return HAProxyWitness(self.master_socket, proxy=self.name, ports_file=self.ports_file, **options)


@contextlib.contextmanager
def edge_home(name: str = "edge", **options) -> Iterator[Edge]:
    """An edge that is not started yet."""
    with proxy_home() as home:
        edge = Edge(home.directory, home.front, name=name, **options)
        try:
            yield edge
        finally:
            edge.stop()


class ByReload(HAProxyWitness):
    """Cannot take a slot out of a running worker: only a reload does."""

    withdraw = None


# ---------------------------------------------------------------------- replicas


@attrs.define(eq=False)
class Replica:
    """Answers the name of its service, whatever it is asked, on kept connections."""

    service: str
    port: int
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    gone: anyio.Event = attrs.field(factory=anyio.Event)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with self.scope:
            async with await anyio.create_tcp_listener(local_host=HOST, local_port=self.port) as listener:
                task_status.started()
                await listener.serve(self._serve)
        self.gone.set()

    async def stop(self) -> None:
        """Dies at once, with its connections."""
        self.scope.cancel()
        await self.gone.wait()

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.service)}\r\n\r\n{self.service}".encode()
        with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
            async with stream:
                head = b""
                while True:
                    head += await stream.receive()
                    if head.endswith(b"\r\n\r\n"):
                        head = b""
                        await stream.send(answer)


# ---------------------------------------------------------------------- the controller


class Controller:
    """Starts and ends replicas the way a controller does: lease, process, file, reload."""

    def __init__(self, manager: PortManager, edges: Sequence[Edge], tasks: anyio.abc.TaskGroup) -> None:
        self.manager, self.edges, self._tasks = manager, edges, tasks
        self.routed: dict[Lease, Replica] = {}
        """The replicas that proxies shall know."""
        self._count = 0

    async def start(self, service: str, *, port: int | None = None, wait_s: float = PATIENCE_S) -> Lease:
        """A replica on a port of its own, or on this very one; no proxy knows it yet."""
        self._count += 1
        lease = await self.manager.allocate("http", owner=f"{service}-{self._count}", service=service, port=port, wait_s=wait_s)
        self.routed[lease] = replica = Replica(service, lease.port)
        await self._tasks.start(replica.run)
        return lease

    async def die(self, lease: Lease) -> None:
        """A replica that crashed: gone first, given back then, and the proxies do not know yet."""
        await self.routed.pop(lease).stop()
        await self.manager.release(lease)

    def write(self, edge: Edge) -> int:
        """The file of one proxy as the log is now; its generation."""
        generation = self.manager.seq
        write(edge.ports_file, edge.rendered(list(self.routed), generation))
        return generation

    async def publish(self) -> None:
        """Tell every proxy by file and reload."""
        for edge in self.edges:
            await reload(edge.master_socket, generation=self.write(edge), wait_s=PATIENCE_S)

    def of(self, service: str) -> list[Lease]:
        return [lease for lease in self.routed if lease.service == service]

    def state(self, lease: Lease) -> str:
        return self.manager.port("http", lease.port).state.value


@contextlib.asynccontextmanager
async def controller(
    log: Path, *edges: Edge, ports: Sequence[int] = (), size: int = 4, hold_s: float = 60.0, by_reload: bool = False, watched: bool = True
) -> AsyncIterator[Controller]:
    """Proxies that run, and a controller whose pool is full: half of its ports for each service, all of them routed."""
    pool = PoolSpec("http", ports=ports or [free_port() for _ in range(size)], hold_s=hold_s)
    async with open_manager(log, pools=[pool]) as manager, anyio.create_task_group() as tasks:
        scene = Controller(manager, edges, tasks)
        for number in range(pool.size):
            await scene.start(SERVICES[number % len(SERVICES)])
        for edge in edges:
            edge.prepare()
            scene.write(edge)
            await edge.start()
            if watched:
                await manager.join(ByReload(edge.master_socket, proxy=edge.name) if by_reload else edge.witness())
        yield scene
        tasks.cancel_scope.cancel()
