"""What brings a slot back, or leads to a port past it, without the controller: tried on a real HAProxy after the port was asked about."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import AsyncIterator

import anyio
import anyio.abc
import attrs
import pytest

from portfsm.evidence import Verdict
from portfsm.haproxy import RELAY_RULE
from tests.evidence.scene import Replica as Service
from tests.witnesses.helpers import free_port, until
from tests.witnesses.real import HOST, Proxy, ask_for_a_while, ask_once, cleared, get, held, running, tries_again

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"]), pytest.mark.timeout(120)]


def reconfigure(proxy: Proxy, port: int, becomes: str) -> None:
    """Write the slot of a port another way; `{}` is the address it has."""
    text = proxy.config.read_text()
    pattern = rf"(server s{port}) ({HOST}:{port})"
    assert re.search(pattern, text)
    proxy.config.write_text(re.sub(pattern, lambda found: f"{found[1]} {becomes.format(found[2])}", text))


async def slot(proxy: Proxy, port: int) -> dict[str, str]:
    """The line of the table, by column."""
    (pid,) = await proxy.pids("worker")
    lines = (await proxy.ask(f"@!{pid} show servers state a")).splitlines()
    (row,) = [line.split() for line in lines if f" s{port} " in line]
    return dict(zip(lines[1][2:].split(), row, strict=True))


@contextlib.asynccontextmanager
async def agent(word: bytes) -> AsyncIterator[int]:
    """An agent that gives every check this word; its port."""
    port = free_port()

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(word)

    async with await anyio.create_tcp_listener(local_host=HOST, local_port=port) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield port
        tasks.cancel_scope.cancel()


async def test_an_agent_that_ends_the_maintenance_of_a_port_called_clear(proxy):
    """Not told, the witness holds what an agent says `ready` of; `withdraw` silences the agent, and the slot stays out."""
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept])
    async with agent(b"ready\n") as port, running("a", kept):
        reconfigure(proxy, taken, f"{{}} agent-check agent-port {port} agent-inter 50ms")
        await proxy.start()
        witness, (pid,) = proxy.witness(), await proxy.pids("worker")
        proxy.stamp(11)
        await proxy.ask(f"@!{pid} set server a/s{taken} state maint")
        await held(witness, taken, "an agent check can put it into service")

        async def back() -> bool:
            return (await slot(proxy, taken))["srv_admin_state"] == "0"

        await until(back)
        await witness.withdraw(HOST, taken, 11)
        clear = await cleared(witness, taken, 11)
        assert "in maintenance" in clear.reason
        async with running("b", taken) as other:
            await ask_for_a_while(proxy)
        assert other.wrong == 0
        assert not await back()


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "[::]", ""])
async def test_a_slot_without_an_address_of_its_own_that_leads_here(proxy, address):
    taken = free_port()
    proxy.write(10, a=[taken])
    reconfigure(proxy, taken, f"{address}:{taken}")
    await proxy.start()
    said = await proxy.witness().check(HOST, taken, 10)
    async with running("b", taken) as other, await anyio.connect_tcp(HOST, proxy.front) as stream:
        assert await get(stream, "/a/") == 404
    assert (other.wrong, said.verdict) == (1, Verdict.HELD)


async def test_a_slot_moved_before_anybody_asked_whose_request_tries_the_old_address(proxy):
    """Somebody else gives the slot another address while a request sleeps between two tries; only then the witness is asked."""
    taken, proxy.retries = free_port(), 2
    proxy.write(30, a=[taken])
    await proxy.start()
    (pid,) = await proxy.pids("worker")
    statuses: list[int] = []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask_once, proxy, statuses)
        await until(lambda: tries_again(proxy, pid, taken))
        await proxy.ask(f"@!{pid} set server a/s{taken} addr {HOST} port {free_port()}")
        witness = proxy.witness()
        await held(witness, taken, "began before the slot was seen", since=20)
        await cleared(witness, taken, 20)
        async with running("b", taken) as other:
            await until(lambda: statuses)
    assert (statuses, other.wrong) == ([503], 0)


@pytest.mark.parametrize("line", ["option persist", "force-persist if TRUE"])
async def test_a_cookie_that_leads_into_maintenance(proxy, line):
    """No answer of the proxy shows it, so the witness that knows the configuration says nothing is clear."""
    taken, kept = free_port(), free_port()
    proxy.extra = f"{line}\n    cookie S insert"
    proxy.write(10, a=[taken, kept])
    reconfigure(proxy, taken, "{} cookie x")
    await proxy.start()
    proxy.stamp(11)
    blind, witness = proxy.witness(), proxy.witness(config=proxy.config)
    await witness.withdraw(HOST, taken, 11)
    await cleared(blind, taken, 11)
    await held(witness, taken, f"in {proxy.config} there is `{line}`: a cookie leads to a slot")
    async with running("b", taken) as other, await anyio.connect_tcp(HOST, proxy.front) as stream:
        await stream.send(b"GET /a/ HTTP/1.1\r\nHost: x\r\nCookie: S=x\r\n\r\n")
        assert b" 404 " in await stream.receive()
        assert other.wrong == 1, "or this shows nothing"
    proxy.extra = ""
    proxy.write(12, a=[kept])
    await proxy.reload()
    await cleared(witness, taken, 11)


async def test_a_slot_that_is_down_and_comes_up_with_its_next_tenant(proxy):
    """Its checks fail, so nobody is sent there; whoever answers them on that port has the requests."""
    taken = free_port()
    proxy.write(10, a=[taken])
    reconfigure(proxy, taken, "{} check inter 20ms fall 1 rise 1")
    await proxy.start()

    async def is_up(*, up: bool = True) -> bool:
        return ((await slot(proxy, taken))["srv_op_state"] == "2") == up

    await until(lambda: is_up(up=False))
    proxy.stamp(11)
    await held(proxy.witness(), taken, "in service")
    async with running("b", taken) as other:
        await until(is_up)
        async with await anyio.connect_tcp(HOST, proxy.front) as stream:
            assert await get(stream, "/a/") == 404
        assert other.wrong == 1, "or this shows nothing"
    await proxy.witness().withdraw(HOST, taken, 11)
    await cleared(proxy.witness(), taken, 11)


async def test_a_request_that_still_connects_to_a_host_that_was_silent(proxy):
    """Nobody took the connection; the port's next tenant would, with the next try of the kernel."""
    taken, proxy.retries = free_port(), 0
    proxy.write(10, a=[taken])
    proxy.config.write_text(proxy.config.read_text().replace("timeout connect 1s", "timeout connect 4s"))
    await proxy.start()
    witness, (pid,) = proxy.witness(), await proxy.pids("worker")
    with contextlib.ExitStack() as sockets:
        silent = sockets.enter_context(socket.create_server((HOST, taken), backlog=0))
        for _ in range(3):
            crowd = sockets.enter_context(socket.socket())
            crowd.setblocking(False)
            crowd.connect_ex((HOST, taken))
        async with await anyio.connect_tcp(HOST, proxy.front) as stream:
            await stream.send(b"GET /a/ HTTP/1.1\r\nHost: x\r\n\r\n")

            async def connects() -> bool:
                return bool(re.search(rf"srv=s{taken} .*scb=\[5,", await proxy.ask(f"@!{pid} show sess")))

            await until(connects)
            proxy.stamp(11)
            await witness.withdraw(HOST, taken, 11)
            await held(witness, taken, f"a stream of a/s{taken} that is connecting")
            sockets.close()
            assert silent.fileno() < 0
            await cleared(witness, taken, 11)
            assert not await connects()
            async with running("b", taken) as other:
                await stream.receive()
            assert other.wrong == 0


