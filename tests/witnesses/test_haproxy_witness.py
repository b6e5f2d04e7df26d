"""The witness in front of a master that answers from a script: its clocks, its names, and what it reads beside the socket."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from portfsm.evidence import Verdict, Witness
from portfsm.testing import ManualClock
from portfsm.witnesses import HAProxyWitness
from portfsm.witnesses import haproxy as module
from portfsm.witnesses._socket import Unanswered

pytestmark = pytest.mark.anyio

RECORDED = Path(__file__).parent / "recorded"
ASKED = ("127.0.0.1", 29999, 400)


@pytest.fixture
def script(monkeypatch) -> dict[str, str]:
    """What the master answers to `show proc`, and a worker to anything."""
    settled = (RECORDED / "worker.txt").read_text().replace("scb=[3,", "scb=[8,")
    answers = {"proc": (RECORDED / "listing.txt").read_text(), "worker": settled, "asked": ""}

    async def put(path: str, question: str, **bounds) -> str:
        answers["asked"] += question + "\n"
        return answers["proc" if question == "show proc" else "worker"]

    monkeypatch.setattr(module, "put", put)
    return answers


@pytest.fixture
def witness(clock) -> HAProxyWitness:
    return HAProxyWitness("/run/m", proxy="edge", fallback_s=200.0, clock=clock)


async def test_a_witness_that_is_none(witness, script):
    assert isinstance(witness, Witness)
    assert (witness.proxy, witness.fallback_s) == ("edge", 200.0)
    assert await witness.check_many([]) == []


async def test_times_that_are_not_the_boot_clocks(witness, script, clock):
    said = await witness.check(*ASKED)
    assert said.verdict is Verdict.CLEAR
    assert said.asked_at == said.answered_at == clock.boot_ns()


async def test_the_same_proxy_that_passes_for_another_second_by_second(witness, script, monkeypatch, clock: ManualClock):
    """Without the kernel's word the start is an estimate from whole seconds; it may not waver."""
    monkeypatch.setattr(module, "_kernel_start", lambda pid: "")
    first = (await witness.check(*ASKED)).incarnation
    clock.advance(1.0)
    assert (await witness.check(*ASKED)).incarnation == first
    clock.advance(100.0)
    assert (await witness.check(*ASKED)).incarnation != first


async def test_a_process_of_another_program_that_passes_for_the_master():
    assert module._kernel_start(1) == ""
    assert module._kernel_start(2**31) == ""


@pytest.mark.parametrize("trouble", ["missing", "binary", "large", "empty directory"])
async def test_a_configuration_that_cannot_be_read_and_stops_the_preflight(witness, script, tmp_path, monkeypatch, trouble):
    path = tmp_path / "haproxy.cfg"
    if trouble == "binary":
        path.write_bytes(bytes(range(256)))
    elif trouble == "large":
        path.write_text("global\n")
        monkeypatch.setattr(module, "_MAX_CONFIG", 3)
    elif trouble == "empty directory":
        path.mkdir()
    found = await witness.preflight(config=path)
    assert bool(found.unchecked) == (trouble in {"missing", "large"})
    assert str(path) in "".join(found.unchecked) or not found.unchecked


async def test_a_slot_withdrawn_twice_or_another_withdrawn_with_it(witness, script):
    """In maintenance already, at another address, or on another port: nothing to do."""
    table = script["worker"].split("\n\n")[3]
    script["worker"] = table + "\n\n"
    for host, port in (("127.0.0.1", 21002), ("127.0.0.2", 21001), ("127.0.0.1", 29999)):
        await witness.withdraw(host, port, 5)
    assert "set server" not in script["asked"]
    await witness.withdraw("::1", 21005, 5)
    await witness.withdraw("127.0.0.1", 21003, 5)
    assert [line.partition(" ")[2] for line in script["asked"].splitlines() if "set" in line] == [
        "set server a/six state maint",
        "set server b/gone state maint",
    ]


async def test_a_withdrawal_that_raises(witness, script, monkeypatch):
    script["worker"] = "Permission denied\n"
    await witness.withdraw("127.0.0.1", 21001, 5)

    async def put(path: str, question: str, **bounds) -> str:
        raise Unanswered("nobody")

    monkeypatch.setattr(module, "put", put)
    await witness.withdraw("127.0.0.1", 21001, 5)


async def test_a_wake_up_that_nothing_caused(witness):
    with anyio.move_on_after(0.01) as scope:
        async for _ in witness.changed():
            pytest.fail("nothing changed")
    assert scope.cancelled_caught
