"""Witnesses that break their word, proxies that come and go, callers that give up, and crashes between any two steps."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial

import anyio
import anyio.lowlevel
import attrs
import pytest

from portfsm import Evidence, Lease, PoolExhausted, PoolSpec, PortfsmError, PortManager, Verdict, open_manager
from portfsm.testing import FakeWitness
from tests.warden.scene import released, settle, state, until

pytestmark = pytest.mark.anyio

CLEAR, HELD = Verdict.CLEAR, Verdict.HELD
SPEC = PoolSpec("http", ports="30000-30003", hold_s=10.0)


@pytest.fixture
def opened(memory_log, clock):  # four ports, and one kind of log will do
    def make(*witnesses, spec=SPEC):
        return open_manager(memory_log.handle(), pools=[spec], clock=clock, witnesses=witnesses)

    return make


def evidence(proxy, since, verdict=CLEAR):
    return Evidence(proxy, "1", since, verdict, since, "as it likes", 0, 0)


# ---------------------------------------------------------------------- a witness that breaks its word


class Liar(FakeWitness):
    """Answers a round with whatever `lie` makes of the questions; honest without one."""

    lie = None

    async def check_many(self, places):
        honest = await super().check_many(places)
        return honest if self.lie is None else self.lie(places)


LIES = {
    "for another proxy": lambda places: [evidence("other", since) for _, _, since in places],
    "for another port": lambda places: [evidence("edge", since + 1) for _, _, since in places],
    "of long ago": lambda places: [evidence("edge", since - 1) for _, _, since in places],
    "nothing": lambda places: None,
    "too few": lambda places: [],
    "too many": lambda places: [evidence("edge", since) for _, _, since in places] * 2,
    "words": lambda places: ["CLEAR"] * len(places),
    "a verdict that is none": lambda places: [evidence("edge", since, "CLEAR") for _, _, since in places],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_an_answer_that_is_none_frees_a_port_or_ends_the_manager(opened, clock, lie):
    liar, other = Liar("edge", CLEAR), FakeWitness("other", HELD)
    liar.lie = lie
    async with opened(liar, other) as manager:
        await released(manager)
        await liar.wait_asked(1)
        await settle()
        assert state(manager) == "QUARANTINED"
        assert "other says HELD" in manager.explain("http", 30000)
        other.say(CLEAR)
        other.trigger()
        await settle()
        assert state(manager) == "QUARANTINED"
        liar.lie = None
        liar.trigger()
        await until(lambda: state(manager) == "FREE")


async def test_one_witness_speaks_for_another(opened):
    liar, other = Liar("edge", HELD), FakeWitness("other", HELD)
    async with opened(liar, other) as manager:
        await released(manager)
        await other.wait_asked(1)
        await settle()
        for liar.lie, word in ((LIES["for another proxy"], HELD), (None, CLEAR)):
            liar.say(word)
            liar.trigger()
            await settle()
        assert "other says HELD" in manager.explain("http", 30000)
        assert state(manager) == "QUARANTINED"


async def hang(host, port, since):
    await anyio.sleep_forever()


@pytest.mark.parametrize("fallback_s", [None, 60.0])
async def test_a_witness_that_never_returns_is_waited_for_without_a_word(opened, clock, fallback_s):
    """Half a minute is silence: it is told, counts for the witness's own bound, and the witness is asked anew."""
    hanging = FakeWitness("edge", hang, fallback_s=fallback_s)
    async with opened(hanging, FakeWitness("other", CLEAR)) as manager:
        await released(manager)
        await hanging.wait_asked(1)
        await settle()
        clock.advance(30)
        await until(lambda: "edge says UNKNOWN: gave no answer within 30 s" in manager.explain("http", 30000))
        await settle()
        clock.advance(1)
        await hanging.wait_asked(2)
        await settle()
        clock.advance(30)
        if fallback_s is None:
            await settle()
            assert state(manager) == "QUARANTINED"
            hanging.say(CLEAR)
            hanging.trigger()
        await until(lambda: state(manager) == "FREE")


