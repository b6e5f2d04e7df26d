"""Pools as their authors write them, and the rules every name and number must meet.

`PoolSpec` is the policy of one pool; `normalise_ports` reads every accepted form of port ranges. All errors
here are `InvalidValue`, naming the parameter and the value.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import attrs

from portfsm.errors import InvalidValue

__all__ = ["MAX_HOLD_S", "Order", "PoolSpec", "Ports", "Quota"]

Order = Literal["lowest", "longest-idle", "random"]
OnSilence = Literal["keep", "free"]
OnPressure = Literal["refuse", "wait", "free-earliest"]
Ports = str | range | Iterable[int]

MAX_HOLD_S = 10 * 365.25 * 86_400
"""Ten years: beyond that a hold is a slip of the unit, and nanoseconds stay far from 64 bits."""

_LAST_PORT = 65_535
_POOL_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_PART = re.compile(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?")
# Cc control, Cs lone surrogate, Zl/Zp line breaks that terminals obey; bidirectional marks are Cf and listed.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_text(name: str, value: object, *, required: bool = False, limit: int = 256) -> str:
    """Return `value` if it is a usable name of at most `limit` UTF-8 bytes, else raise `InvalidValue`."""
    if not isinstance(value, str):
        raise InvalidValue(f"{name} must be a string, not {value!r}: pass str(...)", name=name, value=value)
    if value.isascii() and value.isprintable():
        size = len(value)
        if 0 < size <= limit:
            return value
    else:
        _check_characters(name, value)
        size = len(value.encode())
    if size > limit:
        raise InvalidValue(f"{name} has {size} bytes and may have {limit}: {value[:40]!r}...; use a shorter one", name=name, value=value)
    if required and not value:
        advice = "give each replica its own name" if name == "owner" else "say what for"
        raise InvalidValue(f"{name} must not be empty: {advice}", name=name, value=value)
    return value


def _check_characters(name: str, value: str) -> None:
    for char in value:
        if unicodedata.category(char) in _REFUSED_CATEGORIES or char in _BIDI:
            raise InvalidValue(f"{name} holds the control character {char!r} in {value[:40]!r}: remove it", name=name, value=value)


def check_port(value: object, *, name: str = "port") -> int:
    """Return `value` if it is a port number, 1 to 65535, else raise `InvalidValue`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LAST_PORT:
        raise InvalidValue(f"{name} must be a whole number from 1 to 65535, not {value!r}", name=name, value=value)
    return value


def check_seconds(name: str, value: object) -> float:
    """Return `value` as float if it is a usable length of time in seconds, else raise `InvalidValue`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_HOLD_S:
        raise InvalidValue(f"{name} must be a number of seconds from 0 to {MAX_HOLD_S:.0f}, not {value!r}", name=name, value=value)
    return abs(float(value))  # -0.0 equals 0.0 but would not digest like it


def check_ttl(value: object) -> float:
    """Return `value` as float if a lease can last that many seconds: more than none, else raise `InvalidValue`."""
    if not check_seconds("ttl_s", value):
        raise InvalidValue("ttl_s 0 would end a lease as it begins: give seconds, or None for no end", name="ttl_s", value=value)
    return float(value)  # type: ignore[arg-type]


def check_pool_name(value: object) -> str:
    """Return `value` if it is a pool's name (`[a-z0-9._-]{1,64}`), else raise `InvalidValue`."""
    if not isinstance(value, str) or not _POOL_NAME.fullmatch(value):
        raise InvalidValue(f"a pool's name must match [a-z0-9._-]{{1,64}}, not {value!r}", name="pool", value=value)
    return value


def normalise_ports(ports: Ports) -> tuple[range, ...]:
    """Read `"a-b,c"` (inclusive), a range or numbers into sorted, merged ranges; an overlap is an error."""
    if isinstance(ports, str):
        pieces = [_parse_part(part, ports) for part in ports.split(",")]
    elif isinstance(ports, range):
        pieces = _as_ranges(ports)
    elif isinstance(ports, Iterable) and not isinstance(ports, bytes | bytearray):
        pieces = [piece for item in ports for piece in _as_ranges(item)]
    else:
        raise InvalidValue(f'ports must be "a-b,c", a range or numbers, not {ports!r}', name="ports", value=ports)
    if not pieces:
        raise InvalidValue(f"ports names no port: {ports!r}; give at least one", name="ports", value=ports)
    return _merge(sorted(pieces, key=lambda piece: piece.start))


