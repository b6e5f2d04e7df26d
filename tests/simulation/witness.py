"""What a controller is told of a proxy: the truth, sooner or later, or nothing.

Rule: CLEAR means that the event asked about was published, that the proxy has heard everything about the port up to it, and that the
port is not in its table. That stays true while the proxy runs, so a late CLEAR is as true as an early one, unless it began anew.
"""

from __future__ import annotations

import random

import anyio
from anyio.lowlevel import checkpoint

from portfsm.evidence import Evidence, Verdict

MOODS = {"prompt": 12, "early": 4, "late": 4, "silent": 2, "raises": 1}
WAITS = (2, 5, 12, 40)


class Witness:
    def __init__(self, world, controller, proxy):
        chance = random.Random(f"witness {world.plan.seed} {proxy.name}")
        self.world, self.controller, self.sees = world, controller, proxy
        self.proxy, self.fallback_s = proxy.name, world.plan.fallback(proxy.name)
        self.dates, self.wakes = chance.random() < 0.7, chance.choice((True, True, False, None))
        """Whether it tells generations; whether it wakes (None: it raises when asked to)."""
        if chance.random() < 0.4:
            self.check_many = self._check_many
        self.takes_out = chance.random() < 0.3
        if self.takes_out:
            self.withdraw = self._withdraw
        self._news = anyio.Event()

    def __repr__(self):
        return f"<witness of {self.proxy}>"

    def tell(self):
        self._news.set()
        self._news = anyio.Event()

    async def changed(self):
        if self.wakes is None:
            raise NotImplementedError
        while self.wakes:
            await self._news.wait()
            yield

    # ------------------------------------------------------------------ questions

    async def check(self, host, port, since):
        return (await self._check_many([(host, port, since)]))[0]

    async def _check_many(self, places):
        mood, life = self._mood(), self.sees.life
        if mood == "raises":
            raise RuntimeError("no such socket")
        answers = [self._answer(*place, mood) for place in places]
        if mood in ("early", "late"):
            await self._wait()
            if mood == "late" or life != self.sees.life:
                answers = [self._answer(*place, mood) for place in places]
        return answers

    def _mood(self):
        if self.world.proxies.honest or self.sees.booting:
            return "prompt"
        mood = self.world.chance.choices(list(MOODS), list(MOODS.values()))[0]
        self.world.hits[f"witness is {mood}"] += 1
        return mood

    async def _wait(self):
        self.world.proxies.asking += 1
        try:
            for _ in range(self.world.chance.choice(WAITS)):
                await checkpoint()
        finally:
            self.world.proxies.asking -= 1
        if self.controller.dead:
            self.world.hits["witness outlived its controller"] += 1

    def _answer(self, host, port, since, mood):
        world, sees = self.world, self.sees
        sees.hear()
        if not sees.lives or mood == "silent":
            return Evidence(self.proxy, "", since, Verdict.UNKNOWN, None, "silence", 0, 0)
        if not (self.controller.dead or self.controller.superseded):
            sees.answered = world.turns
        clear = world.record.shown.seq >= since and not sees.has((host, port), since)
        verdict, generation = Verdict.CLEAR if clear else Verdict.HELD, sees.generation if self.dates else None
        return Evidence(self.proxy, str(sees.incarnation), since, verdict, generation, "asked", 0, 0)

    # ------------------------------------------------------------------ commands

    async def _withdraw(self, host, port, since):
        if self._mood() == "raises":
            raise RuntimeError("no such socket")
        if self.sees.lives:
            self.world.hits["witness took a port out"] += 1
            self.sees.forget((host, port), since)