async def test_a_witness_that_always_has_news_stops_the_loop(opened):
    class Chatty(FakeWitness):
        async def changed(self):
            while True:
                yield

    chatty = Chatty("edge", HELD)
    async with opened(chatty) as manager:
        with anyio.fail_after(10):
            await released(manager)
            await chatty.wait_asked(5)
            chatty.say(CLEAR)
            await until(lambda: state(manager) == "FREE")


async def test_an_answer_that_came_too_late_speaks_for_the_next_lease(opened):
    """Put before the port was given out again, and answered when that lease has ended, too."""
    answers = []

    async def slow(host, port, since):
        answers.append(anyio.Event())
        await answers[-1].wait()
        return CLEAR if len(answers) == 1 else HELD

    async with opened(FakeWitness("edge", slow)) as manager:
        await released(manager)
        await until(lambda: answers)
        await released(manager, owner="b")  # its own service: at once
        answers[0].set()
        await until(lambda: len(answers) == 2)
        answers[1].set()
        await until(lambda: "edge says HELD" in manager.explain("http", 30000))
        assert state(manager) == "QUARANTINED"


# ---------------------------------------------------------------------- proxies that come and go


async def test_a_proxy_that_came_back_is_believed_what_it_said_before_it_left(opened):
    first, second = FakeWitness("edge", CLEAR), FakeWitness("second", HELD)
    async with opened(first, second) as manager:
        await released(manager)
        await until(lambda: "edge" not in manager.explain("http", 30000).partition("second says")[2])
        await first.wait_asked(1)
        await settle()
        await manager.leave("edge", reason="scaled in")
        await manager.join(FakeWitness("edge", HELD, incarnation="2"))
        second.say(CLEAR)
        second.trigger()
        await until(lambda: "edge says HELD" in manager.explain("http", 30000))
        assert state(manager) == "QUARANTINED"


def word_of(routes, host, port, since):
    return HELD if port in routes else CLEAR


@attrs.define
class Fleet:
    """Proxies that come, go and let go of ports, and callers that come, give up and go. It knows what nobody may be given."""

    manager: PortManager
    chance: random.Random
    routes: dict[str, dict[int, str]] = attrs.field(factory=dict)
    """Which service each required proxy takes a port for."""
    witnesses: dict[str, FakeWitness] = attrs.field(factory=dict)
    leases: dict[Lease, bool] = attrs.field(factory=dict)
    """Each, and whether it is withdrawn."""
    granted: int = 0
    given_up: int = 0

    async def step(self) -> None:
        steps = (
            self.join,
            self.leave,
            self.let_go,
            self.let_go,
            self.let_go,
            self.allocate,
            self.allocate,
            self.withdraw,
            self.release,
            self.wait,
        )
        await self.chance.choice(steps)()

    async def or_give_up(self, call):
        """What it gives, unless the caller is cancelled after so many turns of the loop."""
        found = None
        async with anyio.create_task_group() as tasks:

            async def cancel():
                for _ in range(self.chance.randrange(30)):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

            tasks.start_soon(cancel)
            with suppress(PoolExhausted):
                found = await call()
        self.given_up += found is None
        return found

    async def join(self) -> None:
        name = self.chance.choice("pqr")
        if name not in self.routes:
            routes = self.routes[name] = {lease.port: lease.service for lease, withdrawn in self.leases.items() if not withdrawn}
            script = partial(word_of, routes)
            self.witnesses[name] = FakeWitness(name, script, incarnation=str(self.granted))
        await self.manager.join(self.witnesses[name])

    async def leave(self) -> None:
        if len(self.routes) > 1:
            name = self.chance.choice(sorted(self.routes))
            del self.routes[name], self.witnesses[name]
            await self.manager.leave(name, reason="scaled in")

    async def let_go(self) -> None:
        kept = {lease.port for lease, withdrawn in self.leases.items() if not withdrawn}
        name = self.chance.choice(sorted(self.routes))
        for port in self.chance.sample([port for port in range(30_000, 30_004) if port not in kept], k=min(1, 4 - len(kept))):
            self.routes[name].pop(port, None)
        self.witnesses[name].trigger()

    async def allocate(self) -> None:
        self.granted += 1
        service = f"s{self.granted}"
        lease = await self.or_give_up(lambda: self.manager.allocate("http", owner=service, service=service, wait_s=None))
        if lease is not None:
            assert self.still_routed(lease.port, service) == []
            self.leases[lease] = False
            for routes in self.routes.values():
                routes[lease.port] = service

    def still_routed(self, port: int, service: str) -> list[str]:
        """The proxies that would take a request for another service to the port."""
        return [name for name, routes in self.routes.items() if routes.get(port, service) != service]

    async def withdraw(self) -> None:
        if self.leases:
            lease = self.chance.choice(sorted(self.leases, key=lambda lease: lease.port))
            self.leases[lease] = True
            await self.manager.withdraw(lease)

    async def release(self) -> None:
        if self.leases:
            lease = self.chance.choice(sorted(self.leases, key=lambda lease: lease.port))
            del self.leases[lease]
            await self.manager.release(lease)

    async def wait(self) -> None:
        for lease in [lease for lease, withdrawn in self.leases.items() if withdrawn]:
            if await self.or_give_up(lambda lease=lease: self.manager.wait_clear(lease)):
                assert self.still_routed(lease.port, "nobody's") == []


@pytest.mark.parametrize("seed", range(6))
async def test_a_port_given_on_while_proxies_come_and_go_and_callers_give_up(opened, seed, times):
    for number in range(times):
        async with opened() as manager:
            fleet = Fleet(manager, random.Random(f"{seed}/{number}"))
            await fleet.join()
            for _ in range(200):
                await fleet.step()
            assert len(fleet.leases) < fleet.granted
            assert fleet.given_up
            for routes in fleet.routes.values():
                routes.clear()
            for lease in [*fleet.leases]:
                await manager.release(lease)
            for witness in fleet.witnesses.values():
                witness.trigger()
            await until(lambda: all(state(manager, port) == "FREE" for port in range(30_000, 30_004)))
            for name in [*fleet.routes]:
                await manager.leave(name, reason="over")


# ---------------------------------------------------------------------- a controller killed between any two steps


async def history(manager, proxy):
    """Everything that opens, continues or ends a case; gives back what must not be free after each step."""
    await manager.join(proxy)
    yield {}
    first = await manager.allocate("http", owner="a", service="x")
    yield {30000: "ALLOCATED"}
    await manager.withdraw(first)
    yield {30000: "ALLOCATED"}
    await manager.release(first)
    yield {30000: "QUARANTINED"}
    second = await manager.allocate("http", owner="b", service="y")
    yield {30000: "QUARANTINED", 30001: "ALLOCATED"}
    await manager.release(second, block="broken")
    yield {30000: "QUARANTINED", 30001: "BLOCKED"}
    await manager.unblock("http", 30001)
    yield {30000: "QUARANTINED", 30001: "QUARANTINED"}
    await manager.hold("http", 30000, hold_s=50)
    yield {30000: "QUARANTINED", 30001: "QUARANTINED"}


@pytest.mark.parametrize("moment", range(8))
async def test_a_controller_killed_at_any_moment_forgets_what_proxies_still_have(log, clock, moment):
    """No time is long enough afterwards, and one word of the proxy is."""
    handle = log.handle()
    with suppress(PortfsmError):  # its place in the log is gone: it cannot even say that it leaves
        async with open_manager(handle, pools=[SPEC], clock=clock) as manager:
            steps = history(manager, FakeWitness("edge", HELD))
            for _ in range(moment + 1):
                expected = await anext(steps)
            await steps.aclose()
            log.lose(handle)
    async with open_manager(log.handle(), pools=[SPEC], clock=clock) as manager:
        clock.advance(1000)
        assert await manager.sweep() == ()
        held = {port: name for port, name in expected.items() if name == "QUARANTINED"}
        assert {port: state(manager, port) for port in expected} == expected
        assert all("edge was not heard" in manager.explain("http", port) for port in held)
        await manager.join(FakeWitness("edge", CLEAR))
        await until(lambda: all(state(manager, port) == "FREE" for port in held))
    assert log.kinds().count("proxy_joined") == 1