@pytest.mark.parametrize("by_reload", [False, True])
async def test_every_way_to_choose_a_server_that_leads_to_one_called_clear(proxy, by_reload):
    """Kept connections that are reused, a rule for this server, a stick table, a cookie, the same server in two backends, two front doors."""
    taken, kept, door = free_port(), free_port(), free_port()
    proxy.extra = (
        "http-reuse always\n    stick-table type string size 100\n    stick on path\n    cookie S insert\n    option redispatch 1\n"
        f"    use-server s{taken} if {{ hdr(x) taken }}"
    )

    def write(generation: int, *ports: int) -> None:
        proxy.write(generation, a=[*ports], b=[*ports])
        text = re.sub(r"(?m)^( *server s(\d+) \S+)", r"\1 cookie c\2", proxy.config.read_text())
        text = text.replace(
            "backend relay\n", f"frontend two\n    bind {HOST}:{door}\n    {RELAY_RULE}\n    default_backend b\nbackend relay\n"
        )
        proxy.config.write_text(text if taken in ports else text.replace(f"use-server s{taken} if {{ hdr(x) taken }}", ""))

    async def names(streams: list[anyio.abc.SocketStream]) -> set[bytes]:
        found = set()
        for number, stream in enumerate(streams):
            head = f"GET /{'ab'[number % 2]}/ HTTP/1.1\r\nHost: x\r\nCookie: S=c{taken}\r\n{'x: taken' if number % 4 else 'y: z'}\r\n\r\n"
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):  # an old worker closes after one more answer
                await stream.send(head.encode())
                found.add((await stream.receive()).rpartition(b"\r\n")[2])
        return found

    write(10, taken, kept)
    async with anyio.create_task_group() as tasks, contextlib.AsyncExitStack() as clients:

        async def connected() -> list[anyio.abc.SocketStream]:
            return [await clients.enter_async_context(await anyio.connect_tcp(HOST, port)) for port in (proxy.front, door) * 8]

        former = Service("former", taken)
        await tasks.start(former.run)
        await tasks.start(Service("kept", kept).run)
        await proxy.start()
        streams = await connected()
        assert b"former" in await names(streams), "or this shows nothing"
        witness = proxy.witness()
        if by_reload:
            write(20, kept)
            await proxy.reload()
        else:
            proxy.stamp(20)
            await witness.withdraw(HOST, taken, 20)
        await cleared(witness, taken, 20)
        await former.stop()
        await tasks.start(Service("next", taken).run)
        for some in (streams, streams, await connected()):
            assert await names(some) <= {b"kept"}
        assert await names(await connected()) == {b"kept"}
        tasks.cancel_scope.cancel()


