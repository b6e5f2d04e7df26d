"""A ledger as lines of JSON and back: what the digest is taken over and what a snapshot keeps.

One canonical form: keys in a fixed order, pools and ports ascending, only ports that were ever used. Two
ledgers are equal when their dumps are, however far their columns happen to reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from portfsm._pool import ALLOCATED, FREE, NO_NOTE, OUTSIDE, Lost, Note, Pool
from portfsm.specs import PoolSpec, Quota

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm._ledger import Ledger

__all__ = ["SCHEMA", "dump", "load", "spec_data", "spec_of"]

SCHEMA = 1
"""Grows when the form changes: a snapshot of another schema is ignored, never read on a guess."""

_ROWS_A_LINE = 512
_LATER = {"on_silence": "keep", "held_max": 0.5, "on_pressure": "refuse", "static": 0}
"""What pools have learned since: left out at its default, as a log from before it would."""
_FIRST_FIELDS = 5
"""How many fields a note had at first: they are written in any case, later ones where they say something."""


def spec_data(spec: PoolSpec, seed: str) -> dict[str, Any]:
    """What `pool_defined` carries."""
    data = {"ports": spec.ranges, "hold_s": spec.hold_s, "floor_s": spec.floor_s, "order": spec.order}
    changed = {key: value for key, default in _LATER.items() if (value := getattr(spec, key)) != default}
    quotas = {each.service: {key: value for key in ("hard", "soft") if (value := getattr(each, key))} for each in spec.quotas}
    return data | changed | ({"seed": seed} if seed else {}) | ({"quotas": quotas} if quotas else {})


def spec_of(name: str, data: dict[str, Any]) -> PoolSpec:
    """The pool that `spec_data` was made from; what a later version added to it is left to that one."""
    known = {key: data[key] for key in ("ports", "hold_s", "floor_s", "order")}
    quotas = [Quota(service, **quota) for service, quota in data.get("quotas", {}).items()]
    return PoolSpec(name, **known, **{key: data[key] for key in _LATER if key in data}, quotas=quotas)


def dump(ledger: Ledger) -> Iterator[bytes]:
    """The whole state, a line at a time (each ends with a newline)."""
    encode = msgspec.json.Encoder().encode
    specs = {name: spec_data(spec, ledger.seeds[name]) for name, spec in sorted(ledger.specs.items())}
    lost = [dict(sorted(ledger.lost.items()))] if ledger.lost else []
    yield encode([SCHEMA, ledger.seq, ledger.ts, ledger.epoch, ledger.opened, specs, dict(sorted(ledger.proxies.items())), *lost]) + b"\n"
    for (node, name), pool in sorted(ledger.pools.items()):
        rows = [_row(pool, offset) for offset in range(len(pool.state)) if pool.since[offset]]
        for first in range(0, len(rows), _ROWS_A_LINE):
            yield encode([node, name, rows[first : first + _ROWS_A_LINE]]) + b"\n"


def _row(pool: Pool, offset: int) -> list[Any]:
    # A retired port reads FREE here: whether it lies outside follows from the spec.
    code = pool.state[offset] if pool.state[offset] != OUTSIDE else FREE
    row: list[Any] = [
        pool.base + offset, code, pool.since[offset], pool.until[offset],
        pool.token[offset], pool.owner[offset], pool.service[offset],
    ]  # fmt: skip
    note = pool.note(offset)
    if note is NO_NOTE:
        return row
    used = len(note)
    while used > _FIRST_FIELDS and note[used - 1] == NO_NOTE[used - 1]:  # as before there were those fields
        used -= 1
    return [*row, *note[:used]]


def load(ledger: Ledger, lines: Iterable[bytes]) -> None:
    """Fill an empty ledger from a dump. Takes each line when it is needed. Raises `ValueError` when they are none of this schema."""
    decoded = map(msgspec.json.Decoder().decode, lines)
    first: Any = next(decoded, [])
    schema, ledger.seq, ledger.ts, ledger.epoch, ledger.opened, specs, ledger.proxies, *lost = first
    if schema != SCHEMA:
        raise ValueError(f"dump schema {schema}, known is {SCHEMA}")
    for name, data in specs.items():
        ledger.seeds[name] = data.pop("seed", "")
        ledger.specs[name] = spec_of(name, data)
    ledger.lost = {name: Lost(*times) for name, times in (lost[0] if lost else {}).items()}
    for node, name, rows in decoded:
        pool = ledger.pools.setdefault((node, name), ledger.pool(name, node))
        for row in rows:
            _write(pool, row)


def _write(pool: Pool, row: list[Any]) -> None:
    port, code, since, until, token, owner, service, *extra = row
    offset = pool.reach(port)
    inside = pool.state[offset] != OUTSIDE
    pool.state[offset] = code if inside or code >= ALLOCATED else OUTSIDE
    if not inside and code >= ALLOCATED:
        pool.outside.add(offset)
    pool.since[offset], pool.until[offset], pool.token[offset] = since, until, token
    pool.owner[offset], pool.service[offset] = owner, service
    if extra:
        pool.notes[offset] = Note(*extra)
