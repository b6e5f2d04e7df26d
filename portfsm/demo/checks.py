"""The proof: what the log, the controller's notes and the clients' counts have to say.

A recount, written as plainly as it can be and on purpose without the library's own ledger: lists of events in, a
`Check` out, with the figures it rests on. Only `replay_agrees` uses `portfsm.replay`, because that is what it checks.
Each of them can fail, and the tests show it failing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from portfsm import EventKind, JournalCorrupt, replay

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from portfsm import Event
    from portfsm.demo.clients import Counts

NS = 1_000_000_000
BEGINS = frozenset({EventKind.ALLOCATED, EventKind.ADOPTED})
ENDS = frozenset({EventKind.RELEASED, EventKind.BLOCKED})


@attrs.frozen
class Check:
    """One claim, whether it holds, and what was found."""

    name: str
    passed: bool
    found: str
    figures: Mapping[str, float] = attrs.field(factory=dict)


class Ack(msgspec.Struct, frozen=True):
    """One line of the controller's notes."""

    what: str
    port: int
    owner: str
    service: str
    token: int
    stopwatch_ns: int


def read_acks(path: Path) -> list[Ack]:
    """The controller's notes. Each was one write, so a last line without its end was never a note."""
    *lines, _ = path.read_bytes().split(b"\n")
    return [msgspec.json.decode(line, type=Ack) for line in lines]


def acknowledged_kept(events: Sequence[Event], acks: Iterable[Ack]) -> Check:
    """Every lease that `allocate` returned and every `release` that returned is in the log."""
    begun = {(event.seq, event.port, event.owner) for event in events if event.kind in BEGINS}
    ended = {(event.token, event.port) for event in events if event.kind in ENDS}
    leases = [ack for ack in acks if ack.what == "allocated"]
    releases = [ack for ack in acks if ack.what == "released"]
    lost = [ack for ack in leases if (ack.token, ack.port, ack.owner) not in begun]
    lost += [ack for ack in releases if (ack.token, ack.port) not in ended]
    found = f"{len(leases)} leases and {len(releases)} releases acknowledged, {len(lost)} of them not in the log"
    if lost:
        found += f", first {lost[0].what} {lost[0].port} of {lost[0].owner} (token {lost[0].token})"
    return Check(
        "no acknowledged lease lost",
        bool(leases) and not lost,
        found,
        {"leases": len(leases), "releases": len(releases), "lost": len(lost)},
    )


def one_holder(events: Iterable[Event]) -> Check:
    """Between two leases of a port there is always an end of the first."""
    holder: dict[tuple[str, str, int], Event] = {}
    leases, doubles = 0, []
    for event in events:
        place = (event.node, event.pool, event.port)
        if event.kind in BEGINS:
            leases += 1
            if place in holder:
                doubles.append(f"{event.port} given to {event.owner} at seq {event.seq} while {holder[place].owner} held it")
            holder[place] = event
        elif event.kind in ENDS:
            holder.pop(place, None)
    found = f"{leases} leases, {len(doubles)} of a port that was held" + (f": {doubles[0]}" if doubles else "")
    return Check("no port with two holders", bool(leases) and not doubles, found, {"leases": leases, "doubles": len(doubles)})


@attrs.define
class Hold:
    """What a port's last release promised: to which service it may go at once, and from when on (UTC ns) to anyone."""

    service: str
    until: int
    leased: bool = False
    """It has gone back to the same service meanwhile."""


@attrs.define
class Holds:
    """The holds of one pool, reckoned from the releases and the pool's hold, not taken from the events' own `until`."""

    hold_ns: int
    total: int = 0
    at_kill: int = 0
    at_return: int = 0
    broken: list[str] = attrs.field(factory=list)
    running: dict[int, Hold] = attrs.field(factory=dict)
    now: int = 0

    def take(self, event: Event) -> None:
        """Account for one event."""
        hold = self.running.get(event.port)
        before, self.now = self.now, event.ts
        if event.kind is EventKind.OPENED:
            self.at_kill += self._count(before)
            self.at_return += self._count(event.ts)
        elif event.kind is EventKind.RELEASED:
            self._release(event, hold)
        elif hold and event.kind is EventKind.FREED:
            self._expect_over(hold, event, "was freed")
            del self.running[event.port]
        elif hold and event.kind in BEGINS:
            if event.service != hold.service:
                self._expect_over(hold, event, f"went from {hold.service} to {event.service}")
            hold.leased = True

    def _count(self, at: int) -> int:
        return sum(at < hold.until and not hold.leased for hold in self.running.values())

    def _release(self, event: Event, before: Hold | None) -> None:
        if event.cause == "cancelled":
            # Nobody ever had that lease, so it needs no hold of its own; one from before it runs on.
            self.running[event.port] = attrs.evolve(before, leased=False) if before else Hold(event.service, event.ts)
            return
        self.total += 1
        self.running[event.port] = Hold(event.service, event.ts + self.hold_ns)
        if event.until < event.ts + self.hold_ns:
            self.broken.append(f"{event.port} was released at seq {event.seq} with a hold of {(event.until - event.ts) / NS:.3f} s")

    def _expect_over(self, hold: Hold, event: Event, what: str) -> None:
        if event.ts < hold.until:
            self.broken.append(f"{event.port} {what} at seq {event.seq}, {(hold.until - event.ts) / NS:.3f} s early")


