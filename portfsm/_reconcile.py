"""The record against the world: what leaked, what is unknown, what contradicts; and when a leak is believed.

Rule: what is not seen may still live. A lease is believed leaked after three complete observations, each begun after the
lease, far enough apart, and with no sighting of its port or of its owner between them. An observation that misses over half
of a pool's leases is not believed at all. What is seen is believed at once, whatever the observation is worth otherwise.

The record's columns are compared with what was seen in C, a pool at a time; only what differs is looked at one by one.
Counts are kept in memory alone: a restart begins them anew, and a leak stays a little longer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import compress, repeat
from operator import ne
from typing import TYPE_CHECKING, NamedTuple

from portfsm._index import index_of
from portfsm._pool import ALLOCATED, BLOCKED, STATES
from portfsm._rejections import place, utc
from portfsm.errors import InvalidValue
from portfsm.observation import Conflict, Move, ReconcileReport, Seen, Sighting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.observation import Observation
    from portfsm.values import Lease

    Place = tuple[str, str, int]
    """(node, pool, port)."""
    Claims = list[tuple[str, str]]
    """Each (owner, service) that was seen at one port."""

__all__ = ["ABSENCES", "Census", "Plan"]

ABSENCES = 3
"""Complete observations that must miss a lease before it is released."""
SHARE = 10
"""One in so many of a pool's leases may be released at a time; one in any case."""

_NOTHING = Seen()
_IS_ALLOCATED = bytes(code == ALLOCATED for code in range(256))


class Suspect(NamedTuple):
    """A lease that was missed and not seen since."""

    lease: Lease
    absences: int
    last_ns: int
    """When the observation began that was counted last."""


class Plan(NamedTuple):
    """What one observation leads to. Nothing has changed yet."""

    report: ReconcileReport
    """With those as `released` that are due to be."""
    suspects: dict[int, Suspect]
    begun: dict[str, int]


class Census:
    """What earlier observations said, as far as later ones depend on it."""

    def __init__(self) -> None:
        self.suspects: dict[int, Suspect] = {}
        """By the token of the lease."""
        self.begun: dict[str, int] = {}
        """When the newest observation of each node began, UTC ns."""

    def plan(self, observation: Observation, ledger: Ledger, *, now_ns: int, leak_grace_s: float) -> Plan:
        """Compare and count. Raises `InvalidValue` for an observation of another time, `UnknownPool`."""
        scene = Scene(observation, ledger, self.begun, now_ns)
        unknown, conflicts, moved = scene.findings()
        leaked = scene.leaked()
        suspects = self._suspects(scene, leaked, round(leak_grace_s * 1e9))
        leases = {name: _count(ledger, name) for name in {suspect.lease.pool for suspect in suspects.values()}}
        missing = Counter(suspect.lease.pool for suspect in suspects.values())
        breaker = {name for name, count in missing.items() if 2 * count > leases[name]}
        suspects = {token: each._replace(absences=0) if each.lease.pool in breaker else each for token, each in suspects.items()}
        due = [lease for lease in leaked if suspects[lease.token].absences >= ABSENCES]
        report = ReconcileReport(
            leaked=_in_order(leaked), released=_in_order(_share(due, leases)), unknown=unknown, conflicts=conflicts, moved=moved,
            breaker=tuple(sorted(breaker)), uncounted=scene.uncounted,
        )  # fmt: skip
        return Plan(report, suspects, {**self.begun, **dict.fromkeys(scene.newer, scene.started)})

    def _suspects(self, scene: Scene, leaked: list[Lease], grace_ns: int) -> dict[int, Suspect]:
        """The suspects after this observation: those still standing and not seen, and those missed now, counted where it is time."""
        suspects = {token: each for token, each in self.suspects.items() if scene.stands(each.lease) and not scene.is_seen(each.lease)}
        for lease in leaked:
            _, absences, last_ns = suspects.get(lease.token, (lease, 0, 0))
            if not absences or scene.started >= last_ns + grace_ns:
                suspects[lease.token] = Suspect(lease, absences + 1, scene.started)
        return suspects

    def take(self, plan: Plan) -> None:
        """Remember what the plan's observation said."""
        self.suspects, self.begun = plan.suspects, plan.begun

    def saw(self, token: int) -> None:
        """There is another proof that the lease's owner lives, or is about to."""
        self.suspects.pop(token, None)

    def is_due(self, token: int) -> bool:
        """Whether the lease is still believed leaked: it may have been seen since the plan was made."""
        return token in self.suspects and self.suspects[token].absences >= ABSENCES


