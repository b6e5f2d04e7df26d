"""The proxy is late by its lag and by nothing else; a refusal is never a wrong answer."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from portfsm.demo import proxy
from portfsm.demo.clients import read_answer
from portfsm.demo.line import open_line
from portfsm.demo.proxy import Publication, Routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream

    from portfsm.demo.line import Line

LAG_S = 0.3
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
Leash = tuple[socket.socket, socket.socket]


def test_a_table_counts_only_after_the_lag() -> None:
    routes = Routes(lag_s=1.0)
    routes.publish(Publication(1, {"cart": [5]}), now=10.0)

    assert routes.choose("cart", now=10.999) is None
    assert routes.choose("cart", now=11.0) == 5


def test_until_then_the_old_table_stands() -> None:
    routes = Routes(lag_s=1.0)
    routes.publish(Publication(1, {"cart": [5]}), now=10.0)
    routes.publish(Publication(2, {"cart": [6]}), now=11.0)

    assert [routes.choose("cart", now=now) for now in (11.0, 11.999, 12.0)] == [5, 5, 6]


def test_the_last_of_several_due_tables_counts() -> None:
    routes = Routes(lag_s=1.0)
    for generation in (1, 2, 3):
        routes.publish(Publication(generation, {"cart": [generation]}), now=10.0)

    assert routes.choose("cart", now=20.0) == 3


def test_a_table_from_an_older_log_position_is_refused() -> None:
    routes = Routes(lag_s=0.0)
    routes.publish(Publication(2, {"cart": [6]}), now=10.0)

    assert not routes.publish(Publication(1, {"cart": [5]}), now=10.0)
    assert routes.choose("cart", now=10.0) == 6


def test_every_port_of_a_service_gets_its_turn() -> None:
    routes = Routes(lag_s=0.0)
    routes.publish(Publication(1, {"cart": [5, 6], "users": [7, 8]}), now=10.0)
    chosen = [(routes.choose("cart", now=10.0), routes.choose("users", now=10.0)) for _ in range(2)]

    assert sorted(chosen) == [(5, 7), (6, 8)]


def test_ports_that_were_tried_are_not_chosen_again() -> None:
    routes = Routes(lag_s=0.0)
    routes.publish(Publication(1, {"cart": [5, 6]}), now=10.0)

    assert routes.choose("cart", now=10.0, besides=[5]) == 6
    assert routes.choose("cart", now=10.0, besides=[5, 6]) is None


@pytest.mark.parametrize(("head", "host"), [(b"GET / HTTP/1.1\r\nhost:  cart ", "cart"), (b"GET / HTTP/1.1", ""), (b"", "")])
def test_the_host_header_names_the_service(head: bytes, host: str) -> None:
    assert proxy.host_of(head) == host


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", OK % (3, b"ab"), b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_an_answer_cut_short_is_not_complete(answer: bytes) -> None:
    assert not proxy.is_complete(answer)
    assert proxy.is_complete(OK % (2, b"ab"))


class Running:
    """A proxy in this process, its controller's line and one client."""

    def __init__(self, line: Line, client: SocketStream) -> None:
        self.line = line
        self.client = client
        self.answers = BufferedByteReceiveStream(client)

    async def publish(self, generation: int, **table: list[int]) -> None:
        assert await self.line.ask({"generation": generation, "table": table}) == {"taken": True}

    async def get(self, service: str) -> tuple[int, bytes]:
        await self.client.send(f"GET / HTTP/1.1\r\nHost: {service}\r\n\r\n".encode())
        return await read_answer(self.answers)


@asynccontextmanager
async def running_proxy(leash: Leash, lag_s: float) -> AsyncIterator[Running]:
    ours, theirs = leash
    front, control = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    addresses = front.getsockname()[1], control.getsockname()[1]
    async with anyio.create_task_group() as group:
        group.start_soon(proxy.main, front.detach(), control.detach(), theirs.fileno(), lag_s)
        async with open_line(addresses[1]) as line, await anyio.connect_tcp("127.0.0.1", addresses[0]) as client:
            with anyio.fail_after(30):
                yield Running(line, client)
        ours.close()  # the leash ends, so the proxy does, and with it this group


@asynccontextmanager
async def backend(name: bytes, *, port: int = 0) -> AsyncIterator[int]:
    """Answers every request with its name; yields its port."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(OK % (len(name), name))

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_who_takes_over_a_port_within_the_lag_answers_for_the_former_holder(leash: Leash, ports: range) -> None:
    async with running_proxy(leash, LAG_S) as running:
        async with backend(b"cart", port=ports[0]):
            await running.publish(1, cart=[ports[0]])
            while (await running.get("cart"))[0] != 200:
                pass  # the first table is late, too
        published = anyio.current_time()
        await running.publish(2, cart=[], users=[ports[0]])
        async with backend(b"users", port=ports[0]):
            wrong = await running.get("cart")
            while (await running.get("cart"))[0] == 200:
                pass

            assert wrong == (200, b"users")
            assert anyio.current_time() - published >= LAG_S
            assert await running.get("users") == (200, b"users")


@pytest.mark.anyio
async def test_a_replica_that_refuses_is_passed_over(leash: Leash, ports: range) -> None:
    async with running_proxy(leash, 0.0) as running, backend(b"cart", port=ports[0]):
        await running.publish(1, cart=[ports[1], ports[0], ports[2]])

        assert [await running.get("cart") for _ in range(4)] == [(200, b"cart")] * 4


@pytest.mark.anyio
async def test_a_service_without_a_replica_is_a_bad_gateway(leash: Leash, ports: range) -> None:
    async with running_proxy(leash, 0.0) as running:
        await running.publish(1, cart=[ports[0]])

        assert (await running.get("cart"))[0] == 502
        assert (await running.get("nobody"))[0] == 502


@pytest.mark.anyio
async def test_a_replica_that_hangs_up_half_way_is_passed_over(leash: Leash, ports: range) -> None:
    async def cut(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(OK % (100, b"half an answer"))

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=ports[0])
    async with running_proxy(leash, 0.0) as running, backend(b"cart", port=ports[1]), listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, cut)
        await running.publish(1, cart=list(ports[:2]))

        assert [await running.get("cart") for _ in range(4)] == [(200, b"cart")] * 4
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_the_table_outlives_the_controller(leash: Leash, ports: range) -> None:
    async with running_proxy(leash, 0.0) as running, backend(b"cart", port=ports[0]):
        await running.publish(1, cart=[ports[0]])
        await running.line._stream.aclose()

        assert await running.get("cart") == (200, b"cart")
