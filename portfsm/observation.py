"""What a controller sees, and what its sight means beside the log: the values of `PortManager.reconcile`.

An observation is evidence, so it says what evidence must say: where somebody looked (`nodes`), whether all of it was
seen (`complete`), and when the looking began. All names and numbers are checked when a value is made (`InvalidValue`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from portfsm.errors import InvalidValue
from portfsm.specs import check_port, check_text

if TYPE_CHECKING:
    from portfsm.states import PortState
    from portfsm.values import Lease

__all__ = ["Conflict", "Move", "Observation", "ReconcileReport", "Seen", "Sighting"]


@attrs.frozen(slots=False)  # made once a replica and look, and a fifth faster without slots
class Sighting:
    """A live replica and the port it uses. `service`: what it serves, empty where the observer does not know."""

    owner: str
    node: str
    pool: str
    port: int
    service: str = ""

    def __attrs_post_init__(self) -> None:
        check_text("owner", self.owner, required=True)
        check_text("node", self.node)
        check_text("pool", self.pool, required=True)
        check_port(self.port)
        check_text("service", self.service)


_LAST_NS = 1 << 62
"""The year 2116, where the log's time ends."""


class Seen:
    """What was seen in one pool on one node, by port, as columns of a record are compared with it."""

    __slots__ = ("extra", "owners", "services")

    def __init__(self) -> None:
        self.owners: dict[int, str] = {}
        self.services: dict[int, str] = {}
        """Of those owners, where it was told."""
        self.extra: dict[int, set[tuple[str, str]]] = {}
        """Further owners or services of a port that has one already."""

    def add(self, sighting: Sighting) -> None:
        """Take in one sighting of this pool and node."""
        port, owner, service = sighting.port, sighting.owner, sighting.service
        if self.owners.setdefault(port, owner) != owner or (service and self.services.setdefault(port, service) != service):
            self.extra.setdefault(port, set()).add((owner, service))

    def at(self, port: int) -> list[tuple[str, str]]:
        """Each (owner, service) seen at a port, in order; an owner whose service was told is not listed without."""
        if port not in self.owners:
            return []
        found = {(self.owners[port], self.services.get(port, "")), *self.extra.get(port, ())}
        told = {owner for owner, service in found if service}
        return sorted((owner, service) for owner, service in found if service or owner not in told)


def _read_nodes(nodes: Iterable[str]) -> tuple[str, ...]:
    if isinstance(nodes, str) or not isinstance(nodes, Iterable):
        raise InvalidValue(f"nodes names every node that was looked at, as a list, not {nodes!r}", name="nodes", value=nodes)
    return tuple(sorted({check_text("node", node) for node in nodes}))


def _read_live(live: Iterable[Sighting]) -> tuple[Sighting, ...]:
    found = tuple(live) if isinstance(live, Iterable) else None
    if found is None or not set(map(type, found)) <= {Sighting}:
        strange = live if found is None else next(each for each in found if type(each) is not Sighting)
        raise InvalidValue(f"live holds one Sighting(...) a live replica and port, not {strange!r}", name="live", value=strange)
    return found


def _by_pool(observation: Observation) -> dict[tuple[str, str], Seen]:
    seen: defaultdict[tuple[str, str], Seen] = defaultdict(Seen)
    for sighting in observation.live:
        seen[sighting.node, sighting.pool].add(sighting)
    return dict(seen)


def _check_started(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LAST_NS:
        text = f"started_at_ns is manager.now_ns as it was before anybody looked, in whole nanoseconds, not {value!r}"
        raise InvalidValue(text, name="started_at_ns", value=value)


def _check_complete(value: object) -> None:
    if not isinstance(value, bool):
        text = f"complete says whether every live replica on the named nodes was seen: True or False, not {value!r}"
        raise InvalidValue(text, name="complete", value=value)


@attrs.frozen
class Observation:
    """What was seen on some nodes in one look at the world.

    `nodes`: those looked at; of others nothing follows but that what was seen there lives. Name a node that is gone, too:
    nothing lives there. `live`: one `Sighting` a live replica and port. `started_at_ns`: `manager.now_ns` (UTC ns of the log's
    timeline), read before the first question was put. `complete`: False where anything may have been missed; such an
    observation says what lives and never what is gone. Making one of thousands may be done in a thread.
    """

    nodes: tuple[str, ...] = attrs.field(converter=_read_nodes)
    live: tuple[Sighting, ...] = attrs.field(converter=_read_live)
    started_at_ns: int
    complete: bool
    seen: dict[tuple[str, str], Seen] = attrs.field(init=False, repr=False, eq=False, default=attrs.Factory(_by_pool, takes_self=True))
    """`live` by (node, pool), as the log is compared with it; not to be changed."""

    def __attrs_post_init__(self) -> None:
        _check_started(self.started_at_ns)
        _check_complete(self.complete)


@attrs.frozen
class Conflict:
    """Sightings that cannot be true together with the record or with each other. Nothing is done; a person has to look."""

    node: str
    pool: str
    port: int
    state: PortState
    """As recorded."""
    holder: str
    """Who has the port by the record; empty when nobody has."""
    claims: tuple[Sighting, ...]
    """All that was seen at the port, the holder's own sighting included."""
    reason: str
    """What is the matter and what to do, for people."""


@attrs.frozen
class Move:
    """An owner that was seen at another port of the pool and node than its lease says, and not there."""

    lease: Lease
    sighting: Sighting


@attrs.frozen
class ReconcileReport:
    """How an observation differs from the record, by node, pool and port, and what was done about it."""

    leaked: tuple[Lease, ...]
    """Recorded and not seen, by a complete observation begun after the lease."""
    released: tuple[Lease, ...]
    """Those of them that were missed often enough: now QUARANTINED, `cause="reconciled"`. In a dry run: that would be."""
    unknown: tuple[Sighting, ...]
    """Seen and not recorded: `adopt` takes each of them, or stop the replica."""
    conflicts: tuple[Conflict, ...]
    moved: tuple[Move, ...]
    """Release the lease and adopt the sighting, once it is clear that the owner has left the first port."""
    breaker: tuple[str, ...]
    """Pools over half of whose leases look leaked: nothing is released there, and the counts started over."""
    uncounted: tuple[str, ...]
    """Nodes where no absence was counted: the observation is incomplete, or no newer than the last one there."""
