"""Callers who wait for a port, first come first served.

Rule: whoever waits is granted a port in the same step that frees one, so there is nothing to race for when it
wakes. Nobody overtakes: once a waiter that would take any port finds none, those behind it are not asked, except
those that wait for one particular number and those whose owner has got its port meanwhile. One that waits for its service's
quota alone keeps nobody back.
"""

from __future__ import annotations

from collections import Counter
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm.errors import PoolExhausted, PortfsmError, PortUnavailable, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from portfsm.commands import Allocate
    from portfsm.values import Lease

    Attempt = Callable[[Allocate], Lease]

__all__ = ["Grant", "Waiter", "Waiters"]

_SLACK = 1024


@attrs.define(eq=False)
class Waiter:
    """One call that waits: its request, its deadline (boot clock ns; None for none), and what came of it."""

    command: Allocate
    deadline: int | None
    turn: int = 0
    woken: anyio.Event = attrs.field(factory=anyio.Event)
    lease: Lease | None = None
    error: PortfsmError | None = None
    queued: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """The (node, pool) it waits for."""
        return self.command.node, self.command.pool

    def grant(self, lease: Lease) -> None:
        """The port is this caller's, from now on."""
        self.lease = lease
        self.woken.set()

    def fail(self, error: PortfsmError) -> None:
        """There will be no port."""
        self.error = error
        self.woken.set()


@attrs.define
class Grant:
    """A lease begun and not yet seen by any caller; `waiting` counts the calls that await it."""

    lease: Lease
    waiting: int = 0


@attrs.define
class _Queue:
    """Those who wait for one pool on one node, in order."""

    everyone: dict[Waiter, None] = attrs.field(factory=dict)
    special: dict[Waiter, None] = attrs.field(factory=dict)
    """Those among them that may be served out of turn: they want one number, or their owner waits twice."""
    owners: Counter[str] = attrs.field(factory=Counter)

    def add(self, waiter: Waiter) -> None:
        command = waiter.command
        self.everyone[waiter] = None
        self.owners[command.owner] += 1
        if command.port is not None or self.owners[command.owner] > 1:
            self.special[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        del self.everyone[waiter]
        self.special.pop(waiter, None)
        self.owners[waiter.command.owner] -= 1
        if not self.owners[waiter.command.owner]:
            del self.owners[waiter.command.owner]


class Waiters:
    """The queues, one for each pool on each node."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._deadlines: list[tuple[int, int, Waiter]] = []
        self._tidy_at = _SLACK
        self._turn = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __len__(self) -> int:
        return sum(len(queue.everyone) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Waiter]:
        for queue in self._queues.values():
            yield from queue.everyone

    @property
    def places(self) -> list[tuple[str, str]]:
        """The (node, pool) that somebody waits for."""
        return list(self._queues)

    def has(self, place: tuple[str, str]) -> bool:
        """Whether anybody waits there."""
        return place in self._queues

    def add(self, waiter: Waiter) -> None:
        """Queue up behind those who came first."""
        self._turn += 1
        waiter.turn, waiter.queued = self._turn, True
        self._queues.setdefault(waiter.place, _Queue()).add(waiter)
        if waiter.deadline is not None:
            if len(self._deadlines) > self._tidy_at:
                self._tidy()
            heappush(self._deadlines, (waiter.deadline, waiter.turn, waiter))

    def _tidy(self) -> None:
        """Forget the deadlines of calls that are over, which otherwise stay until they come."""
        self._deadlines = [entry for entry in self._deadlines if entry[2].queued]
        heapify(self._deadlines)
        self._tidy_at = _SLACK + 2 * len(self._deadlines)

    def remove(self, waiter: Waiter) -> None:
        """Leave the queue, wherever in it."""
        if not waiter.queued:
            return
        waiter.queued = False
        queue = self._queues[waiter.place]
        queue.remove(waiter)
        if not queue.everyone:
            del self._queues[waiter.place]

    def serve(self, place: tuple[str, str], attempt: Attempt, holds: Callable[[str], bool]) -> None:
        """Offer what there is, in order. `attempt` grants or raises; `holds` tells whether an owner has its port."""
        queue = self._queues.get(place)
        if queue is None:
            return
        passed_over = again = False
        for waiter in list(queue.everyone):
            if not self._offer(waiter, attempt):
                self._serve_out_of_turn(queue, waiter.turn, attempt, holds)
                return
            again |= passed_over and not waiter.queued
            passed_over |= waiter.queued and waiter.command.port is None
        if again:  # what one took may have been its share, and all that was kept from another before it
            self.serve(place, attempt, holds)

    def _serve_out_of_turn(self, queue: _Queue, turn: int, attempt: Attempt, holds: Callable[[str], bool]) -> None:
        for waiter in list(queue.special):
            if waiter.queued and waiter.turn > turn and (waiter.command.port is not None or holds(waiter.command.owner)):
                self._offer(waiter, attempt)
                if waiter.lease is not None:  # which is the answer to its owner's earlier calls, too
                    self.serve_owner(waiter.place, waiter.command.owner, attempt)

    def serve_owner(self, place: tuple[str, str], owner: str, attempt: Attempt) -> None:
        """An owner got its port another way: its calls that wait here can have it too."""
        queue = self._queues.get(place)
        if queue is not None and owner in queue.owners:
            for waiter in list(queue.everyone):
                if waiter.command.owner == owner:
                    self._offer(waiter, attempt)

    def _offer(self, waiter: Waiter, attempt: Attempt) -> bool:
        """Whether those behind may be asked: not if this one would take any port and there was none."""
        try:
            lease = attempt(waiter.command)
        except PoolExhausted:
            return False
        except (PortUnavailable, QuotaExceeded):
            return True
        except PortfsmError as error:
            self.remove(waiter)
            waiter.fail(error)
        else:
            self.remove(waiter)
            waiter.grant(lease)
        return True

    def next_deadline(self) -> int | None:
        """When the next call's time is up, boot clock ns."""
        heap = self._deadlines
        while heap and not heap[0][2].queued:
            heappop(heap)
        return heap[0][0] if heap else None

    def expire(self, boot_ns: int, refuse: Callable[[Allocate], PortfsmError]) -> dict[tuple[str, str], None]:
        """Tell those whose time is up, and return the places they leave, in order."""
        left: dict[tuple[str, str], None] = {}
        while (deadline := self.next_deadline()) is not None and deadline <= boot_ns:
            waiter = self._deadlines[0][2]
            self.remove(waiter)
            waiter.fail(refuse(waiter.command))
            left[waiter.place] = None
        return left

    def fail_all(self, error: PortfsmError) -> None:
        """Leave nobody waiting."""
        for waiter in list(self):
            self.remove(waiter)
            waiter.fail(error)
