"""What a controller sees of the world, and what `reconcile` should make of it."""

from __future__ import annotations

from functools import partial

import hypothesis.strategies as st
from hypothesis.stateful import rule

from portfsm import Observation, Sighting
from tests.manager.model import HOLD, NODES, OWNERS, PORTS, SECOND, Port
from tests.manager.model_calls import Calls


class Looks(Calls):
    """`reconcile`, and what follows from its report."""

    @rule(
        nodes=st.sampled_from([("",), ("b",), NODES]),
        gone=st.sets(st.sampled_from(PORTS), max_size=3),
        stranger=st.none() | st.tuples(st.sampled_from(OWNERS), st.sampled_from(NODES), st.sampled_from(PORTS)),
        complete=st.sampled_from([True, True, False]),
        after=st.sampled_from([1, HOLD]),
        dry=st.sampled_from([False, False, True]),
        times=st.sampled_from([1, 4]),
    )
    def reconcile(self, nodes, gone, stranger, complete, after, dry, times):
        for _ in range(times):
            self.pass_time(after)
            self.look(nodes, gone, stranger, complete, dry)

    def look(self, nodes, gone, stranger, complete, dry):
        started = self.manager.now_ns
        held = {place: port for place, port in self.model.items() if port.state == "ALLOCATED"}
        claims = {(port.owner, *place) for place, port in held.items() if place[1] not in gone} | ({stranger} if stranger else set())
        live = [Sighting(owner, node, "p", number) for owner, node, number in claims]
        newer = {node for node in {*nodes, *(claim[1] for claim in claims)} if self.looked.get(node, 0) < started}
        astray = {claim[:2] for claim in claims if getattr(held.get(claim[1:]), "owner", None) != claim[0]}
        alive = {place for place, port in held.items() if (port.owner, place[0]) in astray or place in {claim[1:] for claim in claims}}
        leaked = {
            port.lease.token: place
            for place, port in held.items()
            if complete and place[0] in newer & {*nodes} and place not in alive and port.lease.since_ns < started
        }
        missed, released, breaker = self.count(held, alive, leaked, started)
        call = partial(self.manager.reconcile, Observation(nodes, live, started, complete=complete), leak_grace_s=HOLD)
        report = self.call(partial(call, dry_run=dry))
        assert {lease.token for lease in report.leaked} == leaked.keys()
        assert [lease.token for lease in report.released] == released
        assert report.breaker == breaker
        if dry:
            return
        self.missed, self.looked = missed, {**self.looked, **dict.fromkeys(newer, started)}
        for token in released:
            self.end(self.model[leaked[token]])
        self.judge(report, stranger, claims, newer, started)

    def count(self, held, alive, leaked, started):
        """The counts after this look, the one lease that is due (there are eight at most), and whether most are missing."""
        standing = {port.lease.token for place, port in held.items() if place not in alive}
        missed = {token: count for token, count in self.missed.items() if token in standing}
        for token in leaked:
            times, last = missed.get(token, (0, 0))
            if times == 0 or started - last >= HOLD * SECOND:
                missed[token] = times + 1, started
        if 2 * len(missed) > len(held):
            return dict.fromkeys(missed, (0, 0)), [], ("p",)
        return missed, sorted(token for token in leaked if missed[token][0] >= 3)[:1], ()

    def judge(self, report, stranger, claims, newer, started):
        """Where the stranger stands, if anywhere; who is unknown is adopted."""
        found = {each for name in ("unknown", "conflicts", "moved") for each in getattr(report, name)}
        if stranger is None:
            assert not found
            return
        owner, node, number = stranger
        port, elsewhere = self.model[node, number], self.holder(owner, node)
        if found:
            assert node in newer
            assert not (port.state == "ALLOCATED" and port.owner == owner)
        if report.unknown:
            assert port.state in {"FREE", "QUARANTINED"}
            assert elsewhere is None
            lease = self.call(partial(self.manager.adopt, "p", number, owner=owner, node=node))
            self.model[node, number] = Port("ALLOCATED", owner, "", None, lease, max(port.until or 0, port.floor))
            self.leases.append(lease)
        elif report.moved:
            assert port.state in {"FREE", "QUARANTINED"}
            assert (owner, node, elsewhere) not in claims
        elif report.conflicts:
            assert port.state in {"ALLOCATED", "BLOCKED"} or (owner, node, elsewhere) in claims
        elif node in newer and not (port.state == "ALLOCATED" and port.owner == owner):
            places = [place for place in (number, elsewhere) if place is not None]
            assert any((self.manager.port("p", place, node=node).since or 0) >= started for place in places)
