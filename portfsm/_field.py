"""What a group may take of one pool on one node, while it is being put together.

Rule: a field is made for one decision and changes nothing but itself. It sees the ranges from first to last, a byte a number;
places count from the first one, and what one request of the group has taken no other gets.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING

from portfsm._blocks import both, either
from portfsm._choice import DRAWS, drawn, is_reuse, opens
from portfsm._index import index_of
from portfsm._lost import is_over
from portfsm._orders import ordered
from portfsm._pool import FREE, QUARANTINED
from portfsm._pressure import may_end_early

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm._pool import Pool
    from portfsm.groups import Request

__all__ = ["Field"]

_OFFSET = 0xFFFF
_LOOKS = 64
"""How many of the longest idle ports may be of no use before any other is taken."""
_MANY = 256
"""Of more ports of one service than these not each is looked at."""


def _only(code: int) -> bytes:
    """A translation of state codes: 1 for this one."""
    return bytes(each == code for each in range(256))


_IS_FREE, _IS_QUARANTINED = _only(FREE), _only(QUARANTINED)


@lru_cache(maxsize=64)
def _inside(ports: tuple[range, ...]) -> bytes:
    """1 for each number of the ranges, from the first to the last."""
    line = bytearray(ports[-1].stop - ports[0].start)
    for piece in ports:
        line[piece.start - ports[0].start : piece.stop - ports[0].start] = b"\1" * len(piece)
    return bytes(line)


class Field:
    """One pool on one node at `now_ns`, with at most `limit` of its due ports (None: all) counted as the FREE ones they are.

    `early`: under pressure the holds that may be cut off are counted, too, apart from the free ones.
    """

    __slots__ = (
        "band",
        "drained",
        "due",
        "early",
        "first",
        "free",
        "fresh",
        "index",
        "inside",
        "now_ns",
        "pool",
        "relief",
        "shift",
        "taken",
    )

    def __init__(self, pool: Pool, now_ns: int, limit: int | None, *, early: bool = False) -> None:
        self.pool, self.index, self.now_ns = pool, index_of(pool), now_ns
        self.first = pool.spec.ports[0].start
        self.shift = self.first - pool.base
        self.inside = _inside(pool.spec.ports)
        self.due = self.index.due_by(pool, now_ns, len(self.index.due) if limit is None else limit)
        self.drained = limit is None or len(self.due) < limit
        """Whether every due port was looked at."""
        self.free = self._state().translate(_IS_FREE)
        self.free += self.inside[len(self.free) :]
        if pool.lost is not None and not is_over(pool, now_ns):
            self.free = bytearray(free and not pool.is_lost(self.first + place) for place, free in enumerate(self.free))
        for offset in self.due:
            if opens(pool, offset, now_ns):
                self.free[offset - self.shift] = 1
        self.taken: set[int] = set()
        self.fresh: set[int] = set()
        """Those of the taken that were free, or are made so early."""
        self.early: set[int] = set()
        """Those of the taken whose hold is cut off."""
        self.relief = self._on_line(may_end_early(pool, now_ns)) if early else b""
        """1 for each port whose hold may be cut off; nothing when none may."""
        self.band = pool.nth(pool.spec.static) - self.shift if pool.spec.static else 0
        """How many places at the front are for hands, and come last."""

    def _on_line(self, rows: bytes) -> bytes:
        """What is said of each row, said of each place inside the ranges."""
        there = rows[self.shift : self.shift + len(self.inside)]
        return both(there + bytes(len(self.inside) - len(there)), self.inside) if rows else b""

    def _state(self) -> bytearray:
        return self.pool.state[self.shift : self.shift + len(self.inside)]

    @property
    def quarantined(self) -> bytearray:
        """1 for each port in quarantine."""
        line = self._state().translate(_IS_QUARANTINED)
        return line + bytes(len(self.inside) - len(line))

    def place(self, port: int) -> int:
        """Where `port` is in the line, -1 when it is not one of the pool's."""
        place = port - self.first
        return place if 0 <= place < len(self.inside) and self.inside[place] else -1

    def may_take(self, place: int, request: Request) -> bool:
        """Whether `request` may have this number."""
        return place not in self.taken and (self.free[place] == 1 or self.reuses(place, request))

    def reuses(self, place: int, request: Request) -> bool:
        """Whether it is in quarantine for what `request` asks for."""
        offset = place + self.shift
        return offset < len(self.pool.state) and is_reuse(self.pool, offset, request, self.now_ns)

    def take(self, place: int, *, early: bool = False) -> None:
        """It is given, `early` out of its hold: nobody else of the group gets it."""
        self.taken.add(place)
        if early:
            self.early.add(place)
        if early or self.free[place]:
            self.fresh.add(place)
        self.free[place] = 0

    # ------------------------------------------------------------------ under pressure

    def may_end(self, place: int) -> bool:
        """Whether this hold may be cut off: it is past its floor, and too many are held back still."""
        return bool(self.relief) and self.relief[place] == 1 and place not in self.taken and self._is_pressed()

    def _is_pressed(self) -> bool:
        over = sum(self.pool.state[offset] == QUARANTINED and opens(self.pool, offset, self.now_ns) for offset in self.due)
        reused = len(self.taken) - len(self.fresh)
        spec, left = self.pool.spec, self.pool.statistics().quarantined - over - reused - len(self.early)
        return left > spec.held_max * spec.size

    def line_of_taken(self) -> bytes:
        """1 for each place that is given already."""
        line = bytearray(len(self.inside))
        for place in self.taken:
            line[place] = 1
        return bytes(line)

    def ending(self) -> Iterator[int]:
        """The places whose hold may be cut off, the earliest end first."""
        if self.relief:
            for offset in self.index.by_relief(self.pool, self.now_ns).ready(self.pool, self.now_ns):
                if self.may_end(offset - self.shift):
                    yield offset - self.shift

    # ------------------------------------------------------------------ what a request may have

    def lines(self, request: Request) -> Iterator[bytes | bytearray]:
        """What `request` may have, 1 a place, the best first and each made when it is asked for.

        Its owner's own quarantined ports; its service's as well; those and the free ones; all there are. Of a service
        that has a great many only some of the latest count until the last line.
        """
        owners, services = self.index.by_owner.get(request.owner, []), self.index.by_service.get(request.service, [])
        own = self._some(request.owner, owners[:_MANY], self.pool.owner, request)
        yield own
        reused = (
            either(own, same)
            if (same := self._some(request.service, services[:_MANY], self.pool.service, request)) and own
            else same or own
        )
        yield reused
        line = either(reused, self.free) if reused else self.free
        yield line
        for name, heap, column in ((request.owner, owners, self.pool.owner), (request.service, services, self.pool.service)):
            if len(heap) > _MANY:
                line = either(line, self._all(name, column, request))
        yield line

    def may_have(self, request: Request) -> bytes | bytearray:
        """All that `request` may have."""
        *_, line = self.lines(request)
        return line

    def _some(self, name: str, entries: list[int], column: list[str], request: Request) -> bytes | bytearray:
        """1 for each of these quarantined ports that `name` held last and `request` may have; nothing when there are none."""
        if not entries:
            return b""
        line = bytearray(len(self.inside))
        for offset in (-entry & _OFFSET for entry in entries):
            place = offset - self.shift
            line[place] = column[offset] == name and place not in self.taken and self.reuses(place, request)
        return line

    def _all(self, name: str, column: list[str], request: Request) -> bytes | bytearray:
        """The same for all of them, by comparing the whole column; those of which more is to be said are asked one by one."""
        named = bytearray([each == name for each in column[self.shift : self.shift + len(self.inside)]])
        named += bytes(len(self.inside) - len(named))
        line = bytearray(both(both(named, self.quarantined), self.inside))
        mixed = [offset - self.shift for offset, note in self.pool.notes.items() if note.mixed_until]
        doubtful = mixed if self.pool.lost is None else range(len(line))
        for place in (*doubtful, *self.taken):
            if 0 <= place < len(line) and line[place]:
                line[place] = place not in self.taken and self.reuses(place, request)
        return line

    def last_of_owner(self, request: Request) -> Iterator[int]:
        """The places that its owner held last and it may have back, the latest release first."""
        return self._reusable(request.owner, self.index.by_owner, self.pool.owner, request)

    def last_of_service(self, request: Request) -> Iterator[int]:
        """The same of its service."""
        return self._reusable(request.service, self.index.by_service, self.pool.service, request)

    def _reusable(self, name: str, heaps: dict[str, list[int]], column: list[str], request: Request) -> Iterator[int]:
        for entry in ordered(heaps.get(name, ())):
            since, offset = -entry >> 16, -entry & _OFFSET
            place = offset - self.shift
            if self.pool.since[offset] == since and column[offset] == name and place not in self.taken and self.reuses(place, request):
                yield place

    # ------------------------------------------------------------------ the pool's order

    def in_order(self, line: bytes | bytearray, salt: int) -> Iterator[int]:
        """The places with a 1 in `line`, in the pool's order as far as looking is cheap and then the lowest first; the band's last."""
        above, within = bytearray(line), bytearray(line[: self.band])
        above[: self.band] = bytes(self.band)
        yield from self._in_order(above, salt)
        if self.pool.spec.order == "longest-idle":
            yield from sorted(compress(range(len(within)), within), key=self._rested)
        elif within:
            yield from self._in_order(within.ljust(len(line), b"\0"), salt)

    def first_block(self, line: bytes | bytearray, salt: int) -> int:
        """The one of the places with a 1 at which a block begins: above the band, else with as little of the band as can be. -1: none."""
        above = bytearray(line)
        above[: self.band] = bytes(self.band)
        found = next(self._in_order(above, salt), -1)
        return found if found >= 0 else line.rfind(1, 0, self.band)

    def _rested(self, place: int) -> tuple[bool, int, int]:
        """Less for those that lie idle longer, never used ones before all."""
        offset, pool = place + self.shift, self.pool
        if offset >= len(pool.state):
            return False, 0, place
        return pool.state[offset] != FREE, pool.since[offset], place

    def _in_order(self, left: bytearray, salt: int) -> Iterator[int]:
        for place in self._preferred(left, salt):
            left[place] = 0
            yield place
        place = left.find(1)
        while place >= 0:
            yield place
            place = left.find(1, place + 1)

    def _preferred(self, left: bytearray, salt: int) -> Iterator[int]:
        order = self.pool.spec.order
        if order == "random":
            while (place := self._drawn(left, salt)) >= 0:
                yield place
                salt += 1
        elif order == "longest-idle":
            missed = 0
            for place in self._longest_idle():
                if place >= 0 and left[place]:
                    yield place
                elif (missed := missed + 1) > _LOOKS:
                    return

    def _drawn(self, left: bytearray, salt: int) -> int:
        place = 0
        for draw in range(DRAWS):
            place = drawn(self.pool, salt, draw, first=self.pool.spec.static) - self.shift
            if left[place]:
                return place
        found = left.find(1, place)
        return found if found >= 0 else left.find(1)

    def _longest_idle(self) -> Iterator[int]:
        """The FREE places, those never used before all; -1 for each entry of the heap that counts no more."""
        pool, rows = self.pool, len(self.pool.state)
        unused: Iterator[int] = iter(range(max(0, rows - self.shift), len(self.inside)))
        for entry in ordered(self.index.idle or ()):
            since, offset = entry >> 16, entry & _OFFSET
            if since:
                yield from unused  # ended the first time
            current = pool.state[offset] == FREE and pool.since[offset] == since
            yield offset - self.shift if current else -1
        yield from unused
