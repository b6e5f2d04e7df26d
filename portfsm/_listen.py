"""A port that is free in the log and in the operating system as well: allocate, bind, and try on when others sit there.

Rule: from the moment a lease is granted until it is returned there is no await at which it could get lost: binding is one step,
and a wait that comes after a failed bind ends the lease when it is cancelled.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import attrs

from portfsm import commands
from portfsm._faults import blocks
from portfsm._log import warn
from portfsm._requests import leases_of
from portfsm.errors import BindFailed, CommandRejected, InvalidValue, OwnerConflict, PoolExhausted, PortfsmError
from portfsm.sockets import BoundLease, Holder, NotBound, bind_all, check_targets, occupants
from portfsm.specs import check_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from portfsm._engine import Engine
    from portfsm._occupants import Kind, Occupant
    from portfsm.sockets import Target
    from portfsm.values import Lease

__all__ = ["BLOCK_S", "Listening", "Wanted"]

BLOCK_S = 600.0
"""How long a port that somebody else listens on is left alone."""

_CONNECTION_S = 90.0
"""And one that only a connection sits on: it ends, and TIME_WAIT takes a minute."""

_NAMED = 3
_ATTEMPTS = 65_535


@attrs.frozen(kw_only=True)
class Wanted:
    """What a call of `listen` asks for, checked."""

    command: commands.Allocate
    targets: tuple[Target, ...]
    attempts: int
    block_s: float
    wait_s: float | None
    holder: Holder | None

    @classmethod
    def checked(
        cls,
        command: commands.Allocate,
        *,
        host: str | Sequence[str],
        kind: Kind | Sequence[Kind],
        attempts: int,
        block_s: float,
        wait_s: float | None,
        holder: Holder | None,
    ) -> Wanted:
        """From what the caller gave. Raises `InvalidValue`."""
        if type(attempts) is not int or not 1 <= attempts <= _ATTEMPTS:
            raise InvalidValue(f"attempts must be a whole number from 1 to {_ATTEMPTS}, not {attempts!r}", name="attempts", value=attempts)
        if holder is not None and not isinstance(holder, Holder):
            raise InvalidValue(f"holder must be a portfsm.Holder, not {holder!r}", name="holder", value=holder)
        block_s, wait_s = check_seconds("block_s", block_s), None if wait_s is None else check_seconds("wait_s", wait_s)
        targets = check_targets(host, kind)
        return cls(command=command, targets=targets, attempts=attempts, block_s=block_s, wait_s=wait_s, holder=holder)

    def bind(self, lease: Lease) -> BoundLease:
        """The sockets, on the lease's port. Raises `NotBound`."""
        if self.holder is not None:
            self.holder.open(lease.port)
        try:
            return BoundLease(lease, bind_all(lease.port, self.targets))
        except BaseException:
            if self.holder is not None and self.holder.strict:
                self.holder.shut(lease.port)
            raise


class Listening:
    """The calls of `listen` that are under way on one manager."""

    def __init__(self, engine: Engine, allocate: Callable[..., Awaitable[Lease]]) -> None:
        self._engine = engine
        self._allocate = allocate
        self._under_way: set[tuple[str, str, str]] = set()

    async def listen(self, wanted: Wanted) -> BoundLease:
        """A lease with its sockets, or what `PortManager.listen` says it raises."""
        command = wanted.command
        key = command.node, command.pool, command.owner
        if key in self._under_way:  # both would get one lease, and the second to bind would take the first for a stranger
            raise _twice(command)
        self._under_way.add(key)
        try:
            return await self._try_on(wanted)
        finally:
            self._under_way.discard(key)

    async def _try_on(self, wanted: Wanted) -> BoundLease:
        tried: dict[int, str] = {}
        deadline = None if wanted.wait_s is None else self._engine.clock.boot_ns() + round(wanted.wait_s * 1e9)
        for _ in range(wanted.attempts):
            before = {lease.token for lease in leases_of(self._engine, wanted.command.owner, wanted.command.node)}
            lease = await self._lease(wanted.command, deadline, tried)
            try:
                return wanted.bind(lease)
            except NotBound as error:
                failure = error
            except BaseException:
                if lease.token not in before:
                    self._end(lease, cause="cancelled")
                raise
            if lease.token in before:
                raise await _kept(wanted, lease, failure) from failure.error
            if not blocks(failure.error):
                raise await self._given_back(wanted, lease, failure) from failure.error
            tried[lease.port] = await self._block(wanted, lease, failure)
        raise _all_in_use(wanted, tried)

    async def _lease(self, command: commands.Allocate, deadline: int | None, tried: dict[int, str]) -> Lease:
        left_s = None if deadline is None else max(0, deadline - self._engine.clock.boot_ns()) / 1e9
        names = {"owner": command.owner, "node": command.node, "service": command.service}
        try:
            return await self._allocate(command.pool, **names, wait_s=left_s)
        except PoolExhausted as error:
            for reason in tried.values():
                error.add_note(f"blocked by this call: {reason}")
            raise

    async def _given_back(self, wanted: Wanted, lease: Lease, failure: NotBound) -> BindFailed:
        """No port would do better: end the lease as if it had never been asked for."""
        self._end(lease, cause="cancelled")
        await self._settle()
        return _failed(wanted, f"cannot listen: {failure.in_words}. The lease was given back", failure)

    async def _block(self, wanted: Wanted, lease: Lease, failure: NotBound) -> str:
        """Take the port out of use for a while, with the name of who sits there. Cancelled meanwhile: without the name."""
        try:
            found = await _sitting(failure)
        except BaseException:
            with suppress(PortfsmError):
                self._found_in_use(lease, failure, (), wanted.block_s)
            raise
        passing = bool(found) and all(each.doing != "listens" for each in found)
        self._found_in_use(lease, failure, found, min(wanted.block_s, _CONNECTION_S) if passing else wanted.block_s)
        await self._engine.settle()
        return _reason(failure, found)

    def _found_in_use(self, lease: Lease, failure: NotBound, found: tuple[Occupant, ...], for_s: float) -> None:
        self._end(lease, block=_reason(failure, found), for_s=for_s, errno=failure.error.errno or 0)

    def _end(self, lease: Lease, **how: Any) -> None:
        try:
            self._engine.submit(commands.Release(lease, **how))
        except CommandRejected:
            pass  # another hand has ended it
        except PortfsmError:
            warn("lease_unreleased", token=lease.token, port=lease.port, owner=lease.owner)
            raise

    async def _settle(self) -> None:
        with anyio.move_on_after(self._engine.close_s, shield=True):
            await self._engine.settle()


# ---------------------------------------------------------------------- in words


async def _sitting(failure: NotBound) -> tuple[Occupant, ...]:
    """Who keeps us off, as far as the system tells. In a thread: there may be thousands of processes to look through."""
    target = failure.target
    found = await anyio.to_thread.run_sync(lambda: occupants((failure.port,), kinds=(target.kind,)))
    return tuple(each for each in found if each.covers(target.host))


def _reason(failure: NotBound, found: tuple[Occupant, ...]) -> str:
    who = ", ".join(map(str, found[:_NAMED])) or "the system does not say by whom (bound and not listening, or another container's)"
    return f"{failure.place} is in use (EADDRINUSE, errno {failure.error.errno}): {who}"


async def _kept(wanted: Wanted, lease: Lease, failure: NotBound) -> BindFailed:
    """The owner held the port before this call: whatever is wrong, its lease is not ours to end."""
    start = f"{lease.owner!r} holds port {lease.port} since before this call and keeps it"
    if not blocks(failure.error):
        return _failed(wanted, f"{start}, but cannot listen: {failure.in_words}", failure)
    advice = "if that is its own process, it serves already; if not, release the lease with block= and call again"
    return _failed(wanted, f"{start}, and {_reason(failure, await _sitting(failure))}: {advice}", failure)


def _failed(wanted: Wanted, text: str, failure: NotBound) -> BindFailed:
    command, host = wanted.command, failure.target.host
    return BindFailed(
        text, pool=command.pool, node=command.node, host=host, port=failure.port, errno=failure.error.errno, tried={}
    )  # fmt: skip


def _all_in_use(wanted: Wanted, tried: dict[int, str]) -> BindFailed:
    command = wanted.command
    shown = "; ".join(list(tried.values())[:_NAMED])
    more = f" and {len(tried) - _NAMED} more" if len(tried) > _NAMED else ""
    advice = "all are blocked for a while now: call again to try further ports, stop what sits there, or give the pool another range"
    return BindFailed(
        f"{len(tried)} ports of pool {command.pool!r} in a row are in use: {shown}{more}; {advice}",
        pool=command.pool, node=command.node, host=wanted.targets[0].host, port=None, errno=errno.EADDRINUSE, tried=tried,
    )  # fmt: skip


def _twice(command: commands.Allocate) -> OwnerConflict:
    return OwnerConflict(
        f"a call of listen() for {command.owner!r} in pool {command.pool!r} is under way: await it, or give each replica its own owner",
        node=command.node, pool=command.pool, port=None, holder=command.owner, claimant=command.owner,
        conflict="owner", claimed=None,
    )  # fmt: skip