def _as_ranges(item: object) -> list[range]:
    if isinstance(item, range):
        if not item:
            return []
        check_port(item[0], name="ports")
        check_port(item[-1], name="ports")
        return [item] if item.step == 1 else [range(n, n + 1) for n in item]
    number = check_port(item, name="ports")
    return [range(number, number + 1)]


def _parse_part(part: str, whole: str) -> range:
    match = _PART.fullmatch(part)
    if not match:
        raise InvalidValue(f'ports {whole!r}: {part!r} is neither a number nor "first-last"', name="ports", value=whole)
    first = int(match[1])
    last = int(match[2] or first)
    if last < first:
        raise InvalidValue(f"ports {whole!r}: {part!r} ends before it starts; write the lower number first", name="ports", value=whole)
    return range(first, last + 1)


def _merge(pieces: list[range]) -> tuple[range, ...]:
    merged: list[range] = []
    for piece in pieces:
        check_port(piece.start, name="ports")
        check_port(piece.stop - 1, name="ports")
        if merged and piece.start < merged[-1].stop:
            raise InvalidValue(f"ports overlap at {piece.start}: name each port once", name="ports", value=piece.start)
        if merged and piece.start == merged[-1].stop:
            merged[-1] = range(merged[-1].start, piece.stop)
        else:
            merged.append(piece)
    return tuple(merged)


def ranges_text(ports: tuple[range, ...]) -> str:
    """The ranges as `"30000-30999,41500"`."""
    return ",".join(f"{r.start}-{r.stop - 1}" if len(r) > 1 else str(r.start) for r in ports)


