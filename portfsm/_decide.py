"""What a command leads to: events, or a `CommandRejected` that says why not.

Rule: `decide` is a function of the ledger, the command and the time given; it changes nothing. The events it
returns are legal in the order given, so that whoever records them may apply them at once. A command that is
already true returns no events, which is what makes every command safe to repeat.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from portfsm import commands
from portfsm._draft import Draft
from portfsm._dump import spec_data
from portfsm._index import index_of
from portfsm._pool import ALLOCATED, BLOCKED, FREE, OUTSIDE, QUARANTINED
from portfsm._rejections import exhausted, foreign_lease, illegal, out_of_range, owner_conflict, stale, stale_epoch, unavailable
from portfsm.events import Event
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm._index import Index
    from portfsm._ledger import Ledger
    from portfsm._pool import Pool
    from portfsm.values import Lease

__all__ = ["DRAIN_LIMIT", "decide"]

DRAIN_LIMIT = 128
"""How many due ports one `allocate` frees at most, so that a thousand ends at once stall nobody."""

_ALLOCATED = EventKind.ALLOCATED
"""Reading a member off its enum costs more than building an event."""

_DRAWS = 8
_BATCH = 4096


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
    due = index.due_by(pool, draft.ts, DRAIN_LIMIT) if index.due else []
    chosen = _choose(pool, index, command, due, draft)
    if due:
        _notice_all(pool, due, chosen, command, draft)
    if chosen < 0:
        raise exhausted(pool, draft.ts)
    token = draft.seq + 1  # a lease's token is the number of its own event
    draft.append(Event(token, draft.ts, _ALLOCATED, pool.node, pool.name, pool.base + chosen, command.owner, command.service, token))


def _notice_all(pool: Pool, due: list[int], chosen: int, command: commands.Allocate, draft: Draft) -> None:
    for offset in due:
        if offset != chosen or not _is_reuse(pool, offset, command, draft.ts):
            draft.notice(pool, offset)


def _same_request(pool: Pool, offset: int, command: commands.Allocate) -> None:
    if command.service != pool.service[offset] or command.port not in (None, pool.base + offset):
        raise owner_conflict(pool, offset, command.owner)


def _is_reuse(pool: Pool, offset: int, command: commands.Allocate, now_ns: int) -> bool:
    return pool.state[offset] == QUARANTINED and not pool.is_stranger(offset, command.owner, command.service, now_ns)


def _opens(pool: Pool, offset: int, now_ns: int) -> bool:
    """Whether noticing this due port makes it FREE to give: a hold's end does, a block's only where no hold follows."""
    if offset in pool.outside or (pool.kept and pool.state[offset] == QUARANTINED):
        return False
    return pool.state[offset] == QUARANTINED or not (pool.hold_ns or pool.kept or pool.note(offset).held_until > now_ns)


def _choose(pool: Pool, index: Index, command: commands.Allocate, due: list[int], draft: Draft) -> int:
    if command.port is not None:
        return _by_number(pool, command, due, draft)
    if index.by_owner or index.by_service:
        last = index.held_last(pool, command.owner, command.service, draft.ts)
        if last >= 0:
            return last
    freed = _freed(pool, index, due, draft.ts) if due else due
    order = pool.spec.order
    if order == "lowest":
        found = pool.state.find(FREE, index.hint)
        if found < 0:
            found = pool.free_after(len(pool.state))
        index.hint = found if found >= 0 else len(pool.state)
        return min(found if found >= 0 else freed[0], *freed) if freed else found
    if order == "longest-idle":
        return _longest_idle(pool, index, freed)
    return _random(pool, freed, draft.seq + len(due))


def _freed(pool: Pool, index: Index, due: list[int], now_ns: int) -> list[int]:
    """Which of the ports that are due will be FREE to give. Looks further when the first many are not."""
    freed = [offset for offset in due if _opens(pool, offset, now_ns)]
    if not freed and len(due) >= DRAIN_LIMIT:
        freed = [offset for offset in index.due_by(pool, now_ns, len(index.due)) if _opens(pool, offset, now_ns)][:1]
        due += freed
    return freed


def _by_number(pool: Pool, command: commands.Allocate, due: list[int], draft: Draft) -> int:
    port = command.port or 0
    if not pool.in_range(port):
        raise out_of_range(pool, port)
    offset, code = pool.row(port), pool.code(port)
    if code == FREE:
        return port - pool.base
    if _is_reuse(pool, offset, command, draft.ts):
        return offset
    if code != ALLOCATED and 0 < pool.until[offset] <= draft.ts and _opens(pool, offset, draft.ts):
        if offset not in due:
            due.append(offset)
        return offset
    raise unavailable(pool, port)


def _longest_idle(pool: Pool, index: Index, freed: list[int]) -> int:
    rows = index.longest_idle(pool)
    unused = rows if rows >= 0 and not pool.since[rows] else pool.free_after(len(pool.state))
    if unused >= 0 or rows >= 0:
        return unused if unused >= 0 else rows
    return freed[0] if freed else -1


def _random(pool: Pool, freed: list[int], salt: int) -> int:
    """A free port drawn from the recorded seed and the sequence number: replay would draw the same."""
    offset = 0
    for draw in range(_DRAWS):
        drawn = blake2b(f"{pool.seed}:{salt}:{draw}".encode(), digest_size=8).digest()
        offset = pool.nth(int.from_bytes(drawn) % pool.spec.size)
        if offset >= len(pool.state) or pool.state[offset] == FREE or offset in freed:
            return offset
    candidates = [found for found in (pool.free_after(offset), pool.free_after(0), *freed) if found >= 0]
    return min(candidates, key=lambda found: (found < offset, found), default=-1)


def _adopt(command: commands.Adopt, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.pool(command.pool, command.node)
    held = index_of(pool).holders.get(command.owner, -1)
    offset, code = pool.row(command.port), pool.code(command.port)
    if held >= 0 and (held != offset or pool.service[held] != command.service):
        raise owner_conflict(pool, held, command.owner)
    if code == ALLOCATED:
        if held != offset:
            raise owner_conflict(pool, offset, command.owner)
        return
    reason = _flag(pool, command, offset, code, draft.ts)
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
        _block(pool, offset, draft, reason=command.block, for_s=command.for_s, cause="holder")


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


def _release_owner(command: commands.ReleaseOwner, ledger: Ledger, draft: Draft) -> None:
    for pool in ledger.select(node=command.node):
        offset = index_of(pool).holders.get(command.owner, -1)
        if offset >= 0:
            draft.end(pool, offset, command.cause)


# ---------------------------------------------------------------------- the operator's hand, and time


def _block_port(command: commands.Block, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.locate(command.pool, command.port, command.node)
    offset = command.port - pool.base
    if pool.code(command.port) == BLOCKED:
        if not 0 < pool.until[offset] <= draft.ts:
            return
        draft.unblock(pool, offset, "elapsed", free=False)
    _block(pool, offset, draft, reason=command.reason, for_s=command.for_s, cause=command.cause)


def _block(pool: Pool, offset: int, draft: Draft, *, reason: str, for_s: float | None, cause: str) -> None:
    holder: dict[str, Any] = {}
    if pool.code(pool.base + offset) == ALLOCATED:
        holder = {"owner": pool.owner[offset], "service": pool.service[offset], "token": pool.token[offset]}
    until = 0 if for_s is None else draft.ts + math.ceil(for_s * 1e9)
    draft.on(pool, offset, EventKind.BLOCKED, **holder, until=until, cause=cause, reason=reason)


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
    if until <= running and code == QUARANTINED and pool.proxies and until > pool.evidence_frees_at(offset):
        until = running  # evidence could end the hold that is running before the one that is asked for
    elif until <= running:
        return
    draft.on(pool, offset, EventKind.HELD, hold_ms=hold_ms, until=until, cause=command.cause, reason=command.reason)


def _free(command: commands.Free, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.locate(command.pool, command.port, command.node)
    code = pool.code(command.port)
    if code in (ALLOCATED, BLOCKED):
        raise illegal(pool, command.port, EventKind.FREED)
    if code == QUARANTINED:
        draft.on(pool, command.port - pool.base, EventKind.FREED, cause="operator", reason=command.reason)


def _clear(command: commands.Clear, ledger: Ledger, draft: Draft) -> None:
    pool = ledger.locate(command.pool, command.port, command.node)
    offset = command.port - pool.base
    if pool.code(command.port) == QUARANTINED and draft.ts >= pool.evidence_frees_at(offset):
        draft.on(pool, offset, EventKind.FREED, cause="evidence", reason=command.reason)


def _join(command: commands.Join, ledger: Ledger, draft: Draft) -> None:
    if command.proxy not in ledger.proxies:
        draft.add(EventKind.PROXY_JOINED, data={"proxy": command.proxy})


def _leave(command: commands.Leave, ledger: Ledger, draft: Draft) -> None:
    if command.proxy in ledger.proxies:
        draft.add(EventKind.PROXY_LEFT, reason=command.reason, data={"proxy": command.proxy})


def _sweep(command: commands.Sweep, ledger: Ledger, draft: Draft) -> None:
    for pool in ledger.select(command.pool, command.node):
        for offset in index_of(pool).due_by(pool, draft.ts, _BATCH - len(draft)):
            draft.notice(pool, offset)


# ---------------------------------------------------------------------- the log itself


def _define(command: commands.DefinePool, ledger: Ledger, draft: Draft) -> None:
    spec = command.spec
    if ledger.specs.get(spec.name) != spec:
        seed = ledger.seeds.get(spec.name) or (command.seed if spec.order == "random" else "")
        draft.add(EventKind.POOL_DEFINED, pool=spec.name, data=spec_data(spec, seed))


def _open(command: commands.Open, ledger: Ledger, draft: Draft) -> None:
    """A machine that restarted has lost its clock, so every hold starts over before anything else happens.

    `opened` goes into the last batch: it names the new boot, and a crash between two batches must leave the rest
    of the holds to be restarted again.
    """
    held = [(pool, offset) for pool in ledger.select() for offset in pool.offsets(states=bytes((QUARANTINED,)))]
    if not (command.restart_holds and ledger.opened) or command.boot == ledger.opened["boot"]:
        held = []
    early = max(0, len(held) - _BATCH // 2)
    for pool, offset in held[:early]:
        _restart(pool, offset, draft)
    if command.epoch <= ledger.epoch:
        raise stale_epoch(command.epoch, ledger.epoch)
    data = {"epoch": command.epoch, "holder": command.holder, "boot": command.boot, "boot_ns": command.boot_ns, "wall_ns": command.wall_ns}
    draft.add(EventKind.OPENED, reason=command.recovered, data=data)
    for pool, offset in held[early:]:
        _restart(pool, offset, draft)


def _restart(pool: Pool, offset: int, draft: Draft) -> None:
    hold_ms = max(pool.spec.hold_ms, pool.held_ms(offset))
    until = max(draft.ts + hold_ms * 1_000_000, pool.until[offset])
    why = "the machine restarted: the full hold starts over"
    draft.on(pool, offset, EventKind.HELD, hold_ms=hold_ms, until=until, cause="reboot", reason=why)


def _close(command: commands.Close, ledger: Ledger, draft: Draft) -> None:  # noqa: ARG001  (dispatched on its type)
    draft.add(EventKind.CLOSED)


_PLANS: dict[type, Callable[[Any, Ledger, Draft], None]] = {
    commands.Adopt: _adopt,
    commands.Allocate: _allocate,
    commands.Block: _block_port,
    commands.Clear: _clear,
    commands.Close: _close,
    commands.DefinePool: _define,
    commands.Free: _free,
    commands.Hold: _hold,
    commands.Join: _join,
    commands.Leave: _leave,
    commands.Open: _open,
    commands.Release: _release,
    commands.ReleaseOwner: _release_owner,
    commands.Sweep: _sweep,
    commands.Unblock: _unblock,
    commands.Withdraw: _withdraw,
}