class Scene:
    """One observation beside the ledger: what differs between them, and what can be said of it."""

    def __init__(self, observation: Observation, ledger: Ledger, begun: dict[str, int], now_ns: int) -> None:
        self.ledger, self.started, self.seen = ledger, observation.started_at_ns, observation.seen
        _check_time(self.started, ledger, now_ns)
        nodes = {*observation.nodes, *(node for node, _ in self.seen)}
        self.newer = {node for node in nodes if self.started > begun.get(node, 0)}
        counted = self.newer.intersection(observation.nodes) if observation.complete else set()
        self.uncounted = tuple(sorted(nodes - counted))
        self.odd: list[Place] = []
        """Ports at which something else was seen than what is recorded."""
        self.missed: list[tuple[Pool, int]] = []
        self.of_owner: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        """Where an owner was seen that is not recorded to have that port."""
        for (node, name), seen in self.seen.items():
            pool = ledger.pool(name, node)
            odd, missed = _differ(pool, seen)
            self._sort_in(pool, odd, seen)
            if node in counted:
                self.missed += ((pool, offset) for offset in missed)
        for pool in _pools(ledger, counted):
            if (pool.node, pool.name) not in self.seen:
                self.missed += ((pool, offset) for offset in pool.offsets(states=bytes((ALLOCATED,))))

    def _sort_in(self, pool: Pool, ports: Iterable[int], seen: Seen) -> None:
        for port in ports:
            self.odd.append((pool.node, pool.name, port))
            holder = pool.owner[port - pool.base] if pool.code(port) == ALLOCATED else ""
            for owner in {owner for owner, _ in seen.at(port)} - {holder}:
                self.of_owner[pool.node, pool.name, owner].append(port)

    # ------------------------------------------------------------------ what is missing

    def leaked(self) -> list[Lease]:
        """Leases older than the observation of which it saw nothing: not the port, and not its owner elsewhere in the pool."""
        return [
            pool.lease(offset)
            for pool, offset in self.missed
            if pool.since[offset] < self.started and not self._lives(pool, pool.owner[offset])
        ]

    def is_seen(self, lease: Lease) -> bool:
        """Whether the port is in use, by whomever, or its owner lives elsewhere in the pool."""
        there = lease.port in self.seen.get((lease.node, lease.pool), _NOTHING).owners
        return there or self._lives(self.ledger.pools[lease.node, lease.pool], lease.owner)

    def _lives(self, pool: Pool, owner: str) -> bool:
        """Whether an owner was seen at another port than the one in question: one of its group, or where it should not be."""
        if (pool.node, pool.name, owner) in self.of_owner:
            return True
        held = index_of(pool).held(owner) if index_of(pool).members else {}
        owners = self.seen.get((pool.node, pool.name), _NOTHING).owners
        return any(owners.get(pool.base + offset) == owner for offset in held.values())

    def stands(self, lease: Lease) -> bool:
        """Whether the lease has not ended."""
        pool = self.ledger.pools[lease.node, lease.pool]
        offset = pool.row(lease.port)
        return pool.state[offset] == ALLOCATED and pool.token[offset] == lease.token

    # ------------------------------------------------------------------ what is there

    def findings(self) -> tuple[tuple[Sighting, ...], tuple[Conflict, ...], tuple[Move, ...]]:
        """Every sighting that the record does not know, as unknown, in conflict, or moved. Ports that changed meanwhile are left out."""
        unknown: list[Sighting] = []
        conflicts: list[Conflict] = []
        moved: list[Move] = []
        for node, name, port in sorted(self.odd):
            pool = self.ledger.pool(name, node)
            claims = self.seen[node, name].at(port)
            held = index_of(pool).holders.get(claims[0][0], -1)
            if node not in self.newer or self._changed(pool, pool.row(port)) or self._changed(pool, held):
                continue
            reason = _contradiction(pool, port, claims) or self._second_place(pool, port, held, claims[0][0])
            if reason:
                conflicts.append(_conflict(pool, port, claims, reason))
            elif held < 0:
                unknown.append(_sighting(pool, port, claims[0]))
            else:
                moved.append(Move(pool.lease(held), _sighting(pool, port, claims[0])))
        return tuple(unknown), tuple(conflicts), tuple(moved)

    def _changed(self, pool: Pool, offset: int) -> bool:
        """Whether a row changed after the observation began: what was seen there may be what was so before."""
        return offset >= 0 and pool.since[offset] >= self.started

    def _second_place(self, pool: Pool, port: int, held: int, owner: str) -> str:
        """An owner is one replica and has one port of a pool on a node."""
        others = {each for each in self.of_owner[pool.node, pool.name, owner] if each != port}
        if held >= 0 and any(each == owner for each, _ in self.seen[pool.node, pool.name].at(pool.base + held)):
            others.add(pool.base + held)
        if not others:
            return ""
        return f"{owner!r} was seen at {place(pool, port)} and at {', '.join(map(str, sorted(others)))}, too: find out which one it uses"


