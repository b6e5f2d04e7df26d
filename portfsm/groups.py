"""What a group asks for: several ports at once, all of them or none.

`Request` is one line of such a call. Each checks itself when it is made, `check_group` checks what they ask for together; all
errors here are `InvalidValue`, naming the parameter and the value.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from portfsm.errors import InvalidValue
from portfsm.specs import check_port, check_text

__all__ = ["GROUP_LIMIT", "Request", "check_group"]

GROUP_LIMIT = 1024
"""How many ports one group may have: with all that is recorded about them they fit one batch of the log."""

_LAST_PORT = 65_535
_SHAPE = ("port", "count", "contiguous", "align", "stride")


@attrs.frozen
class Request:
    """`count` ports of `pool` on `node` for `owner`, as one part of a group.

    `port` asks for one number. `contiguous` asks for a block: `count` numbers at distance `stride`, the first a multiple of
    `align`; without it they are any numbers. Requests of one call that carry the same `same_port` (any text) get the same
    numbers, each on its own node. The owner's leases count from index 0, and that is the one a plain `allocate` answers with.
    Raises `InvalidValue`.
    """

    pool: str
    owner: str
    node: str = attrs.field(kw_only=True, default="")
    service: str = attrs.field(kw_only=True, default="")
    port: int | None = attrs.field(kw_only=True, default=None)
    count: int = attrs.field(kw_only=True, default=1)
    contiguous: bool = attrs.field(kw_only=True, default=False)
    align: int = attrs.field(kw_only=True, default=1)
    stride: int = attrs.field(kw_only=True, default=1)
    same_port: str = attrs.field(kw_only=True, default="")

    def __attrs_post_init__(self) -> None:
        check_text("pool", self.pool)
        check_text("owner", self.owner, required=True)
        for name in ("node", "service", "same_port"):
            check_text(name, getattr(self, name))
        _check_number("count", self.count, GROUP_LIMIT)
        _check_number("align", self.align, _LAST_PORT)
        _check_number("stride", self.stride, _LAST_PORT)
        if type(self.contiguous) is not bool:
            raise InvalidValue(f"contiguous is True or False, not {self.contiguous!r}", name="contiguous", value=self.contiguous)
        self._check_shape()

    def _check_shape(self) -> None:
        for name in ("align", "stride"):
            value = getattr(self, name)
            if value != 1 and not self.contiguous:
                raise InvalidValue(f"{name}={value} describes a block: pass contiguous=True too, or leave it out", name=name, value=value)
        if self.port is None:
            return
        check_port(self.port)
        if self.count != 1 or self.contiguous:
            what = f"count={self.count}" if self.count != 1 else "contiguous=True"
            advice = "write a request for each number" if self.count != 1 else "leave one of the two out"
            raise InvalidValue(f"port={self.port} asks for one number and {what} for others: {advice}", name="port", value=self.port)

    @property
    def place(self) -> tuple[str, str]:
        """The (node, pool) it is about."""
        return self.node, self.pool

    @property
    def shape(self) -> tuple[object, ...]:
        """What it asks of the numbers."""
        return tuple(getattr(self, name) for name in _SHAPE)


def _check_number(name: str, value: object, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidValue(f"{name} must be a whole number from 1 to {most}, not {value!r}", name=name, value=value)


def check_group(value: object) -> tuple[Request, ...]:
    """Return `value`, an iterable of requests that can be served together, as a tuple, else raise `InvalidValue`."""
    given = tuple(value) if isinstance(value, Iterable) else (value,)
    requests = tuple(request for request in given if isinstance(request, Request))
    if not isinstance(value, Iterable) or len(requests) < len(given):
        raise InvalidValue(f"requests must be a list of Request(...), not {value!r}", name="requests", value=value)
    if not requests:
        raise InvalidValue("requests is empty: name at least one Request(...)", name="requests", value=value)
    total = sum(request.count for request in requests)
    if total > GROUP_LIMIT:
        raise InvalidValue(f"a group has at most {GROUP_LIMIT} ports and this one {total}: make several", name="requests", value=total)
    _check_owners(requests)
    _check_same_port(requests)
    return requests


def _check_owners(requests: tuple[Request, ...]) -> None:
    """One request for an owner in a place, and one for a number."""
    owners, numbers = set(), set()
    for request in requests:
        where = f"pool {request.pool!r}" + (f" on node {request.node!r}" if request.node else "")
        if (request.place, request.owner) in owners:
            raise InvalidValue(f"{request.owner!r} stands twice for {where}: ask once, with count=", name="owner", value=request.owner)
        owners.add((request.place, request.owner))
        if request.port is not None and (request.place, request.port) in numbers:
            raise InvalidValue(f"two requests ask for port {request.port} of {where}: change one", name="port", value=request.port)
        numbers.add((request.place, request.port))


def _check_same_port(requests: tuple[Request, ...]) -> None:
    """Those that are to get the same numbers name one pool, each another node, and ask alike."""
    first: dict[str, Request] = {}
    nodes: set[tuple[str, str]] = set()
    for request in filter(lambda request: request.same_port, requests):
        key, mate = request.same_port, first.setdefault(request.same_port, request)
        if request.pool != mate.pool:
            why = f"pools {mate.pool!r} and {request.pool!r} have no number in common: name one pool"
        elif request.shape != mate.shape:
            why = f"they ask for different numbers: give them the same {', '.join(_SHAPE)}"
        elif (key, request.node) in nodes:
            why = f"two of them are for node {request.node!r}, where a number can be given once: name another node, or use count="
        else:
            nodes.add((key, request.node))
            continue
        raise InvalidValue(f"requests with same_port={key!r}: {why}", name="same_port", value=key)
