"""The witness against a real HAProxy: what must hold a port holds it, and what is clear never gives a wrong answer."""

from __future__ import annotations

import re
import statistics
import time
from functools import partial

import anyio
import pytest

from portfsm.errors import ReloadFailed, StaleGeneration
from portfsm.evidence import Verdict, Witness
from portfsm.haproxy import RELAY_RULE, reload, render, write
from portfsm.values import Lease
from tests.witnesses.helpers import free_port, frozen, until
from tests.witnesses.real import HOST, Proxy, ask_again, cleared, complaint, keep_alive, running

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"]), pytest.mark.timeout(120)]

IDLE = 20


async def withdrawn_by_reload(proxy: Proxy, taken: int, kept: int, *, generation: int = 20) -> int:
    proxy.write(generation, a=[kept])
    return await proxy.reload()


async def test_a_test_that_would_pass_without_evidence(proxy):
    """The negative control: with the port given on at once there are wrong answers, or nothing here proves anything."""
    taken, kept, proxy.relay = free_port(), free_port(), False
    proxy.write(10, a=[taken, kept])
    async with running("a", kept):
        async with running("a", taken):
            await proxy.start()
            clients = await keep_alive(proxy, IDLE)
        await withdrawn_by_reload(proxy, taken, kept)
        async with running("b", taken) as other:
            statuses = await ask_again(clients)
    assert other.wrong >= 3
    assert statuses.count(404) == other.wrong


async def test_wrong_answers_from_a_port_that_was_called_clear(proxy):
    """With the relay line the port is clear while the old worker and its idle clients are still there."""
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept])
    async with running("a", kept):
        async with running("a", taken):
            await proxy.start()
            clients = await keep_alive(proxy, IDLE)
        witness = proxy.witness()
        assert (await witness.check(HOST, taken, 20)).verdict is Verdict.HELD
        await withdrawn_by_reload(proxy, taken, kept)
        began = time.monotonic()
        said = await cleared(witness, taken, 20)
        assert time.monotonic() - began < 5
        (old,) = await proxy.pids("old")
        assert said.generation == 20
        assert f"old worker {old} is stopping and relays" in said.reason
        async with running("b", taken) as other:
            statuses = await ask_again(clients)
    assert other.wrong == 0
    assert statuses == [200] * IDLE


async def test_a_port_given_on_while_an_old_worker_can_still_connect(proxy):
    """Without the relay line idle clients keep their worker, and the worker keeps the port, until it exits."""
    taken, kept, proxy.relay = free_port(), free_port(), False
    proxy.write(10, a=[taken, kept])
    async with running("a", taken), running("a", kept):
        await proxy.start()
        clients = await keep_alive(proxy, 2)
        witness = proxy.witness()
        await withdrawn_by_reload(proxy, taken, kept)
        (old,) = await proxy.pids("old")
        for _ in range(20):
            said = await witness.check(HOST, taken, 20)
            assert said.verdict is Verdict.HELD
            assert f"old worker {old} still has a/s{taken}" in said.reason
        for client in clients:
            await client.aclose()
        await cleared(witness, taken, 20)
        assert await proxy.pids("old") == []


