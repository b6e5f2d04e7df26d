"""Callers who wait for a port, first come first served.

Rule: whoever waits is granted a port in the same step that frees one, so there is nothing to race for when it
wakes. Nobody overtakes: once a waiter that would take any port finds none, those behind it are not asked, except
those that wait for one particular number and those whose owner has got its port meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm.errors import PoolExhausted, PortfsmError, PortUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from portfsm.commands import Allocate
    from portfsm.values import Lease

__all__ = ["Waiter", "Waiters"]


@attrs.define(eq=False)
class Waiter:
    """One call that waits: its request, its deadline (boot clock ns; None for none), and what came of it."""

    command: Allocate
    deadline: int | None
    woken: anyio.Event = attrs.field(factory=anyio.Event)
    lease: Lease | None = None
    error: PortfsmError | None = None

    def grant(self, lease: Lease) -> None:
        """The port is this caller's, from now on."""
        self.lease = lease
        self.woken.set()

    def fail(self, error: PortfsmError) -> None:
        """There will be no port."""
        self.error = error
        self.woken.set()


class Waiters:
    """The queues, one for each pool on each node."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], dict[Waiter, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Waiter]:
        for queue in self._queues.values():
            yield from queue

    @property
    def places(self) -> list[tuple[str, str]]:
        """The (node, pool) that somebody waits for."""
        return list(self._queues)

    def has(self, place: tuple[str, str]) -> bool:
        """Whether anybody waits there."""
        return place in self._queues

    def add(self, waiter: Waiter) -> None:
        """Queue up behind those who came first."""
        place = waiter.command.node, waiter.command.pool
        self._queues.setdefault(place, {})[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Leave the queue, wherever in it."""
        place = waiter.command.node, waiter.command.pool
        queue = self._queues.get(place, {})
        queue.pop(waiter, None)
        if not queue:
            self._queues.pop(place, None)

    def serve(self, place: tuple[str, str], attempt: Callable[[Allocate], Lease], holds: Callable[[str], bool]) -> None:
        """Offer what there is, in order. `attempt` grants or raises; `holds` tells whether an owner has its port."""
        exhausted = False
        for waiter in list(self._queues.get(place, ())):
            if exhausted and waiter.command.port is None and not holds(waiter.command.owner):
                continue
            try:
                lease = attempt(waiter.command)
            except PoolExhausted:
                exhausted = True
            except PortUnavailable:
                pass
            except PortfsmError as error:
                self.remove(waiter)
                waiter.fail(error)
            else:
                self.remove(waiter)
                waiter.grant(lease)

    def expire(self, boot_ns: int, refuse: Callable[[Allocate], PortfsmError]) -> None:
        """Tell those whose time is up."""
        for waiter in list(self):
            if waiter.deadline is not None and waiter.deadline <= boot_ns:
                self.remove(waiter)
                waiter.fail(refuse(waiter.command))

    def fail_all(self, error: PortfsmError) -> None:
        """Leave nobody waiting."""
        for waiter in list(self):
            self.remove(waiter)
            waiter.fail(error)
