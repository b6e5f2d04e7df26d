"""Gives ports to those who ask over a connection, and takes them back from those who did not hear the answer.

Rules. A lease that a request brought about ends again unless the client was told of it. Two requests for one owner take turns, so that
the second cannot mistake what the first was given for its own. A port is tried in the operating system before it is given: TCP and UDP, on
all addresses; one that somebody sits on is BLOCKED for a while, and the next is tried.
"""

from __future__ import annotations

import errno
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread

from portfsm._faults import blocks
from portfsm.contrib._leases import lease_of
from portfsm.errors import BindFailed, CommandRejected, StaleLease
from portfsm.sockets import NotBound, bind_all, check_targets, occupants
from portfsm.states import PortState
from portfsm.witnesses._serving import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from portfsm.manager import PortManager
    from portfsm.sockets import Target
    from portfsm.values import Lease

    Ask = Callable[[], Awaitable[Sequence[Lease]]]

__all__ = ["Desk"]

_ATTEMPTS = 16
_BLOCK_S = 600.0
_TURN_S = 10.0
_UNDO_S = 30.0
_NAMED = 3


class Desk:
    """The leases of `manager`, by their tokens. Ports of `node` are those of this machine."""

    def __init__(self, manager: PortManager, *, node: str) -> None:
        self._manager, self._node = manager, node
        self._targets = _everywhere()
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._leases: dict[int, Lease] = {}
        self._tokens: dict[tuple[str, str, int], int] = {}
        for view in (*manager.ports(), *manager.ports(state=PortState.FREE)):
            if view.token:
                self._note(lease_of(view))

    def _note(self, lease: Lease) -> None:
        place = lease.node, lease.pool, lease.port
        self._leases.pop(self._tokens.get(place, 0), None)
        self._tokens[place] = lease.token
        self._leases[lease.token] = lease

    def lease(self, token: int) -> Lease:
        """The lease that has `token`, the last of its port, ended or not. Raises `StaleLease`."""
        if (lease := self._leases.get(token)) is not None:
            return lease
        text = f"token {token} is no port's last: its lease has ended, and the port has had another since; ask for a new one"
        raise StaleLease(text, node=None, pool=None, port=None, token=token, current=None)

    @asynccontextmanager
    async def giving(self, owners: Iterable[str], ask: Ask) -> AsyncIterator[Sequence[Lease]]:
        """The leases that `ask` gets for `owners`: tell the client within the block. What it raises ends those that are new."""
        async with AsyncExitStack() as turns:
            for owner in sorted(set(owners)):
                await self._take_turn(turns, owner)
            held = {lease.token for owner in owners for lease in self._manager.find(owner)}
            leases = await self._vacant(ask, held)
            try:
                for lease in leases:
                    self._note(lease)
                yield leases
            except BaseException:
                await self._take_back([lease for lease in leases if lease.token not in held])
                raise

    async def _take_turn(self, turns: AsyncExitStack, owner: str) -> None:
        lock = self._turns.get(owner)
        if lock is None:
            lock = self._turns[owner] = anyio.Lock()
        with anyio.move_on_after(_TURN_S):
            await turns.enter_async_context(lock)
            return
        raise RefusedError(409, "another request for this owner is under way on another connection: await its answer")

    # ------------------------------------------------------------------ ports that nobody sits on

    async def _vacant(self, ask: Ask, held: set[int]) -> Sequence[Lease]:
        """What `ask` gets, with nobody on any port that is new."""
        tried: dict[int, str] = {}
        pool = node = ""
        for _ in range(_ATTEMPTS):
            leases = await ask()
            new = [lease for lease in leases if lease.token not in held]
            taken = self._taken(new)
            if not taken:
                return leases
            pool, node = new[0].pool, new[0].node
            tried |= await self._block(new, taken)
        shown = "; ".join(list(tried.values())[:_NAMED])
        raise BindFailed(
            f"{len(tried)} ports in a row are in use: {shown}; all are blocked for a while now: ask again, or give the pool another range",
            pool=pool, node=node, host=None, port=None, errno=errno.EADDRINUSE, tried=tried,
        )  # fmt: skip

    def _taken(self, leases: Iterable[Lease]) -> dict[int, NotBound]:
        """Why ports cannot be bound, by token. Another fault than the port's says nothing: the client may have the right."""
        found: dict[int, NotBound] = {}
        for lease in leases:
            if lease.node != self._node:
                continue
            try:
                for each in bind_all(lease.port, self._targets):
                    each.close()
            except NotBound as failure:
                if blocks(failure.error):
                    found[lease.token] = failure
        return found

    async def _block(self, leases: list[Lease], taken: dict[int, NotBound]) -> dict[int, str]:
        """Give all of them back, those that somebody sits on with the reason. Port -> reason."""
        reasons: dict[int, str] = {}
        try:
            for lease in leases:
                if lease.token in taken:
                    reasons[lease.port] = await _reason(taken[lease.token])
        finally:
            with anyio.move_on_after(_UNDO_S, shield=True):
                for lease in leases:
                    if (failure := taken.get(lease.token)) is None:
                        await self._manager.release(lease)
                    else:
                        text = reasons.get(lease.port) or f"{failure.place} is in use"
                        await self._manager.release(lease, block=OSError(errno.EADDRINUSE, text), for_s=_BLOCK_S)
        return reasons

    async def _take_back(self, leases: list[Lease]) -> None:
        with anyio.move_on_after(_UNDO_S, shield=True):
            for lease in leases:
                with suppress(CommandRejected):
                    await self._manager.release(lease)


async def _reason(failure: NotBound) -> str:
    """Where, and who sits there as far as the system tells. In a thread: there may be thousands of processes to look through."""
    found = await anyio.to_thread.run_sync(lambda: occupants((failure.port,), kinds=(failure.target.kind,)))
    return f"{failure.place} is in use: {', '.join(map(str, found[:_NAMED])) or 'the system does not say by whom'}"


def _everywhere() -> tuple[Target, ...]:
    """All addresses, of both families where there are two."""
    targets = check_targets("0.0.0.0", ("tcp", "udp"))  # noqa: S104  (bound for a moment, to see whether that works)
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        targets += check_targets("::", ("tcp", "udp"))
    return targets
