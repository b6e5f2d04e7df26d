"""What a command leads to: events, or a `CommandRejected` that says why not.

Rule: `decide` is a function of the ledger, the command and the time given; it changes nothing. The events it
returns are legal in the order given, so that whoever records them may apply them at once. A command that is
already true returns no events, which is what makes every command safe to repeat.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from portfsm import _decide_log, _lost, commands
from portfsm._blocking import block
from portfsm._choice import DRAIN_LIMIT, choose, is_reuse, opens
from portfsm._draft import Draft
from portfsm._group import allocate_group
from portfsm._index import index_of
from portfsm._pool import ALLOCATED, BLOCKED, FREE, OUTSIDE, QUARANTINED, WHY_LOST
from portfsm._pressure import free_earliest
from portfsm._quota import check_hard, check_soft
from portfsm._rejections import ended, exhausted, foreign_lease, illegal, owner_conflict, stale, ttl_conflict
from portfsm.events import Event
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm._index import Index
    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.values import Lease

__all__ = ["decide"]

_ALLOCATED = EventKind.ALLOCATED
"""Reading a member off its enum costs more than building an event."""


def decide(ledger: Ledger, command: commands.Command, *, now_ns: int) -> tuple[Event, ...]:
    """The events that `command` leads to at `now_ns` (UTC ns); none if it is already true.

    Raises `CommandRejected`. Changes nothing. Time that has gone back is taken as the ledger's last.
    """
    plan = _PLANS.get(type(command))
    if plan is None:
        raise TypeError(f"not a command: {command!r}; make one from portfsm.commands")
    draft = Draft()
    draft.seq = ledger.seq
    draft.ts = now_ns if now_ns > ledger.ts else ledger.ts or 1
    plan(command, ledger, draft)
    return tuple(draft)


# ---------------------------------------------------------------------- beginning a lease


def _allocate(command: commands.Allocate, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.pools.get((command.node, command.pool)) or ledger.pool(command.pool, command.node)
    index = pool.index or index_of(pool)
    held = index.holders.get(command.owner)
    if held is not None:
        _same_request(pool, held, command)
        return
    if pool.spec.quotas:
        check_hard(pool, index, command.service)
    if pool.lost is not None and _lost.is_over(pool, draft.ts):
        _lost.end(pool, draft)
    due = index.due_by(pool, draft.ts, DRAIN_LIMIT) if index.due else []
    chosen = choose(pool, index, command, due, draft)
    if due:
        _notice_all(pool, due, chosen, command, draft)
    if chosen < 0:
        chosen = free_earliest(pool, index, draft)
        if chosen < 0:
            raise exhausted(pool, draft.ts)
    if pool.spec.quotas:
        _leave_others_theirs(pool, index, command, chosen, due, draft)
    token = draft.seq + 1  # a lease's token is the number of its own event
    until = 0 if command.ttl_s is None else draft.ts + command.ttl_ns
    port = pool.base + chosen
    draft.append(Event(token, draft.ts, _ALLOCATED, pool.node, pool.name, port, command.owner, command.service, token, 0, until))


def _leave_others_theirs(
    pool: Pool, index: Index, command: commands.Allocate, chosen: int, due: list[int], draft: Draft
) -> None:  # fmt: skip
    if chosen < len(pool.state) and is_reuse(pool, chosen, command, draft.ts):
        return  # which takes nothing from what is free
    early = sum(event.cause == "pressure" for event in draft)
    check_soft(pool, index, command.service, _lost.free(pool, draft.ts) + early + sum(opens(pool, offset, draft.ts) for offset in due))


def _notice_all(pool: Pool, due: list[int], chosen: int, command: commands.Allocate, draft: Draft) -> None:
    for offset in due:
        if offset != chosen or not is_reuse(pool, offset, command, draft.ts):
            draft.notice(pool, offset)


def _same_request(pool: Pool, offset: int, command: commands.Allocate) -> None:
    if command.service != pool.service[offset] or command.port not in (None, pool.base + offset):
        raise owner_conflict(pool, offset, command.owner, command.port)
    if (command.ttl_s is not None or pool.notes) and command.ttl_ns != pool.ttl_ns(offset):
        raise ttl_conflict(pool, offset)


def _adopt(command: commands.Adopt, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.pool(command.pool, command.node)
    offset, code = pool.row(command.port), pool.code(command.port)
    mine = code == ALLOCATED and pool.owner[offset] == command.owner  # under whichever index
    held = offset if mine else index_of(pool).holders.get(command.owner, -1)
    if held >= 0 and (held != offset or pool.service[held] != command.service):
        raise owner_conflict(pool, held, command.owner, command.port)
    if code == ALLOCATED:
        if held != offset:
            raise owner_conflict(pool, offset, command.owner, command.port)
        return
    reason = _flag(pool, command, offset, code, draft.ts)
    if _lost.recall(pool, command.port - pool.base, draft):
        reason = "; ".join(filter(None, (f"was held: {WHY_LOST}", reason)))
    draft.on(
        pool, command.port - pool.base, EventKind.ADOPTED,
        owner=command.owner, service=command.service, token=draft.seq + 1, reason=reason,
    )  # fmt: skip


def _flag(pool: Pool, command: commands.Adopt, offset: int, code: int, now_ns: int) -> str:
    """What an auditor should know about an adoption that the plain rules would not have allowed."""
    flags = [] if pool.in_range(command.port) else [f"outside the range {pool.spec.ranges}"]
    if code == BLOCKED:
        flags.append(f"was blocked: {pool.note(offset).reason}")
    elif code == QUARANTINED and pool.is_stranger(offset, command.owner, command.service, now_ns):
        flags.append(f"was quarantined for {pool.service[offset] or pool.owner[offset] or 'an operator'}")
    left = index_of(pool).held_last(pool, command.owner, "", now_ns)
    if left >= 0 and left != offset:
        flags.append(f"moved from port {pool.base + left}")
    return "; ".join(flags)


# ---------------------------------------------------------------------- ending a lease


def _release(command: commands.Release, ledger: Ledger, draft: Draft) -> None:
    lease = command.lease
    pool, offset = _leased(ledger, lease)
    code, last = pool.state[offset], pool.token[offset] == lease.token
    if last and code == ALLOCATED and command.block is None:
        draft.end(pool, offset, command.cause, evidence=command.evidence)
    elif not last:
        if code in (FREE, OUTSIDE, ALLOCATED):
            raise stale(pool, offset, lease)
    elif command.block is not None and code not in (BLOCKED, OUTSIDE):
        cause = "holder" if command.cause == "released" else command.cause
        block(pool, offset, draft, command, reason=command.block, cause=cause)


def _leased(ledger: Ledger, lease: Lease) -> tuple[Pool, int]:
    pool = ledger.pools.get((lease.node, lease.pool)) or ledger.pool(lease.pool, lease.node)
    offset = lease.port - pool.base
    if not 0 <= offset < len(pool.state) or not 0 < lease.token <= pool.token[offset]:
        raise foreign_lease(lease)
    return pool, offset


def _withdraw(command: commands.Withdraw, ledger: Ledger, draft: Draft) -> None:
    lease = command.lease
    pool, offset = _leased(ledger, lease)
    code = pool.state[offset]
    if pool.token[offset] != lease.token and code in (FREE, OUTSIDE, ALLOCATED):
        raise stale(pool, offset, lease)
    if code == ALLOCATED and not pool.note(offset).withdrawn:
        draft.on(pool, offset, EventKind.WITHDRAWN, owner=pool.owner[offset], service=pool.service[offset], token=lease.token)


def _renew(command: commands.Renew, ledger: Ledger, draft: Draft) -> None:  # noqa: ARG001  (when a lease ends is not the log's to know)
    lease = command.lease
    pool, offset = _leased(ledger, lease)
    if pool.token[offset] != lease.token or pool.state[offset] != ALLOCATED:
        raise ended(pool, offset, lease)


def _release_owner(command: commands.ReleaseOwner, ledger: Ledger, draft: Draft) -> None:
    for pool in ledger.select(node=command.node):
        for offset in index_of(pool).held(command.owner).values():
            draft.end(pool, offset, command.cause)


# ---------------------------------------------------------------------- the operator's hand, and time


def _block_port(command: commands.Block, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.locate(command.pool, command.port, command.node)
    offset = command.port - pool.base
    if pool.code(command.port) == BLOCKED:
        if not 0 < pool.until[offset] <= draft.ts:
            return
        draft.unblock(pool, offset, "elapsed", free=False)
    block(pool, offset, draft, command, reason=command.reason, cause=command.cause)


def _unblock(command: commands.Unblock, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.locate(command.pool, command.port, command.node)
    code = pool.code(command.port)
    if code == ALLOCATED:
        raise illegal(pool, command.port, EventKind.UNBLOCKED)
    if code == BLOCKED:
        draft.unblock(pool, command.port - pool.base, "operator", command.reason)


def _hold(command: commands.Hold, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.locate(command.pool, command.port, command.node)
    offset, code = command.port - pool.base, pool.code(command.port)
    if code in (ALLOCATED, BLOCKED):
        raise illegal(pool, command.port, EventKind.HELD)
    hold_ms = math.ceil(command.hold_s * 1000)
    until, running = draft.ts + hold_ms * 1_000_000, pool.until[offset] if code == QUARANTINED else draft.ts
    if pool.lost is not None and pool.is_lost(command.port) and pool.lost.until > draft.ts:
        running = pool.lost.until
    if until <= running and code == QUARANTINED and pool.proxies and until > pool.evidence_frees_at(offset):
        until = running  # evidence could end the hold that is running before the one that is asked for
    elif until <= running:
        return
    _lost.recall(pool, offset, draft)
    draft.on(pool, offset, EventKind.HELD, hold_ms=hold_ms, until=until, cause=command.cause, reason=command.reason)


def _free(command: commands.Free, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.locate(command.pool, command.port, command.node)
    code = pool.code(command.port)
    if code in (ALLOCATED, BLOCKED):
        raise illegal(pool, command.port, EventKind.FREED)
    if code == QUARANTINED or (pool.is_lost(command.port) and _lost.recall(pool, command.port - pool.base, draft)):
        draft.on(pool, command.port - pool.base, EventKind.FREED, cause="operator", reason=command.reason)


def _clear(command: commands.Clear, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.locate(command.pool, command.port, command.node)
    offset = command.port - pool.base
    if pool.code(command.port) == QUARANTINED and draft.ts >= pool.evidence_frees_at(offset):
        draft.on(pool, offset, EventKind.FREED, cause="evidence", reason=command.reason)


def _sweep(command: commands.Sweep, ledger: Ledger, draft: Draft) -> None:
    if ledger.lost:
        _lost.ask(ledger, command.pool, command.node, draft)
    for pool in ledger.select(command.pool, command.node):
        for offset in index_of(pool).due_by(pool, draft.ts, _decide_log.BATCH - len(draft)):
            draft.notice(pool, offset)


_PLANS: dict[type, Callable[[Any, Ledger, Draft], None]] = {
    commands.Adopt: _adopt,
    commands.Allocate: _allocate,
    commands.AllocateGroup: allocate_group,
    commands.Block: _block_port,
    commands.Clear: _clear,
    commands.Close: _decide_log.close,
    commands.DefinePool: _decide_log.define,
    commands.Free: _free,
    commands.Hold: _hold,
    commands.Join: _decide_log.join,
    commands.Leave: _decide_log.leave,
    commands.Open: _decide_log.open_log,
    commands.Release: _release,
    commands.ReleaseOwner: _release_owner,
    commands.Renew: _renew,
    commands.Sweep: _sweep,
    commands.Unblock: _unblock,
    commands.Withdraw: _withdraw,
}
