"""Callers who wait for a port, or for a group of ports, first come first served.

Rule: whoever waits is granted a port in the same step that frees one, so there is nothing to race for when it
wakes. Nobody overtakes: once a waiter that would take any port finds none, those behind it are not asked, except
those that wait for one particular number and those whose owner has got its port meanwhile. A group stands in the
queue of each pool it needs, is served when it is first in all of them, and until then lets nobody pass who would take a port. One that
waits for its service's quota alone keeps nobody back.
"""

from __future__ import annotations

from collections import Counter
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm.commands import Allocate, AllocateGroup
from portfsm.errors import PoolExhausted, PortfsmError, PortUnavailable, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from portfsm.values import Lease

    Wish = Allocate | AllocateGroup
    Attempt = Callable[[Wish], tuple[Lease, ...]]
    HasAll = Callable[[Wish], bool]
    Place = tuple[str, str]

__all__ = ["Grant", "Waiter", "Waiters"]

_SLACK = 1024
_NO_TURN = 1 << 63


@attrs.define(eq=False)
class Waiter:
    """One call that waits: its request, its deadline (boot clock ns; None for none), and what came of it."""

    command: Wish
    deadline: int | None
    turn: int = 0
    woken: anyio.Event = attrs.field(factory=anyio.Event)
    leases: tuple[Lease, ...] = ()
    error: PortfsmError | None = None
    queued: bool = False
    kept_by_quota: bool = False
    """When it was last offered what there is, its service's quota alone kept it from it."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Each (node, pool) it waits for."""
        return self.command.places

    @property
    def is_group(self) -> bool:
        """Whether it waits for several ports at once."""
        return isinstance(self.command, AllocateGroup)

    @property
    def wants_one_number(self) -> bool:
        """Whether no other port than one will do, so that it stands in nobody's way."""
        return isinstance(self.command, Allocate) and self.command.port is not None

    def owners(self, place: Place) -> list[str]:
        """For whom it waits there."""
        if isinstance(self.command, Allocate):
            return [self.command.owner]
        return [request.owner for request in self.command.requests if request.place == place]

    def grant(self, leases: tuple[Lease, ...]) -> None:
        """The ports are this caller's, from now on."""
        self.leases = leases
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

    place: Place
    everyone: dict[Waiter, None] = attrs.field(factory=dict)
    special: dict[Waiter, None] = attrs.field(factory=dict)
    """Those among them that may be served out of turn: they want one number, or their owner waits twice."""
    groups: dict[Waiter, None] = attrs.field(factory=dict)
    owners: Counter[str] = attrs.field(factory=Counter)

    def add(self, waiter: Waiter) -> None:
        self.everyone[waiter] = None
        owners = waiter.owners(self.place)
        self.owners.update(owners)
        if waiter.wants_one_number or any(self.owners[owner] > 1 for owner in owners):
            self.special[waiter] = None
        if waiter.is_group:
            self.groups[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        del self.everyone[waiter]
        self.special.pop(waiter, None)
        self.groups.pop(waiter, None)
        owners = waiter.owners(self.place)
        self.owners.subtract(owners)
        for owner in owners:
            if not self.owners[owner]:
                del self.owners[owner]

    def first_group(self) -> int:
        """The turn of the first group, beyond all turns when there is none."""
        return next((waiter.turn for waiter in self.groups), _NO_TURN)


class Waiters:
    """The queues, one for each pool on each node."""

    def __init__(self) -> None:
        self._queues: dict[Place, _Queue] = {}
        self._deadlines: list[tuple[int, int, Waiter]] = []
        self._tidy_at = _SLACK
        self._turn = 0
        self.on_first: Callable[[tuple[str, str]], object] = len
        """Told of each (node, pool) that nobody waited for until now."""

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Waiter]:
        """Each once, wherever it waits."""
        for place, queue in self._queues.items():
            yield from (waiter for waiter in queue.everyone if waiter.places[0] == place)

    @property
    def places(self) -> list[Place]:
        """The (node, pool) that somebody waits for."""
        return list(self._queues)

    def has(self, place: Place) -> bool:
        """Whether anybody waits there."""
        return place in self._queues

    def add(self, waiter: Waiter) -> None:
        """Queue up behind those who came first."""
        self._turn += 1
        waiter.turn, waiter.queued = self._turn, True
        for place in waiter.places:
            if place not in self._queues:
                self.on_first(place)
            self._queues.setdefault(place, _Queue(place)).add(waiter)
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
        for place in waiter.places:
            queue = self._queues[place]
            queue.remove(waiter)
            if not queue.everyone:
                del self._queues[place]

    def serve(self, place: Place, attempt: Attempt, has_all: HasAll) -> dict[Place, None]:
        """Offer what there is, in order. `attempt` grants or raises; `has_all` tells whether a call would take nothing.

        Returns the other places that somebody left whom this served: those behind are next there.
        """
        left: dict[Place, None] = {}
        queue = self._queues.get(place)
        while queue is not None and self._serve(queue, attempt, has_all, left):
            pass
        left.pop(place, None)
        return left

    def _serve(self, queue: _Queue, attempt: Attempt, has_all: HasAll, left: dict[Place, None]) -> bool:
        """The same once through the queue; whether to begin again, since what one took may be all that was kept from another before it."""
        passed_over = False
        for waiter in list(queue.everyone):
            if not waiter.queued:
                continue
            if (waiter.is_group and self._is_behind(waiter, attempt)) or not self._offer(waiter, attempt):
                self._serve_out_of_turn(queue, waiter.turn, attempt, has_all, left)
                return False
            stays = waiter in queue.everyone
            if not stays:
                left.update(dict.fromkeys(waiter.places))
            if passed_over and not stays:
                return True
            passed_over |= stays and not waiter.wants_one_number
        return False

    def _is_behind(self, group: Waiter, attempt: Attempt) -> bool:
        """Whether somebody who would take any port comes before this group in one of its queues, and is kept from it by no quota."""
        for place in group.places:
            for waiter in list(self._queues[place].everyone):
                if waiter is group:
                    break
                if not waiter.queued or waiter.wants_one_number:
                    continue
                stays = not waiter.kept_by_quota or (waiter.is_group and self._is_behind(waiter, attempt))
                if stays or not self._offer(waiter, attempt):
                    return True
        return False

    def _serve_out_of_turn(self, queue: _Queue, turn: int, attempt: Attempt, has_all: HasAll, left: dict[Place, None]) -> None:
        for waiter in list(queue.special):
            if not waiter.queued or waiter.turn < turn:
                continue
            if has_all(waiter.command) or (waiter.wants_one_number and waiter.turn < queue.first_group()):
                self._offer(waiter, attempt)
                if waiter.leases:  # which is the answer to its owner's earlier calls, too
                    left.update(dict.fromkeys(waiter.places))
                    for owner in waiter.owners(queue.place):
                        self.serve_owner(queue.place, owner, attempt, has_all)

    def serve_owner(self, place: Place, owner: str, attempt: Attempt, has_all: HasAll) -> None:
        """An owner got its port another way: its calls that wait here can have it too."""
        queue = self._queues.get(place)
        if queue is not None and owner in queue.owners:
            for waiter in list(queue.everyone):
                if owner in waiter.owners(place) and (not waiter.is_group or has_all(waiter.command)):
                    self._offer(waiter, attempt)

    def _offer(self, waiter: Waiter, attempt: Attempt) -> bool:
        """Whether those behind may be asked: not if this one would take any port and there was none."""
        waiter.kept_by_quota = False
        try:
            leases = attempt(waiter.command)
        except PoolExhausted:
            return False
        except PortUnavailable:
            return not waiter.is_group
        except QuotaExceeded:
            waiter.kept_by_quota = True
            return True
        except PortfsmError as error:
            self.remove(waiter)
            waiter.fail(error)
        else:
            self.remove(waiter)
            waiter.grant(leases)
        return True

    def next_deadline(self) -> int | None:
        """When the next call's time is up, boot clock ns."""
        heap = self._deadlines
        while heap and not heap[0][2].queued:
            heappop(heap)
        return heap[0][0] if heap else None

    def expire(self, boot_ns: int, refuse: Callable[[Wish], PortfsmError]) -> dict[Place, None]:
        """Tell those whose time is up, as far as the first group among them, and return the places they leave, in order.

        What a group kept from those behind it is theirs, although their time may be up as well: serve them before the next call.
        """
        left: dict[Place, None] = {}
        while (deadline := self.next_deadline()) is not None and deadline <= boot_ns:
            waiter = self._deadlines[0][2]
            self.remove(waiter)
            waiter.fail(refuse(waiter.command))
            left.update(dict.fromkeys(waiter.places))
            if waiter.is_group:
                break
        return left

    def refuse(self, places: Iterable[Place], why: Callable[[Wish], PortfsmError | None]) -> dict[Place, None]:
        """Tell the groups that wait there and can never be served, as far as `why` knows: they would keep everybody behind them waiting.

        Returns all places that they leave.
        """
        left: dict[Place, None] = {}
        for waiter in [waiter for place in places for waiter in self._queues[place].groups]:
            if waiter.queued and (error := why(waiter.command)) is not None:
                self.remove(waiter)
                waiter.fail(error)
                left.update(dict.fromkeys(waiter.places))
        return left

    def fail_all(self, error: PortfsmError) -> None:
        """Leave nobody waiting."""
        for waiter in list(self):
            self.remove(waiter)
            waiter.fail(error)
