"""Leases by the ports that have them: what a server needs that was not there when they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm.values import Lease

if TYPE_CHECKING:
    from portfsm.values import PortView

__all__ = ["lease_of"]


def lease_of(view: PortView) -> Lease:
    """The last lease of a port."""
    return Lease(view.pool, view.node, view.port, view.owner, view.service, view.token, view.since or 0)
