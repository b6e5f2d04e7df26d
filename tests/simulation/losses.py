"""A log that is lost, or comes back from an older copy: what was acknowledged since is gone, and the next opening is told so.

Rule: the replicas that the lost part of the log told of are of two kinds. The ones live on and are adopted before anything else happens;
the others died with the log, and their proxies hear of it a lag later. No request may go astray all the same: that is what holding every
port for a full hold is for.
"""

from __future__ import annotations

from .power import PowerDisk


class Losses:
    """The part of the world that loses its log."""

    backup, unread = None, None
    """A copy of the disk; and how many events the log had when it came back, until an opening that was told of it is durable."""
    survivors = ()
    """(node, pool, port, owner, service) of replicas that live on, and of which the log may not know."""

    async def back_up(self, chance):
        """A copy of the log, to come back from."""
        self.backup = self.disk.without_power(chance.getrandbits(32))

    async def lose_history(self, chance):
        """The machine with the log is gone; another one starts with the copy, or with nothing."""
        self.hits["history lost"] += 1
        alive = {key: (p.owner, p.service, p.token) for key, p in self.record.ahead.ports.items() if p.state == "ALLOCATED"}
        alive |= {each[:3]: (*each[3:], 0) for each in self.survivors}
        told = {each[:3] for each in self.survivors} | set(self.record.shown.ports) | set(self.record.ahead.ports)
        await self.go_back(chance)
        found = self.disk.events()
        self.say(f"the log is lost, and comes back with {len(found)} events of {len(self.record.events)}")
        self._forget_since(found)
        known = {key: (p.owner, p.service, p.token) for key, p in self.record.ahead.ports.items() if p.state == "ALLOCATED"}
        lost = {key: value[:2] for key, value in alive.items() if known.get(key) != value}
        self.survivors = [(*key, *who) for key, who in lost.items() if chance.random() < 0.4]
        for key in sorted(
            told - set(known) - {each[:3] for each in self.survivors} | {key for key in known if known[key] != alive.get(key)}
        ):
            self._dies(key)
        for key, value in known.items():
            if value != alive.get(key):  # who comes back after a release of which nobody knows, takes his port on his own word
                self.proxies.adopter.setdefault((key[0], key[2]), value[0])

    async def go_back(self, chance):
        """Everybody dies, and the log is an older one."""
        await self.die(power=False, reboot=chance.random() < 0.3, seed=0, down_s=chance.choice((0.0, 1.0, 15.0)))
        self.disk = self.older_one(chance, PowerDisk(self.hits)).without_power(1)
        self.disk.mend()

    def older_one(self, chance, empty):
        """The copy; or nothing, also where it holds what nobody was told of, and what came after is another's."""
        if self.backup is None or chance.random() < 0.3 or not self.record.holds(self.backup.events()):
            self.backup = empty
        return self.backup

    def _forget_since(self, found):
        """The world as it is by the copy: what came later, nobody will ever tell."""
        record, base = self.record, len(found)
        record.forget_all(base)
        self.unread = base
        self.leases = [lease for lease in self.leases if lease.token <= base]
        self.terms = {token: term for token, term in self.terms.items() if token <= base}
        self.claims.clear()
        for proxy in self.proxies.all:  # leases that nobody was told of: whose numbers come again for others
            for place in [place for place, (_, _, token) in proxy.table.items() if token in self.proxies.void]:
                del proxy.table[place]
            proxy.inbox = [(when, e) for when, e in proxy.inbox if e.token not in self.proxies.void]
        self.proxies.void = {token for token in self.proxies.void if token <= base}

    def _dies(self, key):
        """A replica is gone, and every proxy hears of it a lag from now."""
        for proxy in self.proxies.all:
            proxy.hear_of_end(key)

    # ------------------------------------------------------------------ the next opening

    def history(self):
        """What the next controller is told of the log."""
        if self.unread is None:
            return "kept"
        after = self.disk.events()[self.unread :]
        if any(event.kind == "opened" and event.data.get("history") == "lost" for event in after):
            self.unread = None
            return "kept"
        return "lost"

    def prove(self, controller):
        """The replicas that live on are adopted before anybody else is served."""
        for node, pool, port, owner, service in self.survivors:
            self.call(controller, "adopt", pool, port, owner=owner, node=node, service=service)

    def proven(self, call):
        """A survivor is known again; or it cannot be, or whoever asked for it gave up, and it ends."""
        who = (*call.place, call.args[1], call.options["owner"], call.options["service"])
        if who in self.survivors and not call.dead:
            self.survivors = [each for each in self.survivors if each != who]
            if not call.answered:
                self.hits["survivor not adopted"] += 1
                for proxy in self.proxies.all:
                    proxy.table.pop((who[0], who[2]), None)
                    proxy.drop((who[0], who[2]))
            self.hits["survivor adopted"] += call.answered
