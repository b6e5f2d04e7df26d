"""What the page knows, as plain columns. `decode.js` is the other end of this format.

Times are whole units (`unit_us`, a microsecond or a millisecond) after `t0_ms`, so that no browser rounds them. Within a column of lives
each time, port and seq stands as its distance from the one before, which halves the page once it is deflated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from portfsm._pool import ALLOCATED, BLOCKED, QUARANTINED
from portfsm.audit.report._closest import Closest
from portfsm.audit.report._condense import condensed, step_for
from portfsm.audit.report._lives import lives
from portfsm.audit.report._occupancy import Occupancy, grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from portfsm.audit.report._closest import Change
    from portfsm.audit.report._collect import Found
    from portfsm.audit.report._columns import Mark, Piece, PlaceFound

__all__ = ["Omitted", "Report"]

_STEPS: Final = 480
_CELLS: Final = 60_000
"""Steps of all places together: what their charts may take of the page."""
_CLOSEST: Final = 4_000
_FEWEST_CLOSEST: Final = 100
_EPISODES: Final = 200
"""Exhaustion episodes listed a place, the longest."""
_HAPPENINGS: Final = 400
_MANY: Final = 100_000
"""Pieces from which on a millisecond is exact enough."""
_SAMPLE: Final = 60_000
"""Pieces by which it is judged how much drawing together saves."""
_MOVES: Final = 30
"""Into at least so many steps a window is cut."""
_MS: Final = 1_000_000
_COLUMNS: Final = (
    "place", "port", "pieces", "time", "seq", "owner", "service", "note", "run", "leases", "changes", "mark", "at", "said",
)  # fmt: skip


@attrs.frozen
class Omitted:
    """What the page does not tell, and says so."""

    shorter_than_ns: int = 0
    """Spans shorter than this that follow one another are drawn together; 0 when all stand on their own."""
    spans: int = 0
    """How many spans are told as part of a piece that stands for several."""
    places: int = 0
    """Of how many pools on nodes the single ports are left out."""


class Report:
    """All that the page can tell, measured once; drawn up as columns as often as it takes to make it fit."""

    def __init__(self, found: Found, *, clean: Callable[[str], str]) -> None:
        self.found = found
        self._clean = clean
        places = sorted(found.places.values(), key=lambda place: (place.pool, place.node))
        self._grid = grid(found.begins_ns, found.ends_ns, max(24, min(_STEPS, _CELLS // max(1, len(places)))))
        self._places = {(place.node, place.pool): number for number, place in enumerate(places)}
        self._occupancies = [Occupancy(place, self._grid) for place in places]
        self._ports = [0] * len(places)
        self._spans = [0] * len(places)
        self._every = -(-len(found.spans) // _SAMPLE) or 1
        self._samples: list[list[Piece]] = []
        self._closest = Closest(_CLOSEST, found.begins_ns)
        for place, port, pieces in lives(found):
            self._measure(place, port, pieces)
        self.ports, self.spans = sum(self._ports), sum(self._spans)

    def _measure(self, place: PlaceFound, port: int, pieces: list[Piece]) -> None:
        number = self._number(place)
        self._ports[number] += 1
        self._spans[number] += len(pieces)
        self._occupancies[number].add(port, pieces)
        self._closest.add(place, port, pieces)
        if not sum(self._ports) % self._every:
            self._samples.append(pieces)

    def _number(self, place: PlaceFound) -> int:
        return self._places[place.node, place.pool]

    def drawn(self, budget: int) -> tuple[dict[str, Any], Omitted]:
        """The page's data with about `budget` pieces, and what had to be left out for that.

        First short spans are drawn together, as long as the map still moves; then the ports of the quietest places are left out.
        """
        most_ns = (self.found.ends_ns - self.found.begins_ns) // _MOVES
        step_ns, left = step_for(self._samples, budget / max(1, self.spans), most_ns)
        left_out = self._left_out(budget / left)
        columns = _Columns(self.found, self._clean, _MS if self.spans > _MANY else 1_000)
        for place, port, pieces in lives(self.found, lambda place: self._number(place) not in left_out):
            marks = self.found.marks.get(place.rows.get(port, -1), [])
            columns.add(self._number(place), port, condensed(pieces, step_ns), marks)
        omitted = Omitted(step_ns if columns.together else 0, columns.together, len(left_out))
        return self._data(columns, left_out, omitted, self._closest.kept()[: max(_FEWEST_CLOSEST, budget // 8)]), omitted

    def _left_out(self, room: float) -> set[int]:
        """The places whose spans have no room, the quietest first."""
        left_out = set()
        for number in sorted(range(len(self._spans)), key=lambda number: (-self._spans[number], number)):
            room -= self._spans[number]
            if room < 0 < self._spans[number]:
                left_out.add(number)
        return left_out

    def _data(self, columns: _Columns, left_out: set[int], omitted: Omitted, closest: list[Change]) -> dict[str, Any]:
        found = self.found
        return {
            "format": 1,
            "t0_ms": columns.t0_ns // _MS,
            "unit_us": columns.unit_ns // 1_000,
            "window": {
                "from": columns.time(found.begins_ns), "to": columns.time(found.ends_ns), "first_seq": found.first_seq,
                "last_seq": found.last_seq, "events": found.events, "leases": found.leases,
            },
            "damage": "" if found.damage is None else self._clean(str(found.damage)),
            "omitted": {"shorter_than_ns": omitted.shorter_than_ns, "spans": omitted.spans, "places": omitted.places},
            "pools": [
                {"name": self._clean(spec.name), "ranges": spec.ranges, "hold_s": spec.hold_s, "order": spec.order}
                for spec in found.specs.values()
            ],
            "grid": {"step": self._grid.step_ns / columns.unit_ns, "count": self._grid.count},
            "places": [self._place(place, columns, left_out) for place in sorted(found.places.values(), key=self._number)],
            "happenings": self._happenings(columns),
            "lives": columns.lives(),
            "closest": {"total": self._closest.total, **columns.closest(closest, self._places)},
            "texts": columns.texts(),
        }  # fmt: skip

    def _place(self, place: PlaceFound, columns: _Columns, left_out: set[int]) -> dict[str, Any]:
        number = self._number(place)
        occupancy = self._occupancies[number]
        means = occupancy.means()
        episodes, least = occupancy.exhausted()
        lasted = sorted(episodes, key=lambda episode: (self.found.ends_ns if episode[1] is None else episode[1]) - episode[0])
        listed = sorted(lasted[-_EPISODES:])
        return {
            "node": self._clean(place.node),
            "pool": self._clean(place.pool),
            "left_out": number in left_out,
            "ports_used": self._ports[number],
            "ranges": [[columns.time(start), [[piece.start, piece.stop - 1] for piece in ranges]] for start, ranges in place.ranges],
            "means": [[round(mean, 1) for mean in means[state]] for state in (ALLOCATED, QUARANTINED, BLOCKED)],
            "least_free": least,
            "exhausted": {
                "total": len(episodes),
                "lasted": sum((self.found.ends_ns if end is None else end) - start for start, end in episodes) / columns.unit_ns,
                "listed": [[columns.time(start), None if end is None else columns.time(end)] for start, end in listed],
            },
        }

    def _happenings(self, columns: _Columns) -> list[list[Any]]:
        """The latest, oldest first."""
        happened = self.found.happenings[-_HAPPENINGS:]
        return [[columns.time(one.ts), one.seq, one.kind, self._clean(one.pool), self._clean(one.text)] for one in happened]


class _Texts:
    """The texts that are used, numbered anew in the order of their first use."""

    def __init__(self, texts: list[str], clean: Callable[[str], str]) -> None:
        self._texts, self._clean = texts, clean
        self._numbers: dict[int, int] = {0: 0}

    def number(self, number: int) -> int:
        return self._numbers.setdefault(number, len(self._numbers))

    def news(self, number: int) -> int:
        """0 for a text that was not used before and so gets the next number; else one more than its number."""
        known = self._numbers.get(number)
        return self.number(number) * 0 if known is None else known + 1

    def used(self) -> list[str]:
        return [self._clean(self._texts[number]) for number in self._numbers]


class _Columns:
    """Lives as columns, place by place and port by port."""

    def __init__(self, found: Found, clean: Callable[[str], str], unit_ns: int) -> None:
        self.unit_ns = unit_ns
        self.t0_ns = found.begins_ns // _MS * _MS
        self.together = 0
        self._owners, self._services, self._notes = (_Texts(texts.texts(), clean) for texts in found.texts.values())
        self._rows: list[tuple[int, int, list[Piece], list[Mark]]] = []

    def time(self, ns: int) -> int:
        """As the page counts it; rounded down."""
        return (ns - self.t0_ns) // self.unit_ns

    def add(self, place: int, port: int, pieces: list[Piece], marks: list[Mark]) -> None:
        """The next port."""
        self._rows.append((place, port, pieces, marks))
        self.together += sum(piece.changes for piece in pieces)

    def lives(self) -> dict[str, Any]:
        """The columns. `state` is one digit a piece, `owner` as `_Texts.news` has it.

        Owner and service stand for ALLOCATED pieces, and for the first of a life.
        """
        found: dict[str, list[int]] = {name: [] for name in _COLUMNS}
        states: list[str] = []
        number = 0
        place_before = port_before = 0
        self._rows.sort(key=lambda row: row[:2])
        for place, port, pieces, marks in self._rows:
            found["place"].append(place - place_before)
            found["port"].append(port - (port_before if place == place_before else 0))
            place_before, port_before = place, port
            found["pieces"].append(len(pieces))
            states += [str(piece.state) for piece in pieces]
            self._add_pieces(found, pieces, number)
            self._add_marks(found, pieces, marks, number)
            number += len(pieces)
        return {"state": "".join(states), **found}

    def _add_pieces(self, found: dict[str, list[int]], pieces: list[Piece], number: int) -> None:
        time_before = seq_before = 0
        for nth, piece in enumerate(pieces, number):
            time = self.time(piece.start)
            found["time"].append(time - time_before)
            found["seq"].append(piece.seq - seq_before if piece.seq else 0)
            time_before, seq_before = time, piece.seq or seq_before
            found["note"].append(self._notes.number(piece.note))
            if piece.changes:
                found["run"].append(nth)
                found["leases"].append(piece.leases)
                found["changes"].append(piece.changes)
            elif piece.state == ALLOCATED or nth == number:
                found["owner"].append(self._owners.news(piece.owner))
                found["service"].append(self._services.number(piece.service))

    def _add_marks(self, found: dict[str, list[int]], pieces: list[Piece], marks: list[Mark], number: int) -> None:
        numbers = {piece.start: nth for nth, piece in enumerate(pieces, number) if not piece.changes}
        for mark in marks:
            if (nth := numbers.get(mark.start)) is not None:
                found["mark"].append(nth)
                found["at"].append(self.time(mark.ts))
                found["said"].append(self._notes.number(mark.note))

    def closest(self, changes: Iterable[Change], places: dict[tuple[str, str], int]) -> dict[str, list[Any]]:
        """Ports that changed hands, as columns; the gap in microseconds, rounded down."""
        rows = [
            (
                places[change.node, change.pool], change.port, change.gap_ns // 1_000, self.time(change.came_ns),
                self._owners.number(change.former[0]), self._services.number(change.former[1]),
                self._owners.number(change.next[0]), self._services.number(change.next[1]), self._notes.number(change.note),
            )
            for change in changes
        ]  # fmt: skip
        names = ("place", "port", "gap_us", "time", "owner", "service", "next_owner", "next_service", "note")
        return {name: [row[at] for row in rows] for at, name in enumerate(names)}

    def texts(self) -> dict[str, list[str]]:
        """Every text that one of the columns names by number. Ask last."""
        return {"owners": self._owners.used(), "services": self._services.used(), "notes": self._notes.used()}
