"""Proxies that say what a test wants, and the few steps that the tests of the warden share."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from portfsm import Evidence, Verdict


class Proxy:
    """A witness whose proxy does as it is told: `routes` holds the ports it would still connect to."""

    def __init__(self, name="proxy", *, fallback_s=None, word=Verdict.HELD):
        self.proxy, self.fallback_s, self.word = name, fallback_s, word
        self.routes, self.asked, self.incarnation, self.generation = None, [], "1", 7
        self._news, self._told = anyio.Event(), 0

    def let_go(self, *ports):
        """From now on these are clear; the witness hears of it at once."""
        self.routes = (self.routes if self.routes is not None else set(range(65536))) - set(ports)
        self.tell()

    def tell(self):
        self._told += 1
        self._news.set()
        self._news = anyio.Event()

    async def check(self, host, port, since):
        self.asked.append((host, port, since))
        held = self.routes is None or port in self.routes
        return Evidence(
            self.proxy, self.incarnation, since, self.word if held else Verdict.CLEAR, self.generation, "worker 5 still has it", 0, 0
        )

    async def changed(self):
        heard = 0
        while True:
            while heard == self._told:  # also what was told before anybody listened
                await self._news.wait()
            heard = self._told
            yield


class Many(Proxy):
    """Asked about several ports at once."""

    rounds = 0

    async def check_many(self, places):
        self.rounds += 1
        return [await self.check(*place) for place in places]


async def until(true):
    with anyio.fail_after(10):
        while not true():
            await anyio.lowlevel.checkpoint()


async def settle():
    for _ in range(200):
        await anyio.lowlevel.checkpoint()


def state(manager, port=30000):
    return manager.port("http", port).state.value


async def held_until(manager, clock, *, seconds, step_s=0.1):
    """The port is held for so long from now on and not longer: with `step_s` to go it is quarantined."""
    await settle()
    clock.advance(seconds - step_s)
    await settle()
    assert state(manager) == "QUARANTINED"
    clock.advance(step_s)
    await until(lambda: state(manager) == "FREE")


async def released(manager, *, owner="a", service="x"):
    lease = await manager.allocate("http", owner=owner, service=service)
    await manager.release(lease)
    return lease
