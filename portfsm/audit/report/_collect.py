"""The one pass: from events to the lives of all ports of a window, and what else happened there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from portfsm._pool import STATES
from portfsm.audit._lives import Lives
from portfsm.audit._steps import Replay
from portfsm.audit.report._columns import Mark, PlaceFound, Spans, Strings
from portfsm.errors import JournalCorrupt
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.audit._lives import Span
    from portfsm.audit._moments import Moment
    from portfsm.events import Event
    from portfsm.specs import PoolSpec

__all__ = ["Found", "Happening", "collect"]

_CHUNK: Final = 4_096
_CODES: Final = {state: code for code, state in reversed(list(enumerate(STATES)))}


@attrs.frozen
class Happening:
    """An event that concerns no port."""

    ts: int
    seq: int
    kind: str
    """`opened`, `pool_defined` ..., and `crashed` for an opening after an end that was none."""
    pool: str
    text: str


@attrs.define
class Found:
    """What a window of a log tells. Times in UTC ns."""

    spans: Spans = attrs.field(factory=Spans)
    marks: dict[int, list[Mark]] = attrs.field(factory=dict)
    """By row."""
    texts: dict[str, Strings] = attrs.field(factory=lambda: {"owners": Strings(), "services": Strings(), "notes": Strings()})
    places: dict[tuple[str, str], PlaceFound] = attrs.field(factory=dict)
    rows: list[tuple[PlaceFound, int]] = attrs.field(factory=list)
    """Row to place and port."""
    specs: dict[str, PoolSpec] = attrs.field(factory=dict)
    """The pools as they were at the end."""
    known_pools: tuple[str, ...] = ()
    known_nodes: tuple[str, ...] = ()
    """All that the log knows up to the end of the window, asked for or not."""
    happenings: list[Happening] = attrs.field(factory=list)
    begins_ns: int = 0
    ends_ns: int = 0
    first_seq: int = 0
    last_seq: int = 0
    """0 when no event lies in the window."""
    leases: int = 0
    """Begun in the window."""
    damage: JournalCorrupt | None = None
    """Why it ends where it does."""

    def number(self, kind: str, text: str) -> int:
        """The number of one of the `texts`."""
        return self.texts[kind].number(text)

    @property
    def events(self) -> int:
        """How many events of the log lie in the window."""
        return self.last_seq - self.first_seq + 1 if self.last_seq else 0


def collect(
    events: Iterable[Event],
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    pools: Collection[str] = (),
    nodes: Collection[str] = (),
    say: Callable[[Event], str] = lambda event: event.reason or event.cause,
    onto: Ledger | None = None,
    closed: bool = True,
) -> Found:
    """What `events` tell of the window from `since` to `until`, of some pools and nodes only if these are given.

    `say` is what an event has to say to people beyond who and when. `onto` is a state from before the window that the events follow on,
    where they do not begin with the log; `closed` says whether the log was closed then. Damage is not raised: what stands before it is
    told, and `Found.damage` says why there is no more.
    """
    collector = _Collector(Replay(onto), frozenset(pools), frozenset(nodes), say, closed=closed)
    try:
        collector.run(events, since, until)
    except JournalCorrupt as error:
        collector.found.damage = error
    return collector.end(until)


class _Collector:
    def __init__(self, replay: Replay, pools: frozenset[str], nodes: frozenset[str], say: Callable[[Event], str], *, closed: bool) -> None:
        self.found = Found()
        self._replay = replay
        self._lives: Lives | None = None
        """None before the window."""
        self._pools, self._nodes, self._say = pools, nodes, say
        self._owners, self._services = self.found.texts["owners"], self.found.texts["services"]
        self._said: dict[tuple[str, str, str, int], int] = {}
        self._closed = closed
        self._beyond = False
        """Whether there are events after the window."""

    @property
    def _ledger(self) -> Ledger:
        return self._replay.ledger

    def run(self, events: Iterable[Event], since: Moment | None, until: Moment | None) -> None:
        """Take in all of the window. Raises `JournalCorrupt` when everything before the damage is in."""
        for chunk in _chunks(self._up_to(events, until)):
            begins = 0
            if self._lives is None and since is not None:
                begins = next((n for n, event in enumerate(chunk) if since.reached_by(event)), len(chunk))
                self._pass(chunk[:begins])
            if begins < len(chunk):
                self._look(chunk[begins:], since)

    def _up_to(self, events: Iterable[Event], until: Moment | None) -> Iterator[Event]:
        for event in events:
            if until is not None and not until.covers(event):
                self._beyond = True
                return
            yield event

    def _pass(self, events: list[Event]) -> None:
        """Take in events before the window."""
        self._replay.take(events)
        for event in events:
            self._was_crashed(event)

    def _was_crashed(self, event: Event) -> bool:
        """Whether this is an opening, and the end before it was none."""
        if event.kind is EventKind.OPENED:
            closed, self._closed = self._closed, False
            return not closed
        self._closed = self._closed or event.kind is EventKind.CLOSED
        return False

    def _look(self, events: list[Event], since: Moment | None) -> None:
        if self._lives is None:
            self._begin(since.ts if since and since.ts else events[0].ts)
            self.found.first_seq = events[0].seq
        try:
            self._replay.take(events)
        finally:  # those before one that cannot have happened are taken in
            for event in events:
                if event.seq > self._ledger.seq:
                    break
                self._take(event)

    def _begin(self, ts: int) -> None:
        """The window begins: the ports are as the ledger has them."""
        self._lives = Lives(self._ledger)
        self.found.begins_ns = self.found.ends_ns = ts
        for pool in self._ledger.select():
            self._appears(pool, ts)

    def _take(self, event: Event) -> None:
        found = self.found
        found.last_seq, found.ends_ns = event.seq, event.ts
        if not event.port:
            self._happened(event)
            return
        span = self._lives.take(event) if self._lives else None
        key = event.node, event.pool
        place = found.places.get(key) or self._appears(self._ledger.pools[key], event.ts)
        if place is not None:
            found.leases += event.token == event.seq  # it begins one
            if span is not None:
                self._keep(place, span, event.ts)

    def _wanted(self, node: str, pool: str) -> bool:
        return (not self._pools or pool in self._pools) and (not self._nodes or node in self._nodes)

    def _appears(self, pool: Pool, ts: int) -> PlaceFound | None:
        """A pool is there on a node."""
        if not self._wanted(pool.node, pool.name):
            return None
        place = PlaceFound(pool.node, pool.name, ts, ranges=[(ts, pool.spec.ports)])
        if pool.lost is not None:
            place.lost.append((pool.lost.since, None))
        self.found.places[pool.node, pool.name] = place
        return place

    def _keep(self, place: PlaceFound, span: Span, end: int) -> None:
        row = place.rows.get(span.port)
        if row is None:
            row = place.rows[span.port] = len(self.found.rows)
            self.found.rows.append((place, span.port))
        began = span.began
        self.found.spans.add(
            row, span.from_ns, end, _CODES[span.state], began.seq if began is not None else 0,
            self._owners.number(span.owner), self._services.number(span.service), self._why(began) if began is not None else 0,
        )  # fmt: skip
        for event in span.events:
            text = f"{event.kind}; {self._say(event)}".removesuffix("; ")
            self.found.marks.setdefault(row, []).append(Mark(span.from_ns, event.ts, self.found.number("notes", text)))

    def _why(self, event: Event) -> int:
        """What it has to say, as a number. Most events say what others said before them, and need not find the words again."""
        key = event.kind, event.cause, event.reason, event.until - event.ts if event.until else 0
        number = self._said.get(key)
        if number is None:
            number = self._said[key] = self.found.number("notes", self._say(event))
        return number

    def _happened(self, event: Event) -> None:
        """Take in an event that concerns no port: pools may have changed."""
        kind = "crashed" if self._was_crashed(event) else str(event.kind)
        self.found.happenings.append(Happening(event.ts, event.seq, kind, event.pool, self._say(event)))
        for key, place in self.found.places.items():
            place.follow(self._ledger.pools[key], event.ts)

    def end(self, until: Moment | None) -> Found:
        """Close the window: what lasts goes up to its end."""
        found = self.found
        if self._lives is None:
            self._begin(self._ledger.ts)
        if self._beyond and until is not None and until.ts is not None:
            found.ends_ns = max(found.ends_ns, until.ts)
        for span in self._lives.lasting() if self._lives else ():
            place = found.places.get((span.node, span.pool))
            if place is not None:
                self._keep(place, span, found.ends_ns)
        found.known_pools = tuple(sorted(self._ledger.specs))
        found.known_nodes = tuple(sorted({node for node, _ in self._ledger.pools}))
        found.specs = {name: spec for name, spec in sorted(self._ledger.specs.items()) if not self._pools or name in self._pools}
        return found


def _chunks(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Events in lots that are folded at once; one that concerns no port alone, as pools may change with it. Also those before damage."""
    chunk: list[Event] = []
    try:
        for event in events:
            if chunk and (not event.port or len(chunk) == _CHUNK or not chunk[-1].port):
                yield chunk
                chunk = []
            chunk.append(event)
    except JournalCorrupt:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk
