"""Clients of the port server that go, hang or crowd, and what becomes of the others."""

from __future__ import annotations

import os
import socket

import anyio
import pytest

from portfsm import MemoryJournal, OutcomeUnknown, UnknownPool, open_manager
from portfsm.clocks import SystemClock
from portfsm.contrib.portserver import Limits, PortServer
from portfsm.testing import GatedJournal
from tests.contrib.port_clients import PATIENCE_S, ask, parsed, request, rest, serving
from tests.witnesses.helpers import until

pytestmark = pytest.mark.anyio

BOOT = SystemClock().boot_id()[:8]


async def test_a_client_that_went_away_is_waited_for_and_given_a_port(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path, size=1) as served:
        held = (await served.call("/v1/allocate", ask()))[1]
        async with await anyio.connect_unix(served.path) as gone, await anyio.connect_unix(served.path) as stays:
            for number, (stream, owner) in enumerate([(gone, "gone"), (stays, "stays")], 1):
                await stream.send(request("/v1/allocate", ask(owner=owner, wait_s=None)))
                await until(lambda number=number: served.waiting == number)
            await gone.aclose()
            await until(lambda: served.waiting == 1)
            await served.call("/v1/release", {"token": held["token"]})
            await served.manager.free("tests", held["port"], reason="the test says so")
            with anyio.fail_after(PATIENCE_S):
                assert parsed(await rest(stays))[1]["owner"] == "stays"
        assert memory_log.kinds() == ["allocated", "released", "freed", "allocated"]


@pytest.mark.parametrize("said", [b"%d\n" % os.getpid(), request("/v1/allocate", ask())], ids=["portpicker", "http"])
async def test_a_port_leaks_whose_client_left_before_it_was_on_disk(memory_log, tmp_path, said):
    journal = GatedJournal(memory_log.handle())
    async with serving(journal, tmp_path) as served:
        journal.hold()
        async with await anyio.connect_unix(served.path) as stream:
            await stream.send(said)
            await journal.held()
        await anyio.wait_all_tasks_blocked()
        journal.let_go()
        await until(lambda: memory_log.kinds()[:2] == ["allocated", "released"])


@pytest.mark.parametrize("said", [b"%d\n" % os.getpid(), request("/v1/allocate", ask())], ids=["portpicker", "http"])
async def test_a_port_leaks_that_its_client_was_not_told_of(memory_log, tmp_path, said):
    """It is there, and takes no answer."""
    async with serving(memory_log.handle(), tmp_path) as served, await anyio.connect_unix(served.path) as stream:
        stream.extra(anyio.abc.SocketAttribute.raw_socket).shutdown(socket.SHUT_RD)
        await stream.send(said)
        await until(lambda: memory_log.kinds() == ["allocated", "released"])


async def test_a_lease_is_taken_back_from_one_who_was_told_of_it(memory_log, tmp_path):
    """Two ask for one owner; the first takes no answer, the second does."""
    journal = GatedJournal(memory_log.handle())
    async with serving(journal, tmp_path) as served:
        journal.hold()
        async with await anyio.connect_unix(served.path) as deaf, await anyio.connect_unix(served.path) as hears:
            deaf.extra(anyio.abc.SocketAttribute.raw_socket).shutdown(socket.SHUT_RD)
            await deaf.send(request("/v1/allocate", ask()))
            await journal.held()
            await hears.send(request("/v1/allocate", ask()))
            await anyio.wait_all_tasks_blocked()
            journal.let_go()
            told = parsed(await rest(hears))[1]
            assert [lease.token for lease in served.manager.find("r1")] == [told["token"]]
        assert memory_log.kinds() == ["allocated", "released", "allocated"]


async def test_a_client_that_says_no_more_is_taken_for_gone(memory_log, tmp_path):
    """`nc -N` ends its half of the connection and reads on."""
    async with serving(memory_log.handle(), tmp_path) as served:
        for said, port in zip((b"%d" % os.getpid(), request("/v1/allocate", ask())), served.ports, strict=False):
            async with await anyio.connect_unix(served.path) as stream:
                await stream.send(said)
                await stream.send_eof()
                assert b"%d" % port in await rest(stream)


async def test_clients_that_hang_keep_others_out_for_ever(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path, limits=Limits(connections=2, each_s=0.2)) as served:  # noqa: SIM117
        async with await anyio.connect_unix(served.path) as silent, await anyio.connect_unix(served.path) as half:
            await half.send(b"POST /v1/allocate HTTP/1.1\r\nhost: x\r\ncontent-length: 90\r\n\r\n{")
            assert await served.pick(os.getpid()) == served.ports[0]
            assert (await rest(silent), await rest(half)) == (b"", b"")


async def test_those_who_wait_keep_out_those_who_bring_a_port_back(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path, size=1, limits=Limits(connections=3, waiting=1)) as served:
        held = (await served.call("/v1/allocate", ask()))[1]
        async with await anyio.connect_unix(served.path) as waits:
            await waits.send(request("/v1/allocate", ask(owner="waits", wait_s=None)))
            await until(lambda: served.waiting)
            status, error = await served.call("/v1/allocate", ask(owner="too many", wait_s=5))
            assert (status, "wait_s 0" in error["error"]) == (503, True)
            assert (await served.call("/v1/release", {"token": held["token"]}))[0] == 200
            await served.manager.free("tests", held["port"], reason="the test says so")
            assert parsed(await rest(waits))[1]["owner"] == "waits"


async def test_those_who_wait_are_left_in_silence_when_the_server_ends(memory_log, tmp_path):
    async with serving(memory_log.handle(), tmp_path, size=1) as served:
        await served.call("/v1/allocate", ask())
        waits = await anyio.connect_unix(served.path)
        await waits.send(request("/v1/allocate", ask(owner="waits", wait_s=None)))
        await until(lambda: served.waiting)
    async with waits:
        status, error = parsed(await rest(waits))
        assert (status, "stopping" in error["error"]) == (503, True)


async def test_a_server_whose_log_failed_goes_on(memory_log, tmp_path):
    journal = GatedJournal(memory_log.handle())
    journal_failed = OutcomeUnknown("the disk is gone", path="x", errno=5)
    with pytest.raises(BaseException) as raised:
        async with serving(journal, tmp_path) as served:
            journal.fail(journal_failed)
            status, error = await served.call("/v1/allocate", ask())
            assert (status, error["type"]) == (503, "OutcomeUnknown")
            with anyio.fail_after(PATIENCE_S):
                await anyio.sleep_forever()
    assert "OutcomeUnknown" in repr(raised.value)


async def test_a_pool_that_is_not_there_is_served():
    async with open_manager(MemoryJournal()) as manager:
        with pytest.raises(UnknownPool, match="define it"):
            PortServer(manager, pool="tests")
