"""The record of one pool on one node: a column a fact, a row a port, indexed by the port's offset.

Columns, because a live port then costs tens of bytes instead of hundreds and replay copies numbers instead of
keeping objects alive. They reach only as far as the highest port ever used, so a port never used costs
nothing. No rule of the machine is here: `_ledger` writes rows, `_decide` and the views read them.
"""

from __future__ import annotations

import math
from array import array
from itertools import chain, compress
from typing import TYPE_CHECKING, Final, NamedTuple

from portfsm.states import PortState
from portfsm.values import Lease, PoolStatistics, PortView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm._index import Index
    from portfsm.specs import PoolSpec

__all__ = ["ALLOCATED", "BLOCKED", "FREE", "NO_COLUMNS", "OUTSIDE", "QUARANTINED", "STATES", "WHY_LOST", "Lost", "Note", "Pool"]

FREE: Final = 0
ALLOCATED: Final = 1
QUARANTINED: Final = 2
BLOCKED: Final = 3
OUTSIDE: Final = 4
"""A number between the ranges, or one that retired: not FREE, not counted, never given."""

STATES = (PortState.FREE, PortState.ALLOCATED, PortState.QUARANTINED, PortState.BLOCKED, PortState.FREE)
"""What each code means to people; a retired port reads FREE, though it is given to nobody."""


class Note(NamedTuple):
    """Why a port is in its state, where the state's usual reason does not say it."""

    cause: str
    reason: str
    hold_ms: int = 0
    """Length of a hold that was asked for, not taken from the pool's policy."""
    withdrawn: bool = False
    """The proxies were told to stop routing here."""
    held_until: int = 0
    """End of the hold that was running when the port was blocked: the hold after the block ends no earlier."""
    mixed_until: int = 0
    """Until then traffic for another service may arrive than for the last one: its owner or an adopter took the port within a hold.
    In a pool that keeps its ports that goes on until proxies have let go of it."""
    nth: int = 0
    """Which of the leases that its owner asked for together an ALLOCATED port is under, where that is not the first."""
    ttl_ns: int = 0
    """How long the lease lasts after each renewal; 0 for ever. When it ends is not recorded: renewals are no events."""
    errno: int = 0
    """What the system said when the port was blocked."""
    times: int = 0
    """How often the port was blocked, each time for a while, since its last good lease. Outlasts the blocks, and FREE."""
    blocked_as: str = ""
    """The cause of those blocks."""


class Lost(NamedTuple):
    """The history of a pool was lost, UTC ns: ports of which no event from `since` on tells are held until `until` (see `_lost`)."""

    since: int
    until: int
    seq: int
    """The opening that was told so: leases that began later are known."""


WHY_LOST: Final = "the history before was lost"

STARTED_OVER = ("reboot", "lost")
_RECORDS_ITS_HOLD = frozenset({"operator", "unblocked", *STARTED_OVER})
"""Causes of holds that begin at another time than the port's state does, or after which the wall clock may have been set."""

NO_NOTE = Note("", "")

Columns = tuple[bytearray, "array[int]", "array[int]", "array[int]", list[str], list[str], dict[int, Note]]
"""state, since, until, token, owner, service, notes."""

NO_COLUMNS: Columns = (bytearray(), array("q"), array("q"), array("q"), [], [], {})


