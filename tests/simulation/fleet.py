"""What can happen to proxies that are asked, and callers who wait for them: they stand still, begin anew, come and go."""

from __future__ import annotations

MOST = 4


class Fleet:
    """The part of the world that acts on proxies."""

    def _some_proxy(self, chance):
        there = [proxy for proxy in self.proxies.all if proxy.started]
        return chance.choice(there) if there else None

    # ------------------------------------------------------------------ callers

    async def drain_port(self, chance):
        """The whole way: the proxies let go, and then the replica stops."""
        lease, timeout_s = self.some_lease(chance), chance.choice((None, None, 2.0, 30.0))
        if lease and (controller := await self.ready(chance)):
            self.call(controller, "withdraw", lease, then=lambda call: self._await_clear(call, timeout_s))

    def _await_clear(self, call, timeout_s):
        self.call(call.controller, "wait_clear", *call.args, timeout_s=timeout_s, then=self._release_drained)

    def _release_drained(self, call):
        (lease,) = call.args
        if call.result and lease.token not in self.record.ended:
            self.call(call.controller, "release", lease, then=self._note_drained)

    def _note_drained(self, call):
        events = self.record.events[self.record.ended[call.args[0].token] :][:1]
        self.hits["drained and free in one step"] += any(e.cause == "evidence" and e.port == call.args[0].port for e in events)

    async def wait_clear(self, chance):
        lease = self.some_lease(chance, late=chance.random() < 0.5)
        if lease and (controller := await self.ready(chance)):
            self.call(controller, "wait_clear", lease, timeout_s=chance.choice((0.0, 2.0, 30.0)))

    async def flap(self, chance):
        """A replica that ended comes back to its own port, and ends again."""
        ports = self.record.ahead.ports.items()
        fit = [(key, p.owner, p.service) for key, p in ports if p.state == "QUARANTINED" and p.owner in self.plan.owners]
        if fit and (controller := await self.ready(chance)):
            (node, pool, _), owner, service = chance.choice(fit)
            options = {"owner": owner, "node": node, "service": service, "port": None, "wait_s": 0.0}
            self.call(controller, "allocate", pool, **options, then=lambda call: self.call(controller, "release", call.result))

    # ------------------------------------------------------------------ proxies

    async def freeze(self, chance):
        proxy = self._some_proxy(chance)
        if proxy is not None and not self.plan.bounded:
            self.say(f"proxy {proxy.name} stands still")
            self.hits["proxy froze"] += 1
            proxy.frozen = True

    async def thaw(self, chance):
        for proxy in [proxy for proxy in self.proxies.all if proxy.frozen]:
            self.say(f"proxy {proxy.name} goes on")
            proxy.frozen = False
            proxy.hear()

    async def restart_proxy(self, chance):
        """With a new table, or an old one; with another name for itself, or only a smaller generation."""
        proxy, back, silent = self._some_proxy(chance), chance.random() < 0.6, chance.random() < 0.4
        if proxy is None:
            return
        record = self.record
        taken = [event.seq for event in record.events if event.kind == "freed"]
        least = max(proxy.first, *taken[-1:], 0)  # of what was let go of and is another's by now, no table may tell
        seq = chance.randint(least, record.shown.seq) if back and not self.plan.bounded and least <= record.shown.seq else record.shown.seq
        witness = proxy.witnesses[-1]
        proxy.incarnation += not (silent and witness.dates and not witness.takes_out)
        proxy.frozen, proxy.booting = False, True
        proxy.begin(seq)
        self.say(f"proxy {proxy.name} begins anew as {proxy.incarnation} with the table of {seq}")
        self.hits["proxy went back" if seq < record.shown.seq else "proxy restarted"] += 1

    async def proxy_leaves(self, chance):
        """One is gone for good, or one that was gone before is still waited for."""
        controller = await self.ready(chance)
        if controller is None:
            return
        proxy = self._some_proxy(chance)
        waited_for = sorted(set(self.record.ahead.required) - {proxy.name for proxy in self.proxies.all})
        if proxy is not None and not waited_for:
            self.say(f"proxy {proxy.name} is gone")
            proxy.lives = False
            self.proxies.all.remove(proxy)
        name = waited_for[0] if waited_for else proxy and proxy.name
        if name:
            self.call(controller, "leave", name, reason="scaled in")

    async def proxy_joins(self, chance):
        if len(self.proxies.all) < MOST and (controller := await self.ready(chance)):
            proxy = self.proxies.add(chance.choice(self.plan.lags))
            self.call(controller, "join", self.proxies.witness(controller, proxy))
