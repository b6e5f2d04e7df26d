"""Two owners claim one port: what the end of the one's lease must not do to the other.

Rule: a claim that was refused, since another owner holds the port or its own holds another, is kept in memory. When the port's lease
ends, the claimant may still listen there, so the port is BLOCKED (`cause="conflict"`) in the same step, before it can become
anybody's. A controller that restarts has its live replicas adopt their ports again, and so hears every claim anew.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from portfsm import commands
from portfsm._log import warn
from portfsm.errors import CommandRejected, ManagerClosed, OwnerConflict
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from portfsm._engine import Engine
    from portfsm.events import Event

    Place = tuple[str, str, int]

__all__ = ["Claims"]


class Claims:
    """Who claims a port that another holds. True while anybody does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._claimants: dict[Place, str] = {}
        """(node, pool, port) -> owner; the last one, where several claim it."""

    def __len__(self) -> int:
        return len(self._claimants)

    def on(self, place: Place) -> str:
        """Who claims the port; empty when nobody does."""
        return self._claimants.get(place, "")

    @contextmanager
    def noting(self, command: commands.Adopt) -> Iterator[None]:
        """Keep the claim if it is refused because of who holds what; forget what its owner claimed elsewhere if it is not."""
        try:
            yield
        except OwnerConflict as error:
            if error.conflict in ("owner", "moved"):
                self._claimants[command.node, command.pool, command.port] = command.owner
                warn("port_claimed", node=command.node, pool=command.pool, port=command.port, claimant=command.owner, error=str(error))
            raise
        for place, owner in list(self._claimants.items()):
            if owner == command.owner and place[:2] == (command.node, command.pool):
                del self._claimants[place]

    def drop(self, owner: str, node: str | None) -> None:
        """The owner is gone, and so are its claims."""
        for place, claimant in list(self._claimants.items()):
            if claimant == owner and node in (None, place[0]):
                del self._claimants[place]

    def settle(self, events: Sequence[Event]) -> None:
        """Block the ports whose lease has ended and that another claims."""
        for event in events:
            place = event.node, event.pool, event.port
            if event.kind is EventKind.RELEASED and (claimant := self._claimants.pop(place, "")):
                reason = f"{event.owner!r} is gone and {claimant!r} claims the port: adopt it for that one, or unblock it"
                block = commands.Block(event.pool, event.port, node=event.node, reason=reason[:_SHORT], cause="conflict")
                with suppress(CommandRejected, ManagerClosed):  # it left the pool with that release; or the manager is being left
                    self._engine.record(block)


_SHORT = commands.REASON_LIMIT // 4
"""In characters, which may have four bytes each."""