async def test_a_slot_in_maintenance_that_waits_for_a_newer_generation(proxy):
    """The runtime API clears a port without a reload, with an established stream on it and at the generation there is."""
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept], b=[taken])
    async with running("b", taken, mute=True) as replica:
        await proxy.start()
        witness = proxy.witness()
        async with await anyio.connect_tcp(HOST, proxy.front) as stream:
            await stream.send(b"GET /b/ HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: replica.right)
            assert (await witness.check(HOST, taken, 11)).verdict is Verdict.HELD
            proxy.stamp(11)
            await witness.withdraw(HOST, taken, 11)
            said = await cleared(witness, taken, 11)
            assert said.generation == 10
            for forgetful in (proxy.directory / "none", proxy.directory):
                unsure = await proxy.witness(ports_file=forgetful).check(HOST, taken, 11)
                assert (unsure.verdict, "the next reload would bring the port back" in unsure.reason) == (Verdict.HELD, True)
            proxy.stamp(10)
            assert "not known to be of generation 11" in (await witness.check(HOST, taken, 11)).reason
            assert (await proxy.witness(ports_file=None).check(HOST, taken, 11)).verdict is Verdict.CLEAR, "then the controller sees to it"
            proxy.stamp(11)
            assert "in maintenance" in said.reason
            # Any reply may start it again where replies are tried again.
            careful = await proxy.witness(retries_replies=True).check(HOST, taken, 11)
            assert careful.verdict is Verdict.HELD
            assert "connected" in careful.reason


async def test_withdrawal_that_takes_longer_than_a_blink(proxy, record_property):
    """Withdraw to clear by the runtime API: the median stays far below what a reload takes."""
    ports = [free_port() for _ in range(30)]
    proxy.write(10, a=ports)
    await proxy.start()
    witness, taken = proxy.witness(), []
    for port in ports:
        began = time.perf_counter()
        proxy.stamp(11)
        await witness.withdraw(HOST, port, 11)
        await cleared(witness, port, 11)
        taken.append((time.perf_counter() - began) * 1e3)
    record_property("withdraw_to_clear_p50_ms", statistics.median(taken))
    assert statistics.median(taken) < 100


async def test_many_withdrawals_that_do_not_fit_into_one_question(proxy):
    ports = list(range(40_000, 41_000))
    proxy.write(10, a=ports)
    await proxy.start()
    proxy.stamp(11)
    witness = proxy.witness()
    await witness.withdraw_many([(HOST, port, 11) for port in ports[:-1]])
    said = await witness.check_many([(HOST, port, 11) for port in ports])
    assert [evidence.verdict for evidence in said] == [Verdict.CLEAR] * 999 + [Verdict.HELD]


@pytest.mark.parametrize("who", ["master", "worker"])
async def test_a_frozen_proxy_that_counts_as_clear(proxy, who):
    taken, kept = free_port(), free_port()
    proxy.write(20, a=[kept])
    await proxy.start()
    witness = proxy.witness(deadline_s=0.2)
    assert (await witness.check(HOST, taken, 15)).verdict is Verdict.CLEAR
    pid = proxy.process.pid if who == "master" else (await proxy.pids("worker"))[0]
    with frozen(pid):
        said = await witness.check(HOST, taken, 15)
        assert said.verdict is Verdict.UNKNOWN
        assert "did not answer within 0.2 s" in said.reason
        assert who == "master" or f"worker {pid}" in said.reason
        assert said.answered_at - said.asked_at < 5_000_000_000
    await cleared(witness, taken, 15)


async def test_an_old_worker_that_sleeps_through_its_signal(proxy):
    """Frozen before the reload: no time is long enough, and the new worker's word is not its."""
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept])
    await proxy.start()
    (old,) = await proxy.pids("worker")
    async with running("a", kept):
        async with running("a", taken):
            clients = await keep_alive(proxy, 4)
        with frozen(old):
            await withdrawn_by_reload(proxy, taken, kept)
            for _ in range(3):
                said = await proxy.witness(deadline_s=0.2).check(HOST, taken, 20)
                assert (said.verdict, f"old worker {old}" in said.reason) == (Verdict.UNKNOWN, True)
        await cleared(proxy.witness(), taken, 20)
        async with running("b", taken) as other:
            assert await ask_again(clients) == [200] * 4
    assert other.wrong == 0


async def test_a_slot_by_name_that_is_not_withdrawn(proxy):
    taken = free_port()
    proxy.write(10, a=[taken])
    proxy.config.write_text(proxy.config.read_text().replace(f"127.0.0.1:{taken}", f"localhost:{taken}"))
    await proxy.start()
    witness = proxy.witness()
    proxy.stamp(11)
    await witness.withdraw("elsewhere", taken, 11)
    assert (await witness.check("localhost", taken, 11)).verdict is Verdict.HELD
    await witness.withdraw("localhost", taken, 11)
    assert (await witness.check("localhost", taken, 11)).verdict is Verdict.CLEAR


async def test_a_broken_reload_that_counts_as_done(proxy):
    """The master keeps the old worker; the failure is told, and the generation says what runs."""
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept])
    await proxy.start()
    proxy.extra = "no such keyword"
    proxy.write(20, a=[kept])
    with pytest.raises(ReloadFailed, match="runs the former one") as failure:
        await reload(proxy.master_socket, generation=20)
    assert complaint() in str(failure.value)
    said = await proxy.witness().check(HOST, taken, 20)
    assert said.verdict is Verdict.HELD
    assert said.generation == 10
    proxy.extra = ""
    proxy.write(20, a=[kept])
    await reload(proxy.master_socket, generation=20)
    await cleared(proxy.witness(), taken, 20)


async def test_a_master_that_is_still_starting_and_cannot_be_reloaded(proxy):
    """Nobody listens yet when the call begins; the reload comes after the start, and is one."""
    proxy.write(10, a=[free_port()])
    with pytest.raises(ReloadFailed, match=r"nobody is there to reload after 0\.2 s"):
        await reload(proxy.master_socket, generation=10, wait_s=0.2)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(reload, proxy.master_socket, generation=20, wait_s=25))
            await anyio.wait_all_tasks_blocked()
            proxy.launch()
            proxy.write(20, a=[free_port()])
    assert (await proxy.witness().check(HOST, free_port(), 20)).generation == 20


