"""Real processes and servers for the tests of witnesses, and waiting for a condition with a deadline."""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess
import sys
import time

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

    import inspect

    names = [*inspect.signature(test).parameters.values()]
    run.__signature__ = inspect.Signature(
        [inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY), *(p.replace(kind=p.KEYWORD_ONLY) for p in names)]
    )
    return run


async def until(condition, *, patience_s=PATIENCE_S):
    """Wait until `condition` (plain or async) gives something true, and return it."""
    deadline = time.monotonic() + patience_s
    while True:
        found = condition()
        if hasattr(found, "__await__"):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"still not so after {patience_s} s: {condition}"
        await anyio.sleep(0.01)


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


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
