"""An agent on another node: the witness that asks it, what it refuses, and the command."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import tracemalloc

import anyio
import pytest

from portfsm.errors import InvalidValue
from portfsm.evidence import Verdict, Witness
from portfsm.testing import FakeWitness
from portfsm.witnesses import ProcessWitness, RemoteWitness
from portfsm.witnesses._agent import Agent, Limits, over_tls
from portfsm.witnesses._wire import PLACES
from tests.witnesses.helpers import NONSENSE, PATIENCE_S, free_port, on_every_loop, plain, process, until

HELD, CLEAR, UNKNOWN = Verdict.HELD, Verdict.CLEAR, Verdict.UNKNOWN
TOKEN = "0123456789abcdef-token"
PLACE = ("10.0.0.7", 30000, 417)


@contextlib.asynccontextmanager
async def agent(*witnesses, context=None, **limits):
    """An agent in this loop; gives its port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(Agent(witnesses, token=TOKEN, limits=Limits(**limits)).serve, over_tls(listener, context) if context else listener)
        yield port
        group.cancel_scope.cancel()


def witness_of(port, *, proxy="edge", token=TOKEN, scheme="http", **options):
    return RemoteWitness(f"{scheme}://127.0.0.1:{port}", proxy=proxy, token=token, **options)


async def raw(port, data):
    """What the agent answers to `data`, and then hangs up."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(data)
        answer = b""
        with anyio.fail_after(PATIENCE_S), contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                answer += await stream.receive()
    return answer


# ---------------------------------------------------------------------- answers


@on_every_loop
async def test_an_answer_changes_on_its_way():
    fake = FakeWitness("edge", [HELD, CLEAR, UNKNOWN], incarnation="i-7", generation=420)
    async with agent(fake, FakeWitness("other", [CLEAR])) as port:
        witness = witness_of(port)
        for verdict in (HELD, CLEAR, UNKNOWN):
            found = await witness.check(*PLACE)
            assert (found.proxy, found.incarnation, found.since, found.verdict, found.generation) == ("edge", "i-7", 417, verdict, 420)
            assert found.reason == "as scripted"
            assert found.asked_at <= found.answered_at
        assert fake.asked == [PLACE] * 3


@on_every_loop
async def test_real_exits_are_not_seen_from_another_node():
    local = ProcessWitness(proxy="edge")
    with process() as child:
        local.track(child.pid, generation=1)
        async with agent(local) as port:
            witness = witness_of(port)
            assert (await witness.check(*PLACE)).verdict is HELD
            child.kill()
            await until(lambda: _clear(witness))
    local.close()


async def _clear(witness):
    return (await witness.check(*PLACE)).verdict is CLEAR


@on_every_loop
async def test_many_ports_are_mixed_up_or_too_many_for_one_question():
    fake = FakeWitness("edge", lambda host, port, since: CLEAR if since % 2 else HELD)
    places = [("h", 1 + n, n) for n in range(2 * PLACES + 5)]
    async with agent(fake) as port:
        found = await witness_of(port).check_many(places)
        assert [(each.since, each.verdict) for each in found] == [(n, CLEAR if n % 2 else HELD) for _, _, n in places]
        assert fake.rounds == [PLACES, PLACES, 5]
        assert await witness_of(port).check_many([]) == ()


@on_every_loop
async def test_a_withdrawal_does_not_arrive_or_raises():
    fake = FakeWitness("edge")
    async with agent(fake, ProcessWitness(proxy="mute")) as port:
        await witness_of(port).withdraw(*PLACE)
        assert fake.withdrawn == [PLACE]
        await witness_of(port, proxy="mute").withdraw(*PLACE)
    await witness_of(port).withdraw(*PLACE)


@on_every_loop
async def test_a_witness_that_raises_takes_the_agent_down():
    async def broken(host, port, since):
        raise RuntimeError("boom")

    fake = FakeWitness("edge", broken)
    async with agent(fake) as port:
        found = await witness_of(port).check(*PLACE)
        assert (found.verdict, "boom" in found.reason) == (UNKNOWN, True)
        fake.say(CLEAR)
        assert (await witness_of(port).check(*PLACE)).verdict is CLEAR


@on_every_loop
async def test_a_silent_proxy_is_waited_for_without_end():
    async def silent(host, port, since):
        await anyio.sleep_forever()

    async with agent(FakeWitness("edge", silent), FakeWitness("other", CLEAR), answer_s=0.1) as port:
        found = await witness_of(port).check(*PLACE)
        assert (found.verdict, "gave no answer" in found.reason) == (UNKNOWN, True)
        assert (await witness_of(port, proxy="other").check(*PLACE)).verdict is CLEAR


@on_every_loop
async def test_two_questions_at_once_crowd_a_proxys_socket():
    inside = []

    async def slowly(host, port, since):
        inside.append(since)
        assert len(inside) == 1
        await anyio.wait_all_tasks_blocked()  # all that may come in has
        inside.pop()
        return CLEAR

    async with agent(FakeWitness("edge", slowly)) as port, anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(_must_be_clear, witness_of(port))


async def _must_be_clear(witness):
    assert (await witness.check(*PLACE)).verdict is CLEAR


# ---------------------------------------------------------------------- refusals


@on_every_loop
async def test_a_stranger_gets_an_answer():
    fake = FakeWitness("edge", CLEAR)
    async with agent(fake) as port:
        for token in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x" * 40):
            found = await witness_of(port, token=token).check(*PLACE)
            assert (found.verdict, "401" in found.reason) == (UNKNOWN, True)
            assert token not in found.reason
        body = b'{"proxy":"edge","places":[["h",1,1]]}'
        for header in (
            b"",
            b"Authorization: Basic %s\r\n" % TOKEN.encode(),
            b"Authorization: Bearer\r\n",
            b"Authorization: Bearer %s\r\n" % TOKEN.encode() * 2,
        ):
            answer = await raw(port, b"POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), header, body))
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert TOKEN.encode() not in answer
        assert fake.asked == []


@on_every_loop
async def test_a_bad_question_is_answered_or_ends_the_agent():
    head = b"POST /v1/check HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()

    def post(body):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    many = json.dumps({"proxy": "edge", "places": [["h", 1, 1]] * (PLACES + 1)}).encode()
    cases = {
        b"nonsense\r\n\r\n": b"400",
        b"\x16\x03\x01\x02\x00\x01": b"400",
        b"": b"",
        post(b""): b"400",
        post(b"[" * 100_000): b"400",
        post(b'{"proxy":"edge","places":[["h",0,1]]}'): b"400",
        post(b'{"proxy":"edge","places":[["h",1,-1]]}'): b"400",
        post(b'{"proxy":"edge","places":[["h",1]]}'): b"400",
        post(b'{"proxy":"%s","places":[]}' % (b"x" * 300)): b"400",
        post(many): b"400",
        post(b'{"proxy":"none","places":[]}'): b"404",
        head.replace(b"/v1/check", b"/metrics") + b"\r\n": b"404",
        head.replace(b"POST", b"GET") + b"\r\n": b"405",
        head + b"Content-Length: 10\r\n\r\nabc": b"",
        head + b"X: " + b"x" * 40_000: b"431",
    }
    async with agent(FakeWitness("edge", CLEAR), read_s=0.3) as port:
        for data, status in cases.items():
            answer = await raw(port, data)
            assert answer[9:12] in {status, b""} if status else answer == b"", data[:100]
        assert (await witness_of(port).check(*PLACE)).verdict is CLEAR


@on_every_loop
async def test_a_question_without_end_fills_the_memory():
    async with agent(FakeWitness("edge", CLEAR)) as port:
        head = b"POST /v1/check HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 99999999\r\n\r\n" % TOKEN.encode()
        tracemalloc.start()
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with anyio.fail_after(PATIENCE_S), contextlib.suppress(anyio.BrokenResourceError):
                await stream.send(head)
                while True:
                    await stream.send(b"x" * 65_536)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()
        assert (await witness_of(port).check(*PLACE)).verdict is CLEAR


@on_every_loop
async def test_idle_strangers_keep_the_others_out():
    async with agent(FakeWitness("edge", CLEAR), connections=3, read_s=0.2) as port:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
        await until(lambda: _clear(witness_of(port)))
        for connection in idle:
            connection.close()


@on_every_loop
async def test_strangers_without_number_each_cost_a_place():
    async with agent(FakeWitness("edge", CLEAR), connections=3, read_s=PATIENCE_S) as port:
        idle = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(3)]
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(PATIENCE_S / 2), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            async with await anyio.connect_tcp("127.0.0.1", port) as surplus:
                await surplus.receive()
        assert (await witness_of(port).check(*PLACE)).verdict is UNKNOWN
        for connection in idle:
            await connection.aclose()
        await until(lambda: _clear(witness_of(port)))


@on_every_loop
async def test_nonsense_is_an_answer_or_a_crash(serve):
    wrong = {
        "too few": plain('{"answers": []}'),
        "a made-up verdict": plain('{"answers": [{"incarnation": "", "verdict": "FINE", "generation": null, "reason": ""}]}'),
        "a long name": plain(json.dumps({"answers": [{"incarnation": "x" * 999, "verdict": "CLEAR", "generation": 1, "reason": ""}]})),
        "a generation below zero": plain('{"answers": [{"incarnation": "", "verdict": "CLEAR", "generation": -1, "reason": ""}]}'),
    }
    for name, answer in (NONSENSE | wrong).items():
        found = await witness_of(serve(answer).port, deadline_s=0.3).check(*PLACE)
        assert (found.verdict, bool(found.reason), len(found.reason) <= 300) == (UNKNOWN, True, True), name
    assert (await witness_of(free_port()).check(*PLACE)).verdict is UNKNOWN
    assert (await RemoteWitness("http://no.such.host.invalid", proxy="edge", token=TOKEN).check(*PLACE)).verdict is UNKNOWN


# ---------------------------------------------------------------------- TLS


@on_every_loop
async def test_a_forged_certificate_is_believed(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    async with agent(FakeWitness("edge", CLEAR), context=context) as port:
        assert (await witness_of(port, scheme="https", verify=str(certificate / "cert.pem")).check(*PLACE)).verdict is CLEAR
        found = await witness_of(port, scheme="https").check(*PLACE)
        assert (found.verdict, "certificate" in found.reason.lower()) == (UNKNOWN, True)
        assert (await witness_of(port).check(*PLACE)).verdict is UNKNOWN


# ---------------------------------------------------------------------- values


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 513, "with space 0123456789", "ünïcödé-0123456789abc", "line\n0123456789abcdef", None, b"0123456789abcdef"]
)
def test_a_token_that_cannot_be_one_is_taken_or_repeated(token):
    with pytest.raises(InvalidValue) as refused:
        witness_of(1, token=token)
    if token:
        assert str(token) not in str(refused.value)
    with pytest.raises(InvalidValue):
        Agent([FakeWitness()], token=token)


def test_the_token_is_shown():
    assert TOKEN not in repr(witness_of(1)) + repr(Agent([FakeWitness()], token=TOKEN))


def test_it_is_no_witness():
    assert isinstance(witness_of(1, fallback_s=150), Witness)
    assert witness_of(1, fallback_s=150).fallback_s == 150
