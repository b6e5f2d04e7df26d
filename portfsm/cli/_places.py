"""Which port of which pool on which node somebody means who gives a number. Pure."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from portfsm._pool import OUTSIDE
from portfsm.cli._text import neutral
from portfsm.errors import InvalidValue, PortOutOfRange

if TYPE_CHECKING:
    from portfsm._ledger import Ledger
    from portfsm._pool import Pool

__all__ = ["Place", "find_place", "strange_node"]

_LISTED = 10


class Place(NamedTuple):
    """A port's full name."""

    node: str
    pool: str
    port: int


def find_place(ledger: Ledger, port: int, *, pool: str | None = None, node: str | None = None) -> Place:
    """The one port with this number, of this pool and on this node if these are given.

    Ports in use come first, then those in a pool's range, then retired ones, of which only the history is left. Raises
    `UnknownPool`, `PortOutOfRange` when there is none, `InvalidValue` when there are several to choose from.
    """
    names = sorted(ledger.specs) if pool is None else [ledger.spec(pool).name]
    used = [record for record in ledger.select(pool, node) if _was_used(record, port)]
    present = [record for record in used if record.code(port) != OUTSIDE]
    ranged = [name for name in names if any(port in piece for piece in ledger.specs[name].ports)]
    if ranged and not present:
        return _only([place for name in ranged for place in _unused_places(ledger, name, port, node)])
    if not used:
        raise _nowhere(ledger, names, port, pool)
    return _only([Place(record.node, record.name, port) for record in present or used])


def strange_node(ledger: Ledger, node: str | None) -> str:
    """A warning for those who may have misspelt `node`: nothing in the log is on it, and the log knows others. Else empty."""
    known = sorted({record.node for record in ledger.select()})
    if node is None or node in known or not known:
        return ""
    return f"nothing was recorded on node {neutral(node)!r} before; choose another with {_choices('--node', known)}"


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
    port = places[0].port
    if len(pools := sorted({place.pool for place in places})) > 1:
        raise InvalidValue(f"port {port} is in {len(pools)} pools: choose with {_choices('--pool', pools)}", name="pool", value=None)
    nodes = sorted(place.node for place in places)
    raise InvalidValue(f"port {port} is on {len(nodes)} nodes: choose with {_choices('--node', nodes)}", name="node", value=None)


def _choices(option: str, names: list[str]) -> str:
    """Ready to be copied; not all of a thousand nodes."""
    shown = " or ".join(f"{option} {quote(neutral(name))}" for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} or one of {len(names) - _LISTED} more"


def _nowhere(ledger: Ledger, names: list[str], port: int, pool: str | None) -> PortOutOfRange:
    listed = ", ".join(f"{name} ({ledger.specs[name].ranges})" for name in names)
    text = f"port {port} is not in pool {listed}" if pool else f"port {port} is in no pool: {listed or 'none is defined yet'}"
    ranges = ",".join(ledger.specs[name].ranges for name in names)
    return PortOutOfRange(text, node="", pool=pool or "", port=port, ranges=ranges)