# ---------------------------------------------------------------------- what differs, in C


def _pools(ledger: Ledger, nodes: Iterable[str]) -> list[Pool]:
    return [ledger.pools[node, name] for node in nodes for name in ledger.specs if (node, name) in ledger.pools]


def _differ(pool: Pool, seen: Seen) -> tuple[set[int], Iterable[int]]:
    """The ports at which something else was seen than the record says, and the offsets of leases at whose ports nothing was."""
    rows = range(pool.base, pool.base + len(pool.state))
    who = list(map(seen.owners.get, rows, repeat("")))
    there, held = _bits(map(bool, who)), _bits(pool.state.translate(_IS_ALLOCATED))
    other = _bits(map(ne, who, pool.owner))
    if seen.services:
        other |= _bits(map(ne, map(seen.services.get, rows, pool.service), pool.service))
    odd = {pool.base + offset for offset in _offsets(pool, there & ~(held & ~other))} | seen.extra.keys()
    if there.bit_count() < len(seen.owners):
        odd |= {port for port in seen.owners if port not in rows}
    return odd, _offsets(pool, held & ~there)


def _bits(column: Iterable[int]) -> int:
    """A column of zeroes and ones as one number, so that columns are combined like numbers."""
    return int.from_bytes(bytes(column))


def _offsets(pool: Pool, bits: int) -> Iterable[int]:
    return compress(range(len(pool.state)), bits.to_bytes(len(pool.state))) if bits else ()


def _count(ledger: Ledger, name: str) -> int:
    """Leases of a pool on all nodes."""
    return sum(pool.state.count(ALLOCATED) for (_, found), pool in ledger.pools.items() if found == name)


# ---------------------------------------------------------------------- the rules, one by one


def _check_time(started: int, ledger: Ledger, now_ns: int) -> None:
    advice = "read manager.now_ns before you look, and make an observation from that look alone"
    if started > now_ns:
        text = f"an observation begun at {utc(started)}, after the log's present time {utc(now_ns)}: {advice}"
        raise InvalidValue(text, name="started_at_ns", value=started)
    if ledger.opened and started < ledger.opened["ts"]:
        text = f"an observation begun at {utc(started)}, before this opening of the log at {utc(ledger.opened['ts'])}: {advice}"
        raise InvalidValue(text, name="started_at_ns", value=started)


def _contradiction(pool: Pool, port: int, claims: Claims) -> str:
    """Why the claims on one port cannot be true with its record, or with each other; empty if they can."""
    offset, name = pool.row(port), place(pool, port)
    owners = sorted({owner for owner, _ in claims})
    who = " and ".join(map(repr, owners))
    if pool.code(port) == ALLOCATED:
        holder, service = pool.owner[offset], pool.service[offset]
        if owners != [holder]:
            return f"{name} is held by {holder!r}, and seen there was {who}: find out who listens, and stop or release the other"
        return f"{name} is held by {holder!r} for service {service!r}, and seen serving another: release it and adopt what lives"
    if len(claims) > 1:
        return f"{name} is claimed by {who}{' for two services' if len(owners) == 1 else ''}: find out which is so and adopt that"
    if pool.code(port) == BLOCKED:
        return f"{name} is blocked ({pool.note(offset).reason}), and {who} was seen there: adopt it if the reason is gone, or stop it"
    return ""


def _conflict(pool: Pool, port: int, claims: Claims, reason: str) -> Conflict:
    code = pool.code(port)
    holder = pool.owner[pool.row(port)] if code == ALLOCATED else ""
    return Conflict(pool.node, pool.name, port, STATES[code], holder, tuple(_sighting(pool, port, claim) for claim in claims), reason)


def _sighting(pool: Pool, port: int, claim: tuple[str, str]) -> Sighting:
    owner, service = claim
    return Sighting(owner, pool.node, pool.name, port, service)


def _share(due: list[Lease], leases: dict[str, int]) -> list[Lease]:
    """Of each pool its oldest leases, and not too many at a time."""
    taken: Counter[str] = Counter()
    found = []
    for lease in sorted(due, key=lambda each: each.token):
        if taken[lease.pool] < max(1, leases[lease.pool] // SHARE):
            taken[lease.pool] += 1
            found.append(lease)
    return found


def _in_order(leases: list[Lease]) -> tuple[Lease, ...]:
    return tuple(sorted(leases, key=lambda each: (each.node, each.pool, each.port)))
