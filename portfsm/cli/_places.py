"""Which port of which pool on which node somebody means who gives a number. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from portfsm.cli._text import neutral
from portfsm.errors import InvalidValue, PortOutOfRange

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm._pool import Pool

__all__ = ["Place", "find_place"]


class Place(NamedTuple):
    """A port's full name."""

    node: str
    pool: str
    port: int


def find_place(ledger: Ledger, port: int, *, pool: str | None = None, node: str | None = None) -> Place:
    """The one port with this number, here and of this pool if these are given.

    A port that was used comes before one that only lies in a pool's range. Raises `UnknownPool`, `PortOutOfRange` when
    there is none, `InvalidValue` when there are several to choose from.
    """
    names = sorted(ledger.specs) if pool is None else [ledger.spec(pool).name]
    used = [record for record in ledger.select(pool, node) if _was_used(record, port)]
    if used:
        return _only([Place(record.node, record.name, port) for record in used])
    ranged = [name for name in names if any(port in piece for piece in ledger.specs[name].ports)]
    if not ranged:
        raise _nowhere(ledger, names, port)
    return _only([place for name in ranged for place in _unused_places(ledger, name, port, node)])


def _was_used(record: Pool, port: int) -> bool:
    row = record.row(port)
    return row >= 0 and record.since[row] > 0


def _unused_places(ledger: Ledger, pool: str, port: int, node: str | None) -> list[Place]:
    """Where a port of this pool could be used: on the given node, on those that use the pool, else on this host."""
    nodes = [node] if node is not None else [record.node for record in ledger.select(pool)]
    return [Place(name, pool, port) for name in nodes or [""]]


def _only(places: list[Place]) -> Place:
    if len(places) == 1:
        return places[0]
    pools = sorted({place.pool for place in places})
    nodes = sorted({place.node for place in places})
    option, values = ("--pool", pools) if len(pools) > 1 else ("--node", nodes)
    raise InvalidValue(
        f"port {places[0].port} is in {len(values)} {option[2:]}s: choose one with {option} {' | '.join(map(_shown, values))}",
        name=option[2:], value=None,
    )  # fmt: skip


def _shown(name: str) -> str:
    return neutral(name) if name else '""'


def _nowhere(ledger: Ledger, names: list[str], port: int) -> PortOutOfRange:
    if not names:
        text = "this log defines no pool yet"
    else:
        listed = ", ".join(f"{name} ({ledger.specs[name].ranges})" for name in names)
        text = f"the {'pool is' if len(names) == 1 else 'pools are'} {listed}"
    ranges = ",".join(ledger.specs[name].ranges for name in names)
    return PortOutOfRange(f"port {port} is in no pool: {text}", node="", pool="", port=port, ranges=ranges)
