"""Records what a real HAProxy answers, for the tests that run without one: `python -m tests.witnesses.record`.

The scene: backend `a` with a slot in service that has an established stream and one in its queue, one in maintenance, one whose replica is
gone and whose stream tries again, one by name, one on IPv6, one on a unix socket; then a reload, with the old worker kept by its
clients.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import anyio

from portfsm.witnesses._haproxy_answers import questions
from tests.witnesses.helpers import free_port, until
from tests.witnesses.real import Proxy, proxy_home, running

PLACE = Path(__file__).parent / "recorded"
BUSY, RESTING, GONE, NAMED, SIX = 21001, 21002, 21003, 21004, 21005
SLOTS = f"""server busy 127.0.0.1:{BUSY} maxconn 1
    server resting 127.0.0.1:{RESTING} disabled
    server named localhost:{NAMED} weight 0
    server six [::1]:{SIX} weight 0
    server unix unix@/run/app.sock weight 0"""


def keep(name: str, answer: str) -> None:
    """Without the name of this machine."""
    (PLACE / f"{name}.txt").write_text(re.sub(r"(?m)^node: .*$", "node: proxy", answer))


async def send(proxy: Proxy, path: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.front))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


async def scene(proxy: Proxy) -> None:
    proxy.extra, proxy.hard_stop = SLOTS, "20s"
    proxy.write(417, b=[GONE])
    text = proxy.config.read_text()
    head, _, rest = text.partition("backend b\n")
    proxy.config.write_text(f"{head}backend b\n    server gone 127.0.0.1:{GONE}\n")
    assert rest
    await proxy.start()
    (pid,) = await proxy.pids("worker")
    clients = [await send(proxy, path) for path in ("/a/", "/a/", "/b/", "/a/half")]
    idle = socket.create_connection(("127.0.0.1", proxy.front))

    async def ready() -> bool:
        streams = await proxy.ask(f"@!{pid} show sess")
        return all(re.search(rf"srv={what}", streams) for what in (r"busy .*scb=\[8", r"gone .*scb=\[[3-7]")) and "scb=[2" in streams

    await until(ready)
    keep("listing", await proxy.ask("show proc"))
    keep("worker", await proxy.ask(questions(pid)))
    keep("elsewhere", await proxy.ask(questions(999_999)))
    keep("unset", await proxy.ask(f"@!{pid} show env NOT_THERE"))
    await proxy.reload()
    keep("listing_reloaded", await proxy.ask("show proc"))
    keep("worker_old", await proxy.ask(questions(pid)))
    for client in (*clients, idle):
        client.close()


async def main() -> None:
    PLACE.mkdir(exist_ok=True)
    with proxy_home() as proxy:
        async with running("a", BUSY, mute=True):
            proxy.front = free_port()
            await scene(proxy)


if __name__ == "__main__":
    anyio.run(main)
