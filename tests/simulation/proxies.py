"""Proxies that route by what was published a while ago, and the requests that go astray if a port changes hands too early.

Rule: a proxy hears of each published event `lag` after it was recorded, or when it is published, if that is later. A lag is never longer than
the pool's hold, so no proxy may ever send a request for one service to a port that another service has by now. `strict` counts the
lag from the publication instead (then a slow disk or a controller that was down eats into the hold) and routes to leases that no
caller was ever told of (then a cancelled call may send a request astray); and owners may change their service.
"""

from __future__ import annotations


class Proxy:
    def __init__(self, share):
        self.share = share
        self.table = {}
        self.inbox = []

    def hear(self, true_ns):
        """Take in what is old enough, in order."""
        while self.inbox and self.inbox[0][0] <= true_ns:
            _, event = self.inbox.pop(0)
            place = event.node, event.port
            if event.kind in ("allocated", "adopted"):
                self.table[place] = event.owner, event.service
            elif event.kind in ("withdrawn", "released", "blocked"):
                self.table.pop(place, None)


class Proxies:
    def __init__(self, world, lags, *, strict=False):
        self.world = world
        self.strict = strict
        self.all = [Proxy(share) for share in lags]
        self.listening = {}
        """(node, port) -> (owner, service): who answers there by now."""

    def show(self, event, recorded_ns):
        """`event` was published now, and had been recorded at `recorded_ns`."""
        if not event.port:
            return
        now = self.world.true_ns
        hold_s = self.world.plan.holds[event.pool]
        for proxy in self.all:
            heard = (now if self.strict else recorded_ns) + round(proxy.share * hold_s * 1e9)
            proxy.inbox.append((max(now, heard), event))
            proxy.inbox.sort(key=lambda entry: entry[0])
        place = event.node, event.port
        was_owner, was_service = self.listening.get(place, ("", ""))
        if event.kind in ("allocated", "adopted"):
            self.listening[place] = event.owner, event.service
        if event.kind == "adopted" or (event.kind == "freed" and event.cause == "operator"):
            self._excuse(place)
        if not self.strict and (event.cause == "cancelled" or (event.owner == was_owner and event.service != was_service)):
            self._excuse(place)  # nobody was told of the lease; or its owner changed its service, which a process does not
        if event.kind == "allocated":
            self.route()

    def _excuse(self, place):
        """Somebody took it upon himself: what is routed there from now on is on his word."""
        for proxy in self.all:
            proxy.table.pop(place, None)
            proxy.inbox = [(when, event) for when, event in proxy.inbox if (event.node, event.port) != place]

    def route(self):
        """A request for every service to every port of every table."""
        for proxy in self.all:
            proxy.hear(self.world.true_ns)
            for place, (owner, service) in proxy.table.items():
                there_owner, there_service = self.listening.get(place, (owner, service))
                self.world.routed += 1
                if there_owner != owner and (not service or there_service != service):
                    what = f"a request for {service or owner} went to port {place[1]}, where {there_service or there_owner} listens"
                    self.world.fail("wrong service", what)