def holds_kept(events: Iterable[Event], *, hold_s: float) -> Check:
    """No port is freed, or given to another service, before its hold is over; not across the kill either."""
    holds = Holds(int(hold_s * NS))
    for event in events:
        holds.take(event)
    found = f"{holds.total} holds of {hold_s:g} s, {holds.at_kill} of them running at the kill, {holds.at_return} still at the return"
    found += f", {len(holds.broken)} shortened"
    found += f": {holds.broken[0]}" if holds.broken else ""
    figures = {"holds": holds.total, "at_kill": holds.at_kill, "at_return": holds.at_return, "shortened": len(holds.broken)}
    return Check("no hold shortened", holds.at_kill > 0 and not holds.broken, found, figures)


def stopwatch_agrees(acks: Iterable[Ack], *, hold_s: float) -> Check:
    """The same by a clock that the log does not know: from just before `release` to just after the next `allocate`.

    This span is longer than the true one, so a span below the hold is a violation for certain.
    """
    left: dict[int, Ack] = {}
    spans: list[float] = []
    for ack in acks:
        if ack.what == "releasing":
            left[ack.port] = ack
        elif ack.what == "allocated" and ack.port in left:
            before = left.pop(ack.port)
            if before.service != ack.service:
                spans.append((ack.stopwatch_ns - before.stopwatch_ns) / NS)
    shortest = min(spans, default=0.0)
    found = f"{len(spans)} ports went to another service, the quickest after {shortest:.2f} s (hold {hold_s:g} s)"
    return Check(
        "the same by a stopwatch", bool(spans) and shortest >= hold_s, found, {"reuses": len(spans), "shortest_s": round(shortest, 3)}
    )


def block_kept(events: Iterable[Event], *, port: int) -> Check:
    """The port somebody else sits on was tried once, and not again after the restart."""
    kinds = [event.kind for event in events if event.port == port]
    tries, blocks = kinds.count(EventKind.ALLOCATED), kinds.count(EventKind.BLOCKED)
    found = f"somebody else sits on {port}: times tried {tries}, blocked {blocks}"
    return Check("no block forgotten", tries == blocks == 1 and kinds[-1] is EventKind.BLOCKED, found, {"tries": tries, "blocks": blocks})


def replay_agrees(events: Iterable[Event], *, seq: int, digest: str) -> Check:
    """Folding the log gives the state that the second controller had in memory when it closed."""
    try:
        replayed = replay(events, until=seq).digest()
    except JournalCorrupt as error:
        return Check("replay gives the same state", passed=False, found=str(error))
    found = f"at seq {seq}: {digest[:12]} in the controller's memory, {replayed[:12]} from the log"
    return Check("replay gives the same state", bool(digest) and replayed == digest, found)


def came_back(opened: Sequence[dict[str, Any]], *, start_s: float) -> Check:
    """A controller was killed, and the next one learnt from the log who lives and whose ports to take back."""
    if not opened[1:]:
        return Check("killed and back", passed=False, found="no controller came back")
    back = opened[-1]
    found = (
        f"in charge {start_s:.2f} s after its start: a log of {back['seq']} events opened in {back['opening_s'] * 1000:.0f} ms, "
        f"{back['kept']} replicas found alive, {back['lost']} leases of dead ones released"
    )
    measured = {key: back[key] for key in ("seq", "opening_s", "kept", "lost")}
    return Check("killed and back", back["kept"] > 0 and back["lost"] > 0, found, {"start_s": round(start_s, 3), **measured})


def none_wrong(counts: Counts) -> Check:
    """With the hold, no client was answered by another service than the one it asked."""
    return Check("no wrong answer with the hold", counts.right > 0 and counts.wrong == 0, answers(counts), as_figures(counts))


def some_wrong(counts: Counts) -> Check:
    """Without it, some were: else this run has not shown what the hold is for."""
    passed = counts.right > 0 and counts.wrong > 0
    return Check("wrong answers without it", passed, answers(counts) if passed else f"not shown: {answers(counts)}", as_figures(counts))


def answers(counts: Counts) -> str:
    """The counts in words."""
    found = f"{counts.right} right, {counts.wrong} wrong, {counts.failed} failed"
    found += f" (first wrong: {counts.example})" if counts.example else ""
    return found + (f" (first failed: {counts.failure})" if counts.failure else "")


def as_figures(counts: Counts) -> dict[str, float]:
    """The counts as figures."""
    return {"right": counts.right, "wrong": counts.wrong, "failed": counts.failed}


def tell_tale_port(events: Iterable[Event], *, besides: int) -> int:
    """The port with the most eventful life, among those whose hold ran across the kill if there are any."""
    lives: defaultdict[int, int] = defaultdict(int)
    held: set[int] = set()
    for event in events:
        if event.kind is EventKind.OPENED:
            lives.update({port: lives[port] + 1000 for port in held})
        elif event.port and event.port != besides:
            lives[event.port] += 1
            (held.add if event.kind is EventKind.RELEASED else held.discard)(event.port)
    return max(lives, key=lambda port: lives[port])
