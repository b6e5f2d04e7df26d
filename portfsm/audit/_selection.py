"""Which events somebody asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm.audit._moments import Moment
    from portfsm.events import Event

__all__ = ["Selection"]


def _set(values: Iterable[str] | Iterable[int]) -> frozenset[str | int]:
    return frozenset(values)


@attrs.frozen
class Selection:
    """Which events somebody wants to see. Several values of one kind: any of them; several kinds: all of them."""

    ports: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    pools: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    nodes: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    owners: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    services: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    kinds: frozenset[str | int] = attrs.field(factory=frozenset, converter=_set)
    since: Moment | None = None
    until: Moment | None = None

    def __contains__(self, event: Event) -> bool:
        return (
            (not self.ports or event.port in self.ports)
            and (not self.pools or event.pool in self.pools)
            and (not self.nodes or (event.port > 0 and event.node in self.nodes))
            and (not self.owners or event.owner in self.owners)
            and (not self.services or event.service in self.services)
            and (not self.kinds or event.kind.value in self.kinds)
            and (self.since is None or self.since.reached_by(event))
            and (self.until is None or self.until.covers(event))
        )

    def past(self, event: Event) -> bool:
        """Whether neither `event` nor any after it can be wanted."""
        return self.until is not None and not self.until.covers(event)
