"""The witness in front of a master that answers from a script: its clocks, its names, and what it reads beside the socket."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import attrs
import pytest

from portfsm.evidence import Verdict, Witness
from portfsm.testing import ManualClock
from portfsm.witnesses import HAProxyWitness
from tests.witnesses.answers import recorded
from tests.witnesses.unix import Client, server

pytestmark = pytest.mark.anyio

ASKED = ("127.0.0.1", 29999, 400)


@attrs.define
class Master:
    """Answers `show proc`, and any question to a worker."""

    path: Path
    listing: str
    worker: str
    asked: list[str] = attrs.field(factory=list)
    gone: bool = False

    async def answer(self, stream: Client) -> None:
        question = (await stream.receive()).decode()
        self.asked += question.strip().split("; ")
        if not self.gone:
            await stream.send((self.listing if question == "show proc\n" else self.worker).encode())

    def witness(self, clock: ManualClock) -> HAProxyWitness:
        return HAProxyWitness(self.path, proxy="edge", fallback_s=200.0, clock=clock)


@pytest.fixture
async def master(place: Path) -> AsyncIterator[Master]:
    """With the recorded answers; no stream is on its way."""
    settled = recorded("worker").replace("scb=[3,", "scb=[8,")
    master = Master(place, recorded("listing"), settled)
    async with server(place, master.answer):
        yield master


async def test_a_witness_that_is_none(master, clock):
    witness = master.witness(clock)
    assert isinstance(witness, Witness)
    assert (witness.proxy, witness.fallback_s) == ("edge", 200.0)
    assert await witness.check_many([]) == []


async def test_times_that_are_not_the_boot_clocks(master, clock):
    said = await master.witness(clock).check(*ASKED)
    assert said.verdict is Verdict.CLEAR
    assert said.asked_at == said.answered_at == clock.boot_ns()


async def test_the_same_proxy_that_passes_for_another_second_by_second(master, clock):
    """Where the kernel does not show the master (process 1 is another program), the start is an estimate from whole seconds."""
    witness = master.witness(clock)
    master.listing = re.sub(r"(?m)^\d+( +master)", r"1\1", master.listing)
    first = (await witness.check(*ASKED)).incarnation
    clock.advance(1.0)
    assert (await witness.check(*ASKED)).incarnation == first
    clock.advance(100.0)
    assert (await witness.check(*ASKED)).incarnation != first


@pytest.mark.parametrize("trouble", ["missing", "binary", "large", "empty directory"])
async def test_a_configuration_that_cannot_be_read_and_stops_the_preflight(master, clock, tmp_path, trouble):
    path = tmp_path / "haproxy.cfg"
    if trouble == "binary":
        path.write_bytes(bytes(range(256)))
    elif trouble == "large":
        path.touch()
        os.truncate(path, 1 << 30)
    elif trouble == "empty directory":
        path.mkdir()
    found = await master.witness(clock).preflight(config=path)
    assert bool(found.unchecked) == (trouble in {"missing", "large"})
    assert str(path) in "".join(found.unchecked) or not found.unchecked


async def test_a_slot_withdrawn_twice_or_another_withdrawn_with_it(master, clock):
    """In maintenance already, at another address, or on another port: nothing to do."""
    witness, told = master.witness(clock), []
    master.worker = master.worker.split("\n\n")[3] + "\n\n"
    for host, port in (("127.0.0.1", 21002), ("127.0.0.2", 21001), ("127.0.0.1", 29999), ("::1", 21005), ("127.0.0.1", 21003)):
        await witness.withdraw(host, port, 5)
        told.append([line.partition(" ")[2] for line in master.asked if "set" in line])
    six = ["set server a/six state maint"]
    assert told == [[], [], [], six, [*six, "set server b/gone state maint"]]


async def test_a_withdrawal_that_raises(master, clock):
    master.worker = "Permission denied\n"
    await master.witness(clock).withdraw("127.0.0.1", 21001, 5)
    master.gone = True
    await master.witness(clock).withdraw("127.0.0.1", 21001, 5)


async def test_a_wake_up_that_nothing_caused(master, clock):
    with anyio.move_on_after(0.01) as scope:
        async for _ in master.witness(clock).changed():
            pytest.fail("nothing changed")
    assert scope.cancelled_caught
