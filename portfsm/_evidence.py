"""When a port's quarantine may end before its time: the rules, without I/O.

A *case* is a port whose proxies are to be asked: one that was withdrawn, released, held or unblocked at event `since`. It is
complete when every required proxy has let go:

1. A proxy has let go when it answered CLEAR about this very `since`. The number is new with every withdrawal and
   release, so an answer to an earlier question never counts for a later one.
2. A CLEAR is void once the proxy turns out to be another one (incarnation) or to run an older configuration
   (generation): it may have been told of the port again.
3. Silence (UNKNOWN, or no answer at all) counts after the time bound that the proxy's witness gives, and never
   where it gives none. HELD never counts.
4. A proxy without a witness never lets go. With no proxy required nothing is complete: an empty "all" is no evidence.

Whether a complete case frees its port (the floor, an operator's hold) is the machine's business, see `Clear`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs

from portfsm._pool import ALLOCATED, QUARANTINED
from portfsm.evidence import Verdict
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from portfsm._ledger import Ledger
    from portfsm.events import Event
    from portfsm.evidence import Evidence

__all__ = ["Case", "Cases", "Place"]


class Place(NamedTuple):
    """A port's full name."""

    node: str
    pool: str
    port: int


@attrs.define(eq=False)
class Case:
    """A port that proxies are asked about."""

    place: Place
    since: int
    began_ns: int
    """Log time of `since`, UTC ns: the witnesses' own time bounds count from here."""
    answers: dict[str, Evidence] = attrs.field(factory=dict)
    """The last answer of each proxy."""

    def has_let_go(self, proxy: str, fallback_s: float | None, now_ns: int) -> bool:
        """Rules 1 and 3."""
        answer = self.answers.get(proxy)
        if answer is not None and answer.verdict is not Verdict.UNKNOWN:
            return answer.verdict is Verdict.CLEAR
        return fallback_s is not None and now_ns >= self.began_ns + fallback_s * 1e9

    def why_clear(self, required: Iterable[str]) -> str:
        """Proxies and generations, for the event's reason."""
        return "; ".join(f"{proxy}: {self._word(proxy)}" for proxy in required)

    def _word(self, proxy: str) -> str:
        answer = self.answers.get(proxy)
        if answer is None or answer.verdict is not Verdict.CLEAR:
            return "silent beyond its bound"
        return "clear" if answer.generation is None else f"clear at generation {answer.generation}"

    def why_held(self, required: Iterable[str]) -> str:
        """Which proxies have not let go, and what they said; empty when all have."""
        said = []
        for proxy in required:
            answer = self.answers.get(proxy)
            if answer is None:
                said.append(f"{proxy} was not heard")
            elif answer.verdict is not Verdict.CLEAR:
                said.append(f"{proxy} says {answer.verdict.value}: {answer.reason}")
        return "; ".join(said)


_OPENS = frozenset({EventKind.WITHDRAWN, EventKind.RELEASED, EventKind.HELD, EventKind.UNBLOCKED})
_CONTINUES = frozenset({EventKind.RELEASED, EventKind.HELD})
_CLOSES = frozenset({EventKind.ALLOCATED, EventKind.ADOPTED, EventKind.FREED, EventKind.BLOCKED})


class Cases:
    """All open cases of a log. Fed with events and answers; holds no clock."""

    def __init__(self) -> None:
        self.open: dict[Place, Case] = {}
        self._known: dict[str, tuple[str, int | None]] = {}
        """proxy -> its incarnation and generation when it was last heard."""

    def restore(self, ledger: Ledger) -> None:
        """Take up the cases that a ledger leads to. They are asked about anew, from its last event on."""
        for pool in ledger.pools.values():
            for offset in pool.offsets(states=bytes((ALLOCATED, QUARANTINED))):
                if pool.state[offset] == QUARANTINED or pool.note(offset).withdrawn:
                    place = Place(pool.node, pool.name, pool.base + offset)
                    self.open[place] = Case(place, ledger.seq, ledger.ts)

    def take_events(self, events: Iterable[Event]) -> bool:
        """Open and close cases as the ports change. Returns whether a case was opened."""
        opened = False
        for event in events:
            if event.kind in _OPENS:
                opened |= self._open(event)
            elif event.kind in _CLOSES:
                self.open.pop(Place(event.node, event.pool, event.port), None)
        return opened

    def _open(self, event: Event) -> bool:
        place = Place(event.node, event.pool, event.port)
        if event.kind in _CONTINUES and place in self.open:
            return False  # what was answered since its withdrawal or release stands
        self.open[place] = Case(place, event.seq, event.ts)
        return True

    def take_answer(self, place: Place, answer: Evidence) -> None:
        """Note what a proxy said about a port; rules 1 and 2."""
        self._void_if_changed(answer)
        case = self.open.get(place)
        if case is not None and case.since == answer.since:
            case.answers[answer.proxy] = answer

    def _void_if_changed(self, answer: Evidence) -> None:
        if answer.verdict is Verdict.UNKNOWN:
            return  # who nothing is known of has not changed
        before = self._known.get(answer.proxy)
        self._known[answer.proxy] = answer.incarnation, answer.generation
        if before is None or (before[0] == answer.incarnation and not _is_older(answer.generation, before[1])):
            return
        self._void(answer.proxy)

    def forget(self, proxy: str) -> None:
        """A proxy has left: one that joins under its name starts anew."""
        self._known.pop(proxy, None)
        self._void(proxy)

    def _void(self, proxy: str) -> None:
        for case in self.open.values():
            case.answers.pop(proxy, None)

    def unclear(self, proxy: str) -> list[Case]:
        """Those about which `proxy` has not yet said CLEAR."""
        return [case for case in self.open.values() if (answer := case.answers.get(proxy)) is None or answer.verdict is not Verdict.CLEAR]

    def is_complete(self, case: Case, required: tuple[str, ...], bounds: Mapping[str, float | None], now_ns: int) -> bool:
        """Whether every required proxy has let go. `bounds`: each witness's own, in seconds; a proxy without one has no witness."""
        return bool(required) and all(proxy in bounds and case.has_let_go(proxy, bounds[proxy], now_ns) for proxy in required)


def _is_older(generation: int | None, before: int | None) -> bool:
    return generation is not None and before is not None and generation < before
