"""Whatever stands where the master socket should be: UNKNOWN with the reason, in bounded time and memory, and never an error."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from portfsm.errors import ReloadFailed
from portfsm.evidence import Evidence, Verdict
from portfsm.haproxy import reload
from portfsm.witnesses import HAProxyWitness
from tests.witnesses.unix import Client, saying, server

pytestmark = pytest.mark.anyio

RECORDED = Path(__file__).parent / "recorded"
DEADLINE_S = 0.2
MEGABYTE = 1 << 20
LISTING = (
    "#<PID> <type> <reloads> <uptime> <version>\n7 master 0 [failed: 0] 0d00h00m01s 2.8.25\n# workers\n8 worker 0 0d00h00m01s 2.8.25\n"
)


async def asked(path: object, **options) -> Evidence:
    """The answer, which must come in time; withdrawing must come back too."""
    witness = HAProxyWitness(path, proxy="edge", **({"deadline_s": DEADLINE_S} | options))
    with anyio.fail_after(10):
        said = await witness.check("127.0.0.1", 20000, 5)
        await witness.withdraw("127.0.0.1", 20000, 5)
        assert not (await witness.preflight()).ready
    assert (said.verdict, said.incarnation, said.generation, said.since) == (Verdict.UNKNOWN, "", None, 5)
    assert 0 <= said.answered_at - said.asked_at < 5_000_000_000
    return said


# ---------------------------------------------------------------------- nobody there


async def test_a_missing_socket_that_raises(place):
    assert "no such file" in (await asked(place)).reason


async def test_a_file_that_is_no_socket(place):
    place.write_text("global\n")
    assert "connection refused" in (await asked(place)).reason


async def test_a_directory_that_is_no_socket(place):
    assert "connection refused" in (await asked(place.parent)).reason


@pytest.mark.parametrize("path", ["/tmp/" + "x" * 200, "a\0b", ""])
async def test_a_path_that_no_socket_can_have(path):
    assert "cannot be asked" in (await asked(path)).reason


async def test_a_socket_left_behind_by_a_dead_proxy(place):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))
    assert "connection refused" in (await asked(place)).reason


async def test_a_socket_of_another_user(place):
    """As root, nobody asks; the socket is root's own."""
    async with server(place, saying(LISTING.encode())):
        place.chmod(0)
        with no_more_rights():
            reason = (await asked(place)).reason
    assert reason == f"{place} cannot be asked: permission denied"


@contextlib.contextmanager
def no_more_rights() -> Iterator[None]:
    user = os.geteuid()
    os.seteuid(user or 65_534)
    try:
        yield
    finally:
        os.seteuid(user)


# ---------------------------------------------------------------------- somebody else there


async def test_a_server_that_never_answers(place):
    async def nothing(stream: Client) -> None:
        await anyio.sleep_forever()

    async with server(place, nothing):
        assert f"did not answer within {DEADLINE_S} s" in (await asked(place)).reason


async def test_a_server_that_never_accepts(place):
    """A frozen master: the kernel takes the connection, then its backlog is full."""
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(place))
        frozen.listen(0)
        reasons = [(await asked(place)).reason for _ in range(3)]
    assert any("takes no more connections" in reason for reason in reasons)


@pytest.mark.parametrize("answer", [b"", b"\n", b"\0\xff\xfe", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"Unknown command: 'show'\n"])
async def test_a_server_that_is_no_haproxy(place, answer):
    async with server(place, saying(answer)):
        assert "is no HAProxy master socket" in (await asked(place)).reason


async def test_a_server_that_hangs_up_unread(place):
    async def hang_up(stream: Client) -> None:
        pass

    async with server(place, hang_up):
        assert (await asked(place)).reason


async def test_an_answer_that_fills_the_memory(place):
    sent = 0

    async def endless(stream: Client) -> None:
        nonlocal sent
        while True:
            await stream.send(b"x" * 65536)
            sent += 65536

    async with server(place, endless):
        assert f"more than {MEGABYTE} bytes" in (await asked(place, max_bytes=MEGABYTE, deadline_s=5)).reason
    assert sent < 20 * MEGABYTE


async def test_an_answer_that_trickles_for_ever(place):
    async with server(place, saying(*[b"x"] * 1000, every_s=0.02)):
        assert "did not answer within" in (await asked(place)).reason


@pytest.mark.parametrize("line", ["8 worker", "x worker 0 0d00h00m01s 2.8.25", "8 worker 0 soon 2.8.25", "garbage"])
async def test_a_process_that_cannot_be_read_and_is_passed_over(place, line):
    broken = LISTING.replace("7 master 0 [failed: 0] 0d00h00m01s", "7 master 0 [failed: 0] soon") if "soon" in line else LISTING + line
    async with server(place, saying(broken.encode())):
        assert "cannot be read" in (await asked(place)).reason


async def test_a_master_without_workers_that_counts_as_clear(place):
    async with server(place, saying(LISTING.partition("8 worker")[0].encode())):
        assert "shows no current worker" in (await asked(place)).reason


async def test_a_worker_that_says_nothing_while_its_master_answers(place):
    async def answer(stream: Client) -> None:
        question = await stream.receive()
        await stream.send(LISTING.encode() if question.startswith(b"show proc") else b"")

    async with server(place, answer):
        witness = HAProxyWitness(place, proxy="edge")
        assert "worker 8 did not answer all questions" in (await witness.check("127.0.0.1", 20000, 5)).reason


# ---------------------------------------------------------------------- our own doing


async def test_a_cancelled_question_that_keeps_the_others_waiting(place):
    async def nothing(stream: Client) -> None:
        await anyio.sleep_forever()

    witness = HAProxyWitness(place, proxy="edge", deadline_s=0.3)
    async with server(place, nothing):
        with anyio.move_on_after(0.05) as scope:
            await witness.check("127.0.0.1", 20000, 5)
        assert scope.cancelled_caught
        with anyio.fail_after(5):
            assert (await witness.check("127.0.0.1", 20000, 5)).verdict is Verdict.UNKNOWN


async def test_more_than_one_connection_at_a_time(place):
    open_now = most = 0

    async def answer(stream: Client) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await stream.receive()
        with contextlib.suppress(anyio.EndOfStream):
            await stream.receive()
        open_now -= 1

    witness = HAProxyWitness(place, proxy="edge", deadline_s=5)
    async with server(place, answer), anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(witness.check, "127.0.0.1", 20000, 5)
    assert most == 1


async def test_a_reload_of_nobody(place):
    with pytest.raises(ReloadFailed, match="nobody is there"):
        await reload(place, generation=5, wait_s=1)


async def test_a_reload_of_something_that_never_says_its_generation(place):
    async with server(place, saying(LISTING.encode())):
        with pytest.raises(ReloadFailed, match=r"no generation it says and not 5 after 0\.3 s"):
            await reload(place, generation=5, wait_s=0.3)


async def test_a_reload_refused_for_another_one_that_counts_as_a_refused_file(place):
    """From 3.1 on a master in the middle of a reload says no: it is asked again."""
    refusals, started = ["Success=0\n--\nAnother reload is still in progress.\n"] * 2, []
    listing, worker = ((RECORDED / f"{name}.txt").read_text() for name in ("listing", "worker"))

    async def answer(stream: Client) -> None:
        question = (await stream.receive()).decode()
        if question == "reload\n":
            started.append(not refusals)
            await stream.send((refusals.pop() if refusals else "Success=1\n").encode())
        else:
            await stream.send((listing if question == "show proc\n" else worker).encode())

    async with server(place, answer):
        await reload(place, generation=417, wait_s=10)
    assert started == [False, False, True]
