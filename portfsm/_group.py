"""Several ports at once, all of them or none: what a group leads to.

Rule: a part is served in the order of how hard it is to serve (a number asked for or owed, the same number on several nodes,
blocks from the longest, single ports), each from what those before it left. Single ports go by the rule of a plain allocation:
each owner's own quarantined port, then its service's, then the pool's order. A block is one that owner or service held before,
else the first from where the pool's order points to. A lease that an owner of the group holds already stays as it is, and what
is missing is made to fit it. Nothing that was found is taken back: what would fit only if a part gave way to another is refused.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice
from typing import TYPE_CHECKING

import attrs

from portfsm._blocks import aligned, both, easiest, either, inverted, starts
from portfsm._choice import DRAIN_LIMIT
from portfsm._field import Field
from portfsm._group_rejections import impossible, lacking, other_block
from portfsm._index import index_of
from portfsm._lost import end, is_over
from portfsm._pressure import cut_off, relieves
from portfsm._quota import check_hard, check_soft
from portfsm._rejections import out_of_range, owner_conflict, unavailable
from portfsm.errors import CommandRejected
from portfsm.events import Event
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm import commands
    from portfsm._draft import Draft
    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.groups import Request
    from portfsm.values import Lease

__all__ = ["allocate_group", "fits", "holdings", "never"]


def allocate_group(command: commands.AllocateGroup, ledger: Ledger, draft: Draft) -> None:
    """Add the leases that are missing; none if the group is complete. Raises `GroupUnavailable` and what an allocation raises."""
    plan = _plan(command.requests, ledger, draft.ts, draft.seq)
    if isinstance(plan, _Plan):
        for pool in {request.pool: ledger.pool(request.pool, request.node) for request in command.requests}.values():
            if is_over(pool, draft.ts):
                end(pool, draft)
        plan.record(command.requests, draft)
    else:
        raise _refusal(*plan)


def fits(command: commands.AllocateGroup, ledger: Ledger, now_ns: int) -> bool:
    """Whether the group can be had now. Cheaper than to be told why not."""
    return isinstance(_plan(command.requests, ledger, max(now_ns, ledger.ts), ledger.seq), _Plan)


def never(command: commands.AllocateGroup, ledger: Ledger, now_ns: int) -> CommandRejected | None:
    """Why no time and no release will ever bring the group, as its pools and its owners' leases stand; None while it may come."""
    plan = _Plan(ledger, max(now_ns, ledger.ts), ledger.seq, 0)
    try:
        plan.parts = _parts(command.requests, ledger)
    except CommandRejected as error:
        return error
    return next(filter(None, (impossible(part.shape, plan.asked(part)) for part in plan.parts)), None)


def holdings(command: commands.AllocateGroup, ledger: Ledger) -> tuple[Lease, ...] | None:
    """The group's leases in order of request and index, None when any is missing."""
    leases = []
    for request in command.requests:
        pool = ledger.pool(request.pool, request.node)
        held = index_of(pool).held(request.owner)
        if any(index not in held for index in range(request.count)):
            return None
        leases += [pool.lease(held[index]) for index in range(request.count)]
    return tuple(leases)


@attrs.define(eq=False)
class Part:
    """Requests that get the same numbers: one, or those that carry the same `same_port`."""

    requests: list[Request] = attrs.field(factory=list)
    ports: dict[int, int] = attrs.field(factory=dict)
    """index -> number: owed to a lease that is held, asked for, or found."""
    held: set[tuple[str, int]] = attrs.field(factory=set)
    """(node, index) of the leases that exist."""

    @property
    def shape(self) -> Request:
        """Any of them: in what they ask of the numbers they are alike."""
        return self.requests[0]

    @property
    def missing(self) -> list[int]:
        """Indexes that no number was found for."""
        return [index for index in range(self.shape.count) if index not in self.ports]

    @property
    def is_plain(self) -> bool:
        """Whether any numbers will do, each for itself."""
        return len(self.requests) == 1 and not self.shape.contiguous

    @property
    def hardness(self) -> tuple[bool, bool, int]:
        """Greater for those to be served first."""
        return not self.missing, not self.is_plain, self.shape.count * self.shape.stride * len(self.requests)


def _parts(requests: Iterable[Request], ledger: Ledger) -> list[Part]:
    """The parts of a group, each with what is held of it. Raises `OwnerConflict` where that is not what is asked for."""
    parts: dict[object, Part] = {}
    for request in requests:
        parts.setdefault(request.same_port or id(request), Part()).requests.append(request)
    for part in parts.values():
        for request in part.requests:
            _note_held(part, request, ledger.pool(request.pool, request.node))
        if part.shape.contiguous and part.ports:
            index, port = next(iter(part.ports.items()))
            first = port - index * part.shape.stride
            part.ports = {each: first + each * part.shape.stride for each in range(part.shape.count)}
    return sorted(parts.values(), key=lambda part: part.hardness, reverse=True)