@attrs.define
class Resolver:
    """A name server that knows every name, or none; `port` is where."""

    port: int
    knows: bool = True

    async def run(self) -> None:
        async with await anyio.create_udp_socket(family=socket.AF_INET, local_host=HOST, local_port=self.port) as udp:
            async for question, (host, port) in udp:
                end = question.index(b"\0", 12) + 5
                found = self.knows and question[end - 4 : end - 2] == b"\0\1"  # an address is asked for
                flags = b"\x85\x80" if self.knows else b"\x85\x83"
                head = question[:2] + flags + b"\0\1" + (b"\0\1" if found else b"\0\0") + b"\0\0\0\0"
                record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(HOST)
                await udp.sendto(head + question[12:end] + record * found, host, port)


async def test_a_name_that_resolves_again_after_its_port_was_called_clear(proxy):
    """Out of service because its name is unknown is no maintenance: the next answer of the name server ends it."""
    taken, kept, resolver = free_port(), free_port(), Resolver(free_port())
    proxy.write(10, a=[taken, kept])
    times = "resolve_retries 1\n    timeout resolve 50ms\n    timeout retry 50ms\n" + "".join(
        f"    hold {what} 50ms\n" for what in ("valid", "nx", "other", "obsolete", "refused", "timeout")
    )
    proxy.config.write_text(f"{proxy.config.read_text()}resolvers dns\n    nameserver one {HOST}:{resolver.port}\n    {times}")
    reconfigure(proxy, taken, f"replica.test:{taken} resolvers dns init-addr none resolve-prefer ipv4")

    async def known(*, as_it_is: bool) -> bool:
        row = await slot(proxy, taken)
        return (row["srv_addr"], int(row["srv_admin_state"]) & 0x20) == ((HOST, 0) if as_it_is else ("-", 0x20))

    async with anyio.create_task_group() as tasks, running("a", kept):
        tasks.start_soon(resolver.run)
        await proxy.start()
        proxy.stamp(11)
        await until(lambda: known(as_it_is=True))
        resolver.knows = False
        await until(lambda: known(as_it_is=False))
        witness = proxy.witness()
        await held(witness, taken, "in service")
        resolver.knows = True
        await until(lambda: known(as_it_is=True))
        await witness.withdraw(HOST, taken, 11)
        await cleared(witness, taken, 11)
        async with running("b", taken) as other:
            await ask_for_a_while(proxy)
        assert other.wrong == 0
        tasks.cancel_scope.cancel()