def _check_word(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise InvalidValue(f"{name} must be one of {', '.join(words)}, not {value!r}", name=name, value=value)


def _hold_s(value: float) -> float:
    return check_seconds("hold_s", value)


def _floor_s(value: float) -> float:
    return check_seconds("floor_s", value)


def _check_share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidValue(f"held_max must be a share of the pool from 0 to 1, not {value!r}", name="held_max", value=value)
    return abs(float(value))


def _check_static(value: object, size: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < size:
        raise InvalidValue(
            f"static must be a number of ports from 0 to {size - 1}, not {value!r}: "
            f"leave at least one of the pool's {size} to those who take any",
            name="static", value=value,
        )  # fmt: skip


@attrs.frozen
class Quota:
    """How many ports of a pool one service may hold on each node, counted as leases.

    `hard`: never more. `soft`: so many are kept for it. Below its soft quota a service takes any free port; from there on, like a service
    without one, only those that no other service needs to reach its own. `service="*"` is each named service that has no quota of its own,
    and has a hard one alone. Raises `InvalidValue`.
    """

    service: str
    hard: int | None = attrs.field(kw_only=True, default=None)
    soft: int | None = attrs.field(kw_only=True, default=None)

    def __attrs_post_init__(self) -> None:
        check_text("service", self.service, required=True)
        for name in ("hard", "soft"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= _LAST_PORT):
                raise InvalidValue(f"{name} must be a number of ports from 1 to 65535, or None, not {value!r}", name=name, value=value)
        if self.hard is self.soft is None:
            raise InvalidValue(f"the quota of {self.service!r} limits nothing: give hard=, soft= or both", name="hard", value=None)
        if self.soft is not None and self.hard is not None and self.soft > self.hard:
            raise InvalidValue(f"soft {self.soft} is more than hard {self.hard}: lower soft", name="soft", value=self.soft)
        if self.service == "*" and self.soft is not None:
            raise InvalidValue('soft of "*" would keep ports for services nobody knows: name the service', name="soft", value=self.soft)


def _read_quotas(value: object) -> tuple[Quota, ...]:
    given = list(value) if isinstance(value, Iterable) else [value]
    found = sorted((each for each in given if isinstance(each, Quota)), key=lambda each: each.service)
    if not isinstance(value, Iterable) or len(found) < len(given):
        raise InvalidValue(f"quotas must be a list of Quota(...), not {value!r}", name="quotas", value=value)
    for before, after in pairwise(found):
        if before.service == after.service:
            raise InvalidValue(f"service {after.service!r} has two quotas: give it one", name="quotas", value=after.service)
    return tuple(found)


def _check_quotas(quotas: tuple[Quota, ...], size: int) -> None:
    kept = sum(quota.soft or 0 for quota in quotas)
    if kept > size:
        raise InvalidValue(
            f"the soft quotas keep {kept} ports of the pool's {size}: lower them, or widen the ports", name="quotas", value=kept
        )


@attrs.frozen
class PoolSpec:
    """A named set of ports with one policy; the same pool exists on each node, from its first use there.

    `hold_s`: how long a released port stays QUARANTINED at most, in seconds. `floor_s`: how long at least,
    whatever the evidence says. `order`: which free port is given first; `"lowest"` keeps the numbers few over
    all nodes, `"longest-idle"` spreads reuse as far apart as it can, `"random"` makes numbers hard to guess.
    `on_silence`: what becomes of a port at the end of its hold while a proxy that has joined has not let go: `"keep"`
    it QUARANTINED until every proxy has, or `"free"` it. Without proxies the hold alone decides.

    `on_pressure`: what becomes of a call that finds nothing FREE while more than the share `held_max` of the pool is QUARANTINED.
    `"refuse"`: `PoolExhausted`, at once. `"wait"`: it waits for the next port, for `hold_s` at most, even with `wait_s=0`.
    `"free-earliest"`: the port whose hold ends first and whose floor is over is freed early, recorded with cause `pressure` and the
    figures; it needs a `floor_s`, and does nothing while proxies have joined: what they hold is theirs to let go.

    `static`: so many of the lowest ports are left to those who ask for a number (`port=`), until nothing else is free. Owners and services
    that take up their own port again, and adoptions, know no such band.
    `quotas`: how many ports each service may hold and how many are kept for it, see `Quota`; `allocate` raises `QuotaExceeded`, or waits.
    Raises `InvalidValue`.
    """

    name: str = attrs.field(converter=check_pool_name)
    ports: tuple[range, ...] = attrs.field(kw_only=True, converter=normalise_ports)
    hold_s: float = attrs.field(kw_only=True, default=10.0, converter=_hold_s)
    floor_s: float = attrs.field(kw_only=True, default=0.0, converter=_floor_s)
    order: Order = attrs.field(kw_only=True, default="lowest")
    on_silence: OnSilence = attrs.field(kw_only=True, default="keep")
    held_max: float = attrs.field(kw_only=True, default=0.5, converter=_check_share)
    on_pressure: OnPressure = attrs.field(kw_only=True, default="refuse")
    static: int = attrs.field(kw_only=True, default=0)
    quotas: tuple[Quota, ...] = attrs.field(kw_only=True, default=(), converter=_read_quotas)

    def __attrs_post_init__(self) -> None:
        _check_word("order", self.order, get_args(Order))
        _check_word("on_silence", self.on_silence, get_args(OnSilence))
        _check_word("on_pressure", self.on_pressure, get_args(OnPressure))
        _check_static(self.static, self.size)
        _check_quotas(self.quotas, self.size)
        if self.on_pressure == "free-earliest" and not self.floor_s:
            raise InvalidValue(
                'on_pressure="free-earliest" cuts holds down to floor_s, which is 0: say how long a port is held whatever happens',
                name="floor_s", value=self.floor_s,
            )  # fmt: skip
        if self.floor_s > self.hold_s:
            raise InvalidValue(
                f"floor_s {self.floor_s:g} is longer than hold_s {self.hold_s:g}: lengthen hold_s", name="floor_s", value=self.floor_s
            )

    @property
    def size(self) -> int:
        """How many ports the ranges name."""
        return sum(map(len, self.ports))

    @property
    def hold_ms(self) -> int:
        """`hold_s` in milliseconds, rounded up."""
        return math.ceil(self.hold_s * 1000)

    @property
    def ranges(self) -> str:
        """The ports as text, `"30000-30999,41500"`."""
        return ranges_text(self.ports)

    @classmethod
    def from_env(cls, prefix: str, *, name: str | None = None) -> PoolSpec:
        """Read `PREFIX_PORTS` (required), `PREFIX_NAME`, and each option of a pool, `PREFIX_HOLD_S` say, that is set.

        Those are `hold_s`, `floor_s`, `order`, `on_silence`, `held_max`, `on_pressure` and `static`. The name defaults to the prefix in
        lower case. Raises `InvalidValue` naming the variable.
        """
        found = {key: os.environ.get(f"{prefix}_{key.upper()}", "") for key in ("name", "ports", *_ENV_NUMBERS, *_ENV_WORDS)}
        if not found["ports"]:
            raise InvalidValue(f"{prefix}_PORTS is not set: set it to ranges such as 30000-30999", name=f"{prefix}_PORTS", value=None)
        options: dict[str, object] = {key: read(f"{prefix}_{key.upper()}", found[key]) for key, read in _ENV_NUMBERS.items() if found[key]}
        options |= {key: found[key] for key in _ENV_WORDS if found[key]}
        try:
            return cls(name or found["name"] or prefix.lower(), ports=found["ports"], **options)  # type: ignore[arg-type]
        except InvalidValue as error:
            variable = f"{prefix}_{'NAME' if error.name == 'pool' else error.name.upper()}"
            raise InvalidValue(f"{variable}: {error}", name=variable, value=error.value) from error


def _env_seconds(variable: str, text: str) -> float:
    try:
        return check_seconds(variable, float(text))
    except ValueError:
        raise InvalidValue(
            f"{variable}={text!r} is not a number of seconds from 0 to {MAX_HOLD_S:.0f}", name=variable, value=text
        ) from None


def _env_share(variable: str, text: str) -> float:
    try:
        return _check_share(float(text))
    except ValueError:
        raise InvalidValue(f"{variable}={text!r} is not a share of the pool from 0 to 1", name=variable, value=text) from None


def _env_count(variable: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidValue(f"{variable}={text!r} is not a number of ports", name=variable, value=text)
    return int(text)


_ENV_NUMBERS = {"hold_s": _env_seconds, "floor_s": _env_seconds, "held_max": _env_share, "static": _env_count}
_ENV_WORDS = ("order", "on_silence", "on_pressure")


def check_specs(value: object) -> tuple[PoolSpec, ...]:
    """Return `value`, an iterable of `PoolSpec`, as a tuple, else raise `InvalidValue`."""
    specs = list(value) if isinstance(value, Iterable) else [value]
    found = tuple(spec for spec in specs if isinstance(spec, PoolSpec))
    if len(found) < len(specs) or not isinstance(value, Iterable):
        raise InvalidValue(f"pools must be a list of PoolSpec(...), not {value!r}", name="pools", value=value)
    return found


def check_overlaps(specs: Sequence[PoolSpec]) -> None:
    """Raise `InvalidValue` if two pools have a name or a port in common: a number would be given twice on one node."""
    taken: list[tuple[range, str]] = []
    names: set[str] = set()
    for spec in specs:
        if spec.name in names:
            raise InvalidValue(f"pool {spec.name!r} is defined twice: give each pool one spec", name="pools", value=spec.name)
        names.add(spec.name)
        taken += [(piece, spec.name) for piece in spec.ports]
    taken.sort(key=lambda item: item[0].start)
    for (before, first), (piece, second) in pairwise(taken):
        if piece.start < before.stop:
            raise InvalidValue(
                f"pools {first!r} and {second!r} both have port {piece.start}: a port may be in one pool only; change the ports of one",
                name="pools", value=piece.start,
            )  # fmt: skip