def _note_held(part: Part, request: Request, pool: Pool) -> None:
    for index, offset in index_of(pool).held(request.owner).items():
        if index >= request.count:
            break
        port = pool.base + offset
        if pool.service[offset] != request.service or request.port not in (None, port):
            raise owner_conflict(pool, offset, request.owner, request.port)
        first = port - index * request.stride
        of_another = request.contiguous and (first % request.align or any(at - n * request.stride != first for n, at in part.ports.items()))
        if of_another or part.ports.get(index, port) != port:
            raise other_block(pool, offset, request)
        part.ports[index] = port
        part.held.add((request.node, index))
    if request.port is not None:
        if not pool.in_range(request.port):
            raise out_of_range(pool, request.port)
        part.ports[0] = request.port


# ---------------------------------------------------------------------- finding the numbers


def _owners(field: Field, request: Request, salt: int) -> Iterator[int]:  # noqa: ARG001  (each source is asked alike)
    return field.last_of_owner(request)


def _services(field: Field, request: Request, salt: int) -> Iterator[int]:  # noqa: ARG001
    return field.last_of_service(request)


def _anybodys(field: Field, request: Request, salt: int) -> Iterator[int]:  # noqa: ARG001
    return field.in_order(field.free, salt + len(field.taken))


def _ending(field: Field, request: Request, salt: int) -> Iterator[int]:  # noqa: ARG001
    return field.ending()