async def test_a_reload_asked_for_in_the_middle_of_another_that_is_lost(proxy):
    """The master is another program for a moment and hears nothing: each of many calls at once sees its generation run."""
    proxy.write(10, a=[free_port()])
    await proxy.start()
    for generation in range(11, 16):
        proxy.write(generation, a=[free_port()])
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(partial(reload, proxy.master_socket, generation=generation, wait_s=20))
        assert (await proxy.witness().check(HOST, free_port(), generation)).generation == generation


async def test_a_late_push_of_an_older_configuration_that_nobody_notices(proxy):
    taken, kept = free_port(), free_port()
    proxy.write(10, a=[taken, kept])
    old = proxy.config.read_text()
    proxy.write(20, a=[kept])
    await proxy.start()
    await cleared(proxy.witness(), taken, 15)
    with pytest.raises(StaleGeneration, match="generation 20 and must not go back to 10"):
        write(proxy.config, old)
    proxy.config.write_text(old)
    await proxy.reload()
    said = await proxy.witness().check(HOST, taken, 15)
    assert (said.verdict, said.generation) == (Verdict.HELD, 10)


async def test_stamps_that_outlive_the_configuration_that_set_them(proxy):
    """The master's environment goes on to later workers. The description does not; preflight asks for it."""
    port = free_port()
    proxy.write(10, a=[port])
    await proxy.start()
    assert (await proxy.witness().preflight(config=proxy.config)).findings == ()
    text = proxy.config.read_text()
    proxy.config.write_text(re.sub(r"(?m)^ *(setenv|description) .*\n", "", text))
    await proxy.reload()
    assert (await proxy.witness().check(HOST, port, 5)).generation == 10
    whats = [finding.what for finding in (await proxy.witness().preflight(config=proxy.config)).findings]
    assert whats == ["stamps only in the environment", "GEN is not set in this file"]
    proxy.config.write_text(text.replace("setenv GEN 10", "").replace("setenv RELAY 1", "").replace("GEN=10 RELAY=1", "GEN=8 RELAY=0"))
    await proxy.reload()
    assert (await proxy.witness().check(HOST, port, 5)).generation == 8
    assert "no relay promise" in [finding.what for finding in (await proxy.witness().preflight()).findings]


async def test_a_restarted_proxy_that_passes_for_the_same(proxy):
    port = free_port()
    proxy.write(10, a=[port])
    await proxy.start()
    witness = proxy.witness()

    async def named() -> str:
        return (await witness.check(HOST, port, 5)).incarnation

    first = await until(named, within_s=15)
    await proxy.reload()
    assert await until(named, within_s=15) == first
    proxy.stop()
    assert (await witness.check(HOST, port, 5)).verdict is Verdict.UNKNOWN
    await proxy.start()
    assert await until(named, within_s=15) != first


async def test_many_ports_that_cost_a_round_each(proxy):
    """One round for all: the answers bear the same times, and come in the order of the questions."""
    ports = [free_port() for _ in range(50)]
    proxy.write(10, a=ports[::2])
    await proxy.start()
    said = await proxy.witness().check_many([(HOST, port, 10) for port in ports])
    assert [evidence.verdict for evidence in said] == [Verdict.HELD, Verdict.CLEAR] * 25
    assert len({(evidence.asked_at, evidence.answered_at) for evidence in said}) == 1
    assert isinstance(proxy.witness(), Witness)


async def test_a_controller_whose_rendered_file_the_proxy_does_not_take(proxy):
    """The helper's whole way: own file beside the rendered one, reload, evidence."""
    lease = [Lease("web", "", free_port(), f"r{i}", "b", i, 0) for i in (1, 2)]
    proxy.write(0)
    own = re.sub(r"(?m)^ *(setenv|description) .*\n|^backend (.|\n)*", "", proxy.config.read_text())
    proxy.config.unlink()
    home = proxy.directory / "conf"
    home.mkdir()
    (home / "1.cfg").write_text(own)
    options = {"relay": f"{HOST}:{proxy.front}", "services": ["a", "b"]}
    write(home / "2.cfg", render(lease, generation=5, **options))
    proxy.config.symlink_to(home)
    await proxy.start()
    assert RELAY_RULE in own
    async with running("b", lease[0].port), running("b", lease[1].port):
        assert await ask_again(await keep_alive(proxy, 2, "/b/"), "/b/") == [200, 200]
    write(home / "2.cfg", render(lease[:1], generation=7, **options))
    await reload(proxy.master_socket, generation=7)
    said = await cleared(proxy.witness(), lease[1].port, 6)
    assert said.generation == 7
    assert (await proxy.witness().preflight(config=home)).findings == ()
    assert (await proxy.witness().check(HOST, lease[0].port, 6)).verdict is Verdict.HELD
