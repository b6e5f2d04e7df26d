"""Streams that are still on their way: they alone can connect to a port whose slot is out of service, and nothing else shows them."""

from __future__ import annotations

import contextlib
import re

import anyio
import pytest

from portfsm.evidence import Verdict
from tests.witnesses.helpers import free_port, until
from tests.witnesses.real import HOST, Proxy, agent, ask_once, cleared, running, tries_again, version

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"]), pytest.mark.timeout(120)]


async def test_a_request_that_tries_again_after_its_slot_was_called_clear(proxy):
    """All counters of the slot are zero while a request sleeps between two tries; only the streams show it."""
    taken, proxy.retries = free_port(), 2
    proxy.write(10, a=[taken])
    await proxy.start()
    witness = proxy.witness()
    async with anyio.create_task_group() as tasks:
        statuses: list[int] = []

        (pid,) = await proxy.pids("worker")
        tasks.start_soon(ask_once, proxy, statuses)
        await until(lambda: tries_again(proxy, pid, taken))
        proxy.stamp(11)
        await witness.withdraw(HOST, taken, 11)
        said = await witness.check(HOST, taken, 11)
        assert said.verdict is Verdict.HELD
        assert f"worker {pid} has a stream of a/s{taken} that is" in said.reason
        await cleared(witness, taken, 11)
        async with running("b", taken) as other:
            await until(lambda: statuses)
    assert (statuses, other.wrong) == ([503], 0)


async def test_a_request_that_tries_the_address_that_its_slot_had_before(proxy):
    """`set server addr` moves the slot and not the stream: the witness remembers where the slot was."""
    taken, proxy.retries = free_port(), 2
    proxy.write(30, a=[taken])
    await proxy.start()
    witness = proxy.witness()
    (pid,) = await proxy.pids("worker")
    async with anyio.create_task_group() as tasks:
        assert "in service" in (await witness.check(HOST, taken, 20)).reason
        tasks.start_soon(ask_once, proxy, [])
        await until(lambda: tries_again(proxy, pid, taken))
        await proxy.ask(f"@!{pid} set server a/s{taken} addr 127.0.0.1 port {free_port()}")
        said = await witness.check(HOST, taken, 20)
        assert said.verdict is Verdict.HELD
        assert "has a stream of" in said.reason
        await cleared(witness, taken, 20)


@pytest.mark.parametrize("redispatch", [False, True])
async def test_a_request_in_the_queue_of_its_slot_that_is_forgotten(proxy, redispatch):
    """A cookie leads there: without redispatch it stays queued in maintenance too, and connects when its turn comes."""
    taken, kept = free_port(), free_port()
    proxy.extra = f"{'option redispatch 1' if redispatch else 'no option redispatch'}\n    timeout queue 1s\n    cookie S insert"
    proxy.write(10, a=[taken, kept])
    proxy.config.write_text(re.sub(rf"server (s{taken}) (\S+)", r"server \1 \2 cookie x maxconn 1", proxy.config.read_text()))
    async with running("a", taken, mute=True) as replica, running("a", kept):
        await proxy.start()
        witness = proxy.witness()
        (pid,) = await proxy.pids("worker")
        async with await anyio.connect_tcp(HOST, proxy.front) as first, await anyio.connect_tcp(HOST, proxy.front) as second:
            for stream in (first, second):
                await stream.send(b"GET /a/ HTTP/1.1\r\nHost: x\r\nCookie: S=x\r\n\r\n")
                await until(lambda: replica.right)

            async def queued() -> bool:
                return "scb=[2" in await proxy.ask(f"@!{pid} show sess")

            await until(queued)
            proxy.stamp(11)
            await witness.withdraw(HOST, taken, 11)
            if not redispatch and version() < (3, 0):  # which gives it to another slot
                said = await witness.check(HOST, taken, 11)
                assert said.verdict is Verdict.HELD
                assert f"a stream of a/s{taken} that is queued" in said.reason
            await cleared(witness, taken, 11)
            assert not await queued()


async def test_a_reply_that_is_tried_again_at_an_address_given_on(proxy):
    """With `retry-on empty-response` an established stream connects once more when its replica dies."""
    taken, proxy.extra = free_port(), "retry-on empty-response"
    proxy.write(10, a=[taken])
    async with contextlib.AsyncExitStack() as client:
        async with running("a", taken, mute=True) as replica:
            await proxy.start()
            witness = proxy.witness(retries_replies=True)
            assert [finding.what for finding in (await proxy.witness().preflight(config=proxy.config)).findings] == [proxy.extra]
            assert (await witness.preflight(config=proxy.config)).ready
            stream = await client.enter_async_context(await anyio.connect_tcp(HOST, proxy.front))
            await stream.send(b"GET /a/ HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: replica.right)
            proxy.stamp(11)
            await witness.withdraw(HOST, taken, 11)
            assert "connected" in (await witness.check(HOST, taken, 11)).reason
        await cleared(witness, taken, 11)
        async with running("b", taken) as other:
            assert b" 503 " in await stream.receive()
    assert other.wrong == 0


@pytest.mark.parametrize("options", [("--retries-replies", "edge"), ()], ids=["told", "not told"])
async def test_a_reply_that_a_proxy_on_another_node_tries_again(proxy, tmp_path, options):
    """The same seen by an agent, which has to be told that replies are tried again; without it the stream counts for nothing."""
    taken, proxy.extra = free_port(), "retry-on empty-response"
    proxy.write(10, a=[taken])
    async with running("a", taken, mute=True) as replica, contextlib.AsyncExitStack() as client:
        await proxy.start()
        stream = await client.enter_async_context(await anyio.connect_tcp(HOST, proxy.front))
        await stream.send(b"GET /a/ HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: replica.right)
        proxy.stamp(11)
        await proxy.witness().withdraw(HOST, taken, 11)
        with agent(tmp_path, proxy.master_socket, "--ports-file", f"edge={proxy.config}", *options) as remote:
            said = await remote.check(HOST, taken, 11)
    assert (said.verdict is Verdict.HELD, "connected" in said.reason) == (bool(options), bool(options))


def log_to(proxy: Proxy, port: int) -> None:
    """Send its log to a server over TCP, which takes a stream of its own."""
    ring = f"ring r\n    timeout connect 200ms\n    server l {HOST}:{port}\n"
    proxy.config.write_text(proxy.config.read_text().replace("defaults\n", f"{ring}defaults\n    log ring@r local0\n", 1))


async def test_a_log_over_tcp_that_holds_every_port_for_ever(proxy):
    """Its stream has no slot to its name. Established it is nobody's business; on its way it may be going to any slot there is."""
    taken, elsewhere, log = free_port(), free_port(), free_port()
    proxy.write(10, a=[taken])
    log_to(proxy, log)
    proxy.stamp(11)
    await proxy.start()
    witness, (pid,) = proxy.witness(), await proxy.pids("worker")

    async def own(state: str) -> bool:
        return bool(re.search(rf"proto=\? .*scb=\[{state},", await proxy.ask(f"@!{pid} show sess")))

    await witness.withdraw(HOST, taken, 11)
    await until(lambda: own("[3-7]"))
    await cleared(witness, elsewhere, 11)
    await until(lambda: _says(witness, taken, "a stream of its own"))
    async with running("log", log, mute=True):
        await until(lambda: own("8"))
        await cleared(witness, taken, 11)


async def _says(witness, port: int, words: str) -> bool:
    said = await witness.check(HOST, port, 11)
    return said.verdict is Verdict.HELD and words in said.reason
