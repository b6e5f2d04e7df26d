"""Proxies that route by what was published a while ago, and the requests that go astray if a port changes hands too early.

Rule: a proxy hears of each published event a lag after it was recorded, or when it is published, if that is later. Where time alone ends
holds, a lag is never longer than the pool's hold; where proxies are asked it may be, and a proxy may stand still, or begin again with a
table of long ago. No request for one service may ever reach a port that another service has by now. `strict` counts the lag from the
publication instead (then a slow disk or a controller that was down eats into the hold) and routes to leases that no caller was ever told
of (then a cancelled call may send a request astray).
"""

from __future__ import annotations

from portfsm.events import Event

from .witness import Witness

TAKES, ENDS = ("allocated", "adopted"), ("withdrawn", "released", "blocked")


class Proxy:
    def __init__(self, world, name, lags, *, started):
        self.world, self.name, self.lags = world, name, lags
        self.table, self.inbox, self.witnesses = {}, [], []
        self.started, self.frozen, self.lives = started, False, True
        self.incarnation, self.life, self.first = 1, 1, 0
        """What it calls itself, how often it began, and the seq of the table it began with the first time."""
        self.booting = False
        """It began with an old table, and routes nothing before the controller can know."""
        self.answered = -1
        """The turn in which it said who it is by now."""

    @property
    def routes(self):
        return self.started and self.lives and not self.booting

    @property
    def generation(self):
        """The last event up to which it has heard them all: one that was recorded before it began anew may come before older ones."""
        return min((event.seq for _, event in self.inbox if event.seq), default=self.world.record.shown.seq + 1) - 1

    def hear(self):
        """Take in what is old enough, in order."""
        heard = False
        while self.inbox and self.inbox[0][0] <= self.world.true_ns and not self.frozen:
            self.learn(self.inbox.pop(0)[1])
            heard = True
        if self.booting and (not self.inbox or -1 < self.answered < self.world.turns):
            self.booting = False
        if heard:
            self.tell()

    def learn(self, event):
        if event.kind in TAKES:
            self.table[event.node, event.port] = event.owner, event.service, event.token
        elif event.kind in ENDS:
            self.table.pop((event.node, event.port), None)

    def tell(self):
        for witness in self.witnesses:
            witness.tell()

    def has(self, place, since=None):
        """Whether it routes to the port, or would once it has heard what was published up to `since`."""
        waits = (e for _, e in self.inbox if (e.node, e.port) == place and (e.kind in TAKES if since is None else e.seq <= since))
        return place in self.table or any(True for _ in waits)

    def forget(self, place, since):
        """Somebody takes the port out of its table."""
        self.table.pop(place, None)
        self.inbox = [(when, e) for when, e in self.inbox if (e.node, e.port) != place or e.seq > since]

    def drop(self, place):
        """What it would still hear of the port never comes."""
        self.inbox = [(when, e) for when, e in self.inbox if (e.node, e.port) != place]

    def hear_of_end(self, key):
        """The replica at a port is gone, which no event says."""
        node, pool, port = key
        self.drop((node, port))
        self.inbox.append((self.world.true_ns + self.lags[pool], Event(0, 1, "released", node, pool, port)))
        self.inbox.sort(key=lambda entry: entry[0])

    def begin(self, seq):
        """Make the table anew from what was published up to `seq`; what came later is heard after the lag."""
        record, now = self.world.record, self.world.true_ns
        self.table, self.started, self.answered = {}, True, -1
        for event in record.events[:seq]:
            self.learn(event)
        self.inbox = [(now + self.lags[event.pool], event) for event in record.events[seq : record.shown.seq] if event.port]
        self.life += 1
        self.tell()