class _Plan:
    """Numbers for all parts, taken from the fields of their pools."""

    def __init__(self, ledger: Ledger, now_ns: int, seq: int, limit: int | None, *, early: bool = False) -> None:
        self._ledger, self._now_ns, self._seq, self._limit, self._early = ledger, now_ns, seq, limit, early
        self.fields: dict[tuple[str, str], Field] = {}
        self.parts: list[Part] = []

    def field(self, request: Request) -> Field:
        """The field of the request's pool on its node."""
        field = self.fields.get(request.place)
        if field is None:
            pool = self._ledger.pool(request.pool, request.node)
            field = self.fields[request.place] = Field(pool, self._now_ns, self._limit, early=self._early)
        return field

    def place_all(self, parts: list[Part]) -> Part | None:
        """Find numbers for all parts; the first that gets none, None when all have them."""
        self.parts = parts
        for part in parts:
            if part.missing and part.is_plain:
                continue
            if not self._take(part, part.ports | (self._find(part) or self._find_early(part))):
                return part
        plain = [part for part in parts if part.missing]
        for source in (_owners, _services, _anybodys, _ending):
            for part in plain:
                field = self.field(part.shape)
                for index, place in zip(part.missing, source(field, part.shape, self._seq), strict=False):
                    field.take(place, early=source is _ending)
                    part.ports[index] = place + field.first
        return next((part for part in plain if part.missing), None)

    def _take(self, part: Part, ports: dict[int, int]) -> bool:
        """Take these numbers for all of the part's requests, but for those held; whether they are all there and to be had."""
        if len(ports) < part.shape.count:
            return False
        for request in part.requests:
            field = self.field(request)
            for index, port in ports.items():
                if (request.node, index) in part.held:
                    continue
                place = field.place(port)
                early = request.port is None and place >= 0 and not field.may_take(place, request)
                if place < 0 or not (field.may_end(place) if early else field.may_take(place, request)):
                    return False
                field.take(place, early=early)
        part.ports = ports
        return True

    def _find(self, part: Part) -> dict[int, int]:
        """Numbers for what is missing that will do for all requests of the part: of quarantines where each has those, else any."""
        shape, field, missing = part.shape, self.field(part.shape), part.missing
        before: bytes | bytearray = b""
        for lines in zip(*(self.field(request).lines(request) for request in part.requests), strict=True):
            line = lines[0]
            for other in lines[1:]:
                line = both(line, other) if line and other else b""
            if not (line and missing) or line is before:
                continue
            before = line
            if shape.contiguous:
                begin = field.first_block(aligned(starts(line, shape.count, shape.stride), field.first, shape.align), self._seq)
                places = self._block(begin, part)
            else:
                places = list(islice(field.in_order(line, self._seq), len(missing)))
            if len(places) == len(missing):
                return {index: place + field.first for index, place in zip(missing, places, strict=True)}
        return {}

    def _block(self, begin: int, part: Part) -> list[int]:
        """The places of a part's missing numbers in the block that begins there; none for -1."""
        return [begin + index * part.shape.stride for index in part.missing] if begin >= 0 else []

    def _find_early(self, part: Part) -> dict[int, int]:
        """The same under pressure: where the fewest holds are cut off."""
        shape, field, fields = part.shape, self.field(part.shape), [self.field(request) for request in part.requests]
        if shape.port is not None or not part.missing or not any(each.relief for each in fields):
            return {}
        line, early = bytes(field.inside), bytes(len(field.inside))
        for each, request in zip(fields, part.requests, strict=True):
            open_now = each.may_have(request)
            ending = both(each.relief, inverted(either(open_now, each.line_of_taken()))) if each.relief else early
            line, early = both(line, either(open_now, ending)), either(early, ending)
        if shape.contiguous:
            begins = aligned(starts(line, shape.count, shape.stride), field.first, shape.align)
            places = self._block(easiest(early, bytes(len(line)), begins, shape.count, shape.stride), part)
        else:
            now, later = field.in_order(both(line, inverted(early)), self._seq), field.in_order(both(line, early), self._seq)
            places = list(islice(chain(now, later), len(part.missing)))
        return {index: place + field.first for index, place in zip(part.missing, places, strict=True)} if places else {}

    def asked(self, part: Part) -> dict[Field, int]:
        """How many ports the whole group asks of each pool that this part does."""
        fields = [self.field(request) for request in part.requests]
        return {field: sum(r.count for each in self.parts for r in each.requests if self.field(r) is field) for field in fields}

    # ------------------------------------------------------------------ writing it down

    def record(self, requests: tuple[Request, ...], draft: Draft) -> None:
        """Add the events: what is due is noticed, then the leases begin in the order of the requests."""
        if all((request.node, index) in part.held for part in self.parts for request in part.requests for index in part.ports):
            return
        part_of = {id(request): part for part in self.parts for request in part.requests}
        begun = [(request, index, port) for request in requests for index, port in sorted(part_of[id(request)].ports.items())]
        begun = [(request, index, port) for request, index, port in begun if (request.node, index) not in part_of[id(request)].held]
        self._check_quotas(begun)
        self._notice(begun, draft)
        for request, index, port in begun:
            draft.seq = token = draft.seq + 1
            data = {"index": index} if index else None
            draft.append(
                Event(token, draft.ts, EventKind.ALLOCATED, *request.place, port, request.owner, request.service, token, data=data)
            )

    def _check_quotas(self, begun: list[tuple[Request, int, int]]) -> None:
        """As for single ports, one service after the other: what is taken over takes nothing from what is free."""
        taken = [(request.place, request.service, self.fields[request.place], port) for request, _, port in begun]
        wanted = Counter((place, service) for place, service, field, _ in taken if field.pool.spec.quotas)
        fresh = Counter((place, service) for place, service, field, port in taken if field.place(port) in field.fresh)
        for place, service in wanted:
            field = self.fields[place]
            check_hard(field.pool, field.index, service, wanted=wanted[place, service])
            if new := fresh[place, service]:
                spare = sum(field.free) + sum(count for (where, other), count in fresh.items() if where == place and other >= service)
                check_soft(field.pool, field.index, service, spare, wanted=new)

    def _notice(self, begun: list[tuple[Request, int, int]], draft: Draft) -> None:
        """Record the ends that have come of the ports that are given, and of some others; not of those taken over in their hold."""
        given = {(*request.place, port): request for request, _, port in begun}
        left = DRAIN_LIMIT
        for place, field in self.fields.items():
            for offset in field.due:
                request = given.get((*place, field.pool.base + offset))
                if request is not None and field.reuses(offset - field.shift, request):
                    continue
                left -= request is None
                if request is not None or left >= 0:
                    draft.notice(field.pool, offset)
        for field in self.fields.values():
            for offset in sorted((early + field.shift for early in field.early), key=field.pool.until.__getitem__):
                cut_off(field.pool, offset, draft, why="a group lacked it")


def _plan(requests: tuple[Request, ...], ledger: Ledger, now_ns: int, seq: int) -> _Plan | tuple[_Plan, Part]:
    """The whole plan, or the one that failed and the part that it failed at."""
    plan = _Plan(ledger, now_ns, seq, DRAIN_LIMIT)
    failed = plan.place_all(_parts(requests, ledger))
    if failed is not None and not all(field.drained for field in plan.fields.values()):
        plan = _Plan(ledger, now_ns, seq, None)  # ports may be due that were not looked at
        failed = plan.place_all(_parts(requests, ledger))
    if failed is not None and any(relieves(field.pool) for field in plan.fields.values()):
        plan = _Plan(ledger, now_ns, seq, None, early=True)
        failed = plan.place_all(_parts(requests, ledger))
    return plan if failed is None else (plan, failed)


def _refusal(plan: _Plan, part: Part) -> Exception:
    fields, port = [plan.field(request) for request in part.requests], part.shape.port
    if port is not None and len(fields) == 1 and fields[0].place(port) not in fields[0].taken:
        return unavailable(fields[0].pool, port)
    return impossible(part.shape, plan.asked(part)) or lacking(part.requests, fields, part.ports)