class Pool:
    """One pool on one node. Offsets count from `base`, the lowest port that has or may have a row."""

    __slots__ = (
        "base",
        "columns",
        "hold_ns",
        "index",
        "lost",
        "name",
        "node",
        "notes",
        "outside",
        "owner",
        "proxies",
        "seed",
        "service",
        "since",
        "spec",
        "state",
        "token",
        "until",
    )

    def __init__(self, node: str, spec: PoolSpec, seed: str, *, proxies: tuple[str, ...] = (), lost: Lost | None = None) -> None:
        self.node = node
        self.name = spec.name
        self.spec = spec
        self.hold_ns = spec.hold_ms * 1_000_000
        self.seed = seed
        self.proxies = proxies
        """Those whose evidence is required; the same for all pools of a log."""
        self.lost = lost
        """Set while ports without a row of their own are held; the same for the pool on every node."""
        self.base = spec.ports[0].start
        self.state = bytearray()
        self.since = array("q")
        """When the port entered its state, UTC ns; 0 when it was never used."""
        self.until = array("q")
        """End of hold or block, UTC ns; 0 for none. An ALLOCATED port keeps the end of the hold it was taken from."""
        self.token = array("q")
        self.owner: list[str] = []
        self.service: list[str] = []
        self.notes: dict[int, Note] = {}
        self.outside: set[int] = set()
        """Offsets held (not FREE) though outside the present ranges: they retire when freed."""
        self.index: Index | None = None
        self.columns: Columns = (self.state, self.since, self.until, self.token, self.owner, self.service, self.notes)
        """All of them at one reach. They are changed in place and never replaced."""

    def copy(self) -> Pool:
        """An equal record that shares no column; its index is built when needed."""
        other = Pool(self.node, self.spec, self.seed, proxies=self.proxies, lost=self.lost)
        other.base = self.base
        other.state.extend(self.state)
        other.since.extend(self.since)
        other.until.extend(self.until)
        other.token.extend(self.token)
        other.owner.extend(self.owner)
        other.service.extend(self.service)
        other.notes.update(self.notes)
        other.outside.update(self.outside)
        return other

    def is_stranger(self, offset: int, owner: str, service: str, now_ns: int) -> bool:
        """Whether traffic for those who had the port would go astray: another owner, and another service or none.

        A service does not inherit what its owner took over from a second one, or an adopter from anybody (`mixed_until`). Of a port
        whose history was lost nobody knows who had it last.
        """
        if self.lost is not None and self.is_doubtful(offset, now_ns):
            return True
        if owner == self.owner[offset]:
            return False
        mixed_until = self.note(offset).mixed_until
        return not service or service != self.service[offset] or mixed_until > now_ns or (mixed_until > 0 and self.kept)

    def is_doubtful(self, offset: int, now_ns: int) -> bool:
        """Whether another may have had the port after the lease that its row tells of, in what was lost, and may be asked for there yet."""
        lost = self.lost
        return lost is not None and self.token[offset] < lost.seq and (self.kept or now_ns < lost.until)

    @property
    def kept(self) -> bool:
        """Whether the end of a hold frees nothing: proxies are there to be asked, and their silence is no answer."""
        return bool(self.proxies) and self.spec.on_silence == "keep"

    def evidence_frees_at(self, offset: int) -> int:
        """From when on complete evidence ends the hold of a QUARANTINED port, UTC ns: its floor, or the end an operator asked for."""
        note, begun = self.note(offset), self.since[offset]
        if note.cause == "operator":
            return self.until[offset]
        if note.cause in STARTED_OVER:  # the clock or the history was lost, so the floor starts over with the hold
            begun = max(begun, self.until[offset] - note.hold_ms * 1_000_000)
        return begun + self.floor_ns

    @property
    def floor_ns(self) -> int:
        """How long a hold lasts at least, unless the note on its row says otherwise."""
        return math.ceil(self.spec.floor_s * 1e9)

    def held_ms(self, offset: int) -> int:
        """How long the hold of a QUARANTINED port was to last when it was last recorded."""
        note = self.note(offset)
        if note.cause in _RECORDS_ITS_HOLD:
            return note.hold_ms
        return -((self.since[offset] - self.until[offset]) // 1_000_000)

    def asked(self, proxies: tuple[str, ...]) -> None:
        """From now on the evidence of these is required."""
        self.proxies = proxies
        self.index = None

    def is_lost(self, port: int) -> bool:
        """Whether `port` is held because its history was lost, and no event since tells of it."""
        if self.lost is None or not self.in_range(port):
            return False
        offset = self.row(port)
        return offset < 0 or (self.state[offset] == FREE and self.since[offset] < self.lost.since)

    def numbers(self) -> Iterator[int]:
        """Every port of the ranges, ascending."""
        return chain.from_iterable(self.spec.ports)

    def in_range(self, port: int) -> bool:
        """Whether `port` lies in the present ranges."""
        return any(port in piece for piece in self.spec.ports)

    def reach(self, port: int) -> int:
        """The offset of `port`, after making sure that it has a row."""
        if port < self.base:
            self._rebase(port)
        offset = port - self.base
        missing = offset + 1 - len(self.state)
        if missing > 0:
            self._extend(missing)
        return offset

    def row(self, port: int) -> int:
        """The offset of `port` if it has a row, else -1."""
        offset = port - self.base
        return offset if 0 <= offset < len(self.state) else -1

    def code(self, port: int) -> int:
        """The state code of `port`, row or no row."""
        offset = self.row(port)
        if offset >= 0:
            return self.state[offset]
        return FREE if self.in_range(port) else OUTSIDE

    def note(self, offset: int) -> Note:
        """The note on a row, empty fields when there is none."""
        return self.notes.get(offset, NO_NOTE)

    def nth(self, number: int) -> int:
        """The offset of the port that has `number` others before it in the ranges; `number` is below the size."""
        for piece in self.spec.ports:
            if number < len(piece):
                return piece[number] - self.base
            number -= len(piece)
        raise IndexError(number)

    def free_after(self, offset: int) -> int:
        """The lowest FREE offset from `offset` on, or -1. A search in C: two microseconds over 65,535 rows."""
        found = self.state.find(FREE, offset)
        return found if found >= 0 else self._unused_after(offset)

    def _unused_after(self, offset: int) -> int:
        first = self.base + max(offset, len(self.state))
        for piece in self.spec.ports:
            if first < piece.stop:
                return max(first, piece.start) - self.base
        return -1

    def _extend(self, missing: int) -> None:
        first = self.base + len(self.state)
        self.state.extend(FREE if self.in_range(port) else OUTSIDE for port in range(first, first + missing))
        for column in (self.since, self.until, self.token):
            column.frombytes(bytes(8 * missing))
        self.owner.extend([""] * missing)
        self.service.extend([""] * missing)
        if self.index is not None:
            self.index.extended(self, first - self.base)

    def _rebase(self, base: int) -> None:
        """Shift all rows so that offsets count from a lower `base`. Rare: a port below the range was adopted."""
        shift = self.base - base
        self.base = base
        self.state[:0] = bytes(OUTSIDE for _ in range(shift))
        for column in (self.since, self.until, self.token):
            column[:0] = array("q", bytes(8 * shift))
        self.owner[:0] = self.service[:0] = [""] * shift
        notes = {offset + shift: note for offset, note in self.notes.items()}
        self.notes.clear()
        self.notes.update(notes)
        self.outside = {offset + shift for offset in self.outside}
        self.index = None
        self._mark()

    def retire(self, offset: int) -> int:
        """The code of a row that becomes FREE: OUTSIDE if it was held outside the ranges."""
        if offset not in self.outside:
            return FREE
        self.outside.discard(offset)
        return OUTSIDE

    def define(self, spec: PoolSpec, seed: str) -> None:
        """Put other ranges or another policy in force. Rows stay; held ports left outside will retire."""
        self.spec = spec
        self.hold_ns = spec.hold_ms * 1_000_000
        self.seed = seed
        self.index = None
        if spec.ports[0].start < self.base:
            self._rebase(spec.ports[0].start)
        self._mark()

    def _mark(self) -> None:
        """Tell inside from outside again for every row."""
        self.outside.clear()
        for offset, code in enumerate(self.state):
            inside = self.in_range(self.base + offset)
            if code in (FREE, OUTSIDE):
                self.state[offset] = FREE if inside else OUTSIDE
            elif not inside:
                self.outside.add(offset)

    def offsets(self, *, states: bytes = bytes((ALLOCATED, QUARANTINED, BLOCKED))) -> Iterator[int]:
        """Offsets of the rows in one of the `states`, ascending."""
        wanted = bytes(code in states for code in range(OUTSIDE + 1))
        return compress(range(len(self.state)), self.state.translate(wanted + bytes(256 - len(wanted))))

    def lease(self, offset: int) -> Lease:
        """The lease that an ALLOCATED row is under. Its end, if it has a ttl, as if it was never renewed."""
        begun = self.since[offset]
        return Lease(
            self.name, self.node, self.base + offset, self.owner[offset], self.service[offset], self.token[offset], begun,
            begun + self.notes[offset].ttl_ns if self.notes and self.ttl_ns(offset) else None,
        )  # fmt: skip

    def ttl_ns(self, offset: int) -> int:
        """How long the lease of an ALLOCATED row lasts after each renewal; 0 for ever."""
        return self.note(offset).ttl_ns

    def view(self, port: int) -> PortView:
        """One port for people."""
        offset = self.row(port)
        if self.lost is not None and self.is_lost(port):
            token = self.token[offset] if offset >= 0 else 0
            return PortView(self.node, self.name, port, PortState.QUARANTINED, "", "", token, self.lost.since, self.lost.until, WHY_LOST)
        if offset < 0:
            return PortView(self.node, self.name, port, PortState.FREE, "", "", 0, None, None, "")
        code = self.state[offset]
        note = self.note(offset)
        reason = note.reason or note.cause or ("released" if code == QUARANTINED else "")
        until = self.until[offset] if code in (QUARANTINED, BLOCKED) else 0
        return PortView(
            self.node, self.name, port, STATES[code], self.owner[offset], self.service[offset],
            self.token[offset], self.since[offset] or None, until or None, reason, note.errno or None,
        )  # fmt: skip

    def statistics(self) -> PoolStatistics:
        """Counts, taken from the rows and not kept beside them."""
        held = [self.state.count(code) for code in (ALLOCATED, QUARANTINED, BLOCKED)]
        for offset in self.outside:
            held[self.state[offset] - ALLOCATED] -= 1
        size = self.spec.size
        if self.lost is not None:
            known = sum(self.since[offset] >= self.lost.since for offset in self.offsets(states=bytes((FREE,))))
            held[QUARANTINED - ALLOCATED] += self.spec.size - sum(held) - known
        allocated, quarantined, blocked = held
        return PoolStatistics(size, size - sum(held), allocated, quarantined, blocked, len(self.outside))