class Proxies:
    def __init__(self, world, *, strict=False):
        self.world, self.strict = world, strict
        self.honest = False
        """Witnesses answer at once, and with what they know."""
        self.count = self.asking = 0
        """How many proxies there were, and how many witnesses are about to answer."""
        self.all = []
        for share in world.plan.lags:
            self.add(share)
        self.listening = {}
        """(node, port) -> (owner, service): who answers there by now."""
        self.adopter, self.word, self.void = {}, {}, set()
        """Who took a port on his own word, or changed his service, which a process does not; ports that an operator freed on his; tokens of leases that nobody was told of."""

    # ------------------------------------------------------------------ which there are

    def add(self, share):
        """Another proxy, which is configured once it has joined."""
        plan = self.world.plan
        proxy = Proxy(self.world, f"p{self.count}", plan.lags_ns(share), started=not plan.evidence)
        self.count += 1
        self.all.append(proxy)
        return proxy

    def witness(self, controller, proxy):
        """The part of a controller that asks this proxy."""
        found = Witness(self.world, controller, proxy)
        proxy.witnesses.append(found)
        return found

    def witnesses(self, controller):
        """Those a controller opens the log with."""
        for proxy in self.all:
            proxy.witnesses = [witness for witness in proxy.witnesses if not (witness.controller.gone or witness.controller.dead)]
        return [self.witness(controller, proxy) for proxy in self.all] if self.world.plan.evidence else []

    # ------------------------------------------------------------------ what they hear

    def show(self, event, recorded_ns):
        """`event` was published now, and had been recorded at `recorded_ns`."""
        now = self.world.true_ns
        if event.kind == "proxy_joined":
            for proxy in (proxy for proxy in self.all if proxy.name == event.data["proxy"] and not proxy.started):
                proxy.first = event.seq
                proxy.begin(event.seq)
        if not event.port:
            return
        for proxy in (proxy for proxy in self.all if proxy.started):
            heard_ns = (now if self.strict else recorded_ns) + proxy.lags[event.pool]
            earlier = (when for when, e in proxy.inbox if (e.node, e.port) == (event.node, event.port))  # which nothing overtakes
            proxy.inbox.append((max(now, heard_ns, *earlier), event))
            proxy.inbox.sort(key=lambda entry: entry[0])
        self._note(event)
        if event.kind == "allocated":
            self.route()

    def _note(self, event):
        """Who listens at the port, and who answers for what may still come there."""
        place = event.node, event.port
        if event.kind in TAKES:
            owner, service = self.listening.get(place, ("", ""))
            if event.kind == "adopted" or (owner == event.owner and service != event.service):
                self.adopter[place] = event.owner
            self.listening[place] = event.owner, event.service
        if event.cause == "cancelled":
            self.void.add(event.token)
        elif event.kind == "released" and place in self.word:
            self.word[place] = "ends"
        if event.kind == "freed":
            self.adopter.pop(place, None)
            if event.cause == "operator":
                self.word[place] = "holds"
            elif event.cause == "evidence" or self.word.get(place) == "ends":
                self.word.pop(place, None)

    def _excused(self, place, owner, token):
        return place in self.word or self.adopter.get(place) == owner or (token in self.void and not self.strict)

    def route(self):
        """A request for every service to every port of every table."""
        for proxy in self.all:
            proxy.hear()
            for place, (owner, service, token) in proxy.table.items() if proxy.routes else ():
                there_owner, there_service = self.listening.get(place, (owner, service))
                self.world.routed += 1
                astray = there_owner != owner and (not service or there_service != service)
                if astray and not self._excused(place, there_owner, token):
                    what = f"a request for {service or owner} went to port {place[1]}, where {there_service or there_owner} listens"
                    self.world.fail("wrong service", f"{what}, by {proxy.name}" if self.world.plan.evidence else what)

    # ------------------------------------------------------------------ what they let go of

    def holding(self, place):
        """Required proxies that may still route to the port, those aside that are trusted to be in time."""
        for proxy in self.all:
            proxy.hear()
        required = self.world.record.ahead.required
        return [p.name for p in self.all if p.routes and p.name in required and not self.world.plan.fallback(p.name) and p.has(place)]

    def freed(self, event):
        """A port was freed; a proxy that is only just starting gets a table without it."""
        for proxy in self.all:
            if proxy.booting:
                proxy.forget((event.node, event.port), event.seq)
