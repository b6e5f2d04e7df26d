"""The sentences of a refused group: what stands in the way of the easiest of its blocks, and when that is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._blocks import aligned, both, easiest, either, inverted, starts
from portfsm._pool import ALLOCATED
from portfsm._pressure import next_relief
from portfsm._rejections import exhausted, place, utc
from portfsm.errors import GroupUnavailable, InvalidValue, OwnerConflict
from portfsm.states import PortState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from portfsm._field import Field
    from portfsm._pool import Pool
    from portfsm.groups import Request
    from portfsm.values import PortView

__all__ = ["impossible", "lacking", "other_block"]

_EVER = 1 << 62
_NAMED = 4
"""Ports that a sentence names; the error's fields name all."""


def impossible(shape: Request, asked: Mapping[Field, int]) -> InvalidValue | None:
    """What no state of these pools could give, if it is that. `asked`: how many ports the whole group asks of each."""
    for field, total in asked.items():
        spec = field.pool.spec
        if total > spec.size:
            return InvalidValue(
                f"the group asks for {total} ports of pool {spec.name!r}, which has {spec.size}: ask for fewer, or widen the pool's ports",
                name="count", value=total,
            )  # fmt: skip
        if shape.contiguous and 1 not in _candidates(shape, [field]):
            return InvalidValue(
                f"no {_block(shape)} fit the ranges of pool {spec.name!r} ({spec.ranges}): ask for another shape, or widen its ports",
                name="count", value=shape.count,
            )  # fmt: skip
    return None


def lacking(requests: Sequence[Request], fields: Sequence[Field], ports: Mapping[int, int]) -> GroupUnavailable:
    """Not to be had now. `ports`: the numbers that are fixed, or that were found, by index."""
    shape, field = requests[0], fields[0]
    if len(requests) == 1 and not shape.contiguous and shape.port is None:
        short = shape.count - len(ports)
        soon = [
            offset for offset in field.index.due_by(field.pool, _EVER, short + len(field.taken)) if offset - field.shift not in field.taken
        ]
        soon = soon[:short]
        views = [field.pool.view(field.pool.base + offset) for offset in soon]
        return _refusal(f"has {len(ports)} of the {shape.count} ports asked for", views, field, whole=len(soon) == short, short=short)
    fixed = [port - field.first for port in ports.values()]
    views = _in_the_way(fixed, requests, fields) or _in_the_way(_easiest(shape, requests, fields), requests, fields)
    on = f" on {len(fields)} nodes together" if len(fields) > 1 else ""
    text = f"has no {_block(shape)} to give{on}; least is in the way here"
    return _refusal(text, views, field, whole=shape.contiguous or shape.count == 1, short=len(views))


def _in_the_way(places: Sequence[int], requests: Sequence[Request], fields: Sequence[Field]) -> list[PortView]:
    """The ports at these places that are neither held by the group nor to be had."""
    found = []
    for request, field in zip(requests, fields, strict=True):
        for each in places:
            port = each + field.first
            held = field.pool.code(port) == ALLOCATED and field.pool.owner[each + field.shift] == request.owner
            if not held and (field.place(port) < 0 or not field.may_take(each, request)):
                found.append(field.pool.view(port))
    return found


def other_block(pool: Pool, offset: int, request: Request) -> OwnerConflict:
    """A lease that the owner holds has another number than the group as it is asked for would give it."""
    port = pool.base + offset
    return OwnerConflict(
        f"{request.owner!r} already holds {place(pool, port)}, which is not where {_block(request)} of this group would have it: "
        "release it first, or ask for the same group",
        node=pool.node, pool=pool.name, port=port, holder=request.owner, claimant=request.owner,
        conflict="moved", claimed=request.port,
    )  # fmt: skip


def _block(shape: Request) -> str:
    """What is asked for, in words."""
    if shape.count == 1:
        return "number" + (f" that is a multiple of {shape.align}" if shape.align > 1 else "")
    if not shape.contiguous:
        return f"{shape.count} numbers"
    apart = f" {shape.stride} apart" if shape.stride > 1 else " in a row"
    return f"{shape.count} numbers{apart}" + (f", the first a multiple of {shape.align}," if shape.align > 1 else "")


def _candidates(shape: Request, fields: Sequence[Field]) -> bytes:
    """1 wherever a block of this shape may begin as far as the ranges go."""
    length = shape.count if shape.contiguous else 1
    return aligned(starts(fields[0].inside, length, shape.stride), fields[0].first, shape.align)


def _easiest(shape: Request, requests: Sequence[Request], fields: Sequence[Field]) -> list[int]:
    """The places of the block that the fewest ports are in the way of, quarantined ones counting least."""
    soon = hard = bytes(len(fields[0].inside))
    for request, field in zip(requests, fields, strict=True):
        closed, quarantined = inverted(field.may_have(request)), field.quarantined
        hard = either(hard, both(closed, inverted(quarantined)))
        soon = either(soon, both(closed, quarantined))
    length, candidates = shape.count if shape.contiguous else 1, _candidates(shape, fields)
    if not shape.contiguous:
        candidates = both(candidates, either(soon, hard))  # the numbers that are open are not the ones that lack
    begin = easiest(soon, hard, candidates, length, shape.stride)
    return [begin + index * shape.stride for index in range(length)]


def _refusal(text: str, views: list[PortView], field: Field, *, whole: bool, short: int) -> GroupUnavailable:
    pool = field.pool
    facts = exhausted(pool, field.now_ns)
    free_at = _free_at(views, field) if whole else None
    named = "; ".join(_named(view) for view in views[:_NAMED]) + (f"; and {len(views) - _NAMED} more" if len(views) > _NAMED else "")
    advice = f"all are free at {utc(free_at)}, pass wait_s= to wait for it" if free_at else "release some, or unblock some"
    if relief := next_relief(pool, field.now_ns):
        advice = f"under this pressure more may be freed early from {utc(relief)} on, pass wait_s= to wait for it"
    where = f"pool {pool.name!r}" + (f" on node {pool.node!r}" if pool.node else "")
    return GroupUnavailable(
        f"{where} {text}{': ' + named if named else ''}. Nothing was given: {advice}",
        node=pool.node, pool=pool.name, counts=facts.counts, next_free_at=facts.next_free_at, short_by=max(short, 1),
        in_the_way=tuple(views), free_at=free_at,
    )  # fmt: skip


def _named(view: PortView) -> str:
    on = f" on node {view.node!r}" if view.node else ""
    if view.state is PortState.FREE:
        return f"port {view.port}{on} is wanted by another request of the group, or lies outside the ranges"
    holder = f" by {view.owner!r}" if view.owner else ""
    until = f" until {utc(view.until)}" if view.until else ""
    return f"port {view.port}{on} is {view.state.value}{holder}{until}"


def _free_at(views: list[PortView], field: Field) -> int | None:
    """When time has freed the last of them; None when it does not free them all."""
    found = 0
    for view in views:
        if view.until is None or (field.pool.kept and view.state is PortState.QUARANTINED):
            return None
        found = max(found, view.until + (field.pool.hold_ns if view.state is PortState.BLOCKED else 0))
    return found or None
