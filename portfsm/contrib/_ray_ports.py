"""What Ray Serve's controller asks of its port manager, kept in a portfsm log. Knows nothing of Ray but the order of its calls.

Ray's calls return at once and come from one thread; the manager lives on an event loop. So it runs in a thread of its own, opened at the
first call (in the process that asks: only the controller does), and opened anew after it stopped.

Rules. A replica's id is the owner. The log is the table: after a crash of the controller the leases, holds and blocks are there before the
first replica has reported. What this process has seen alive and no longer is, is released. What it knows from the log alone may just not
have been found yet: that takes three observations a minute apart, as `PortManager.reconcile` has it.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from portfsm._log import warn
from portfsm.contrib._leases import lease_of
from portfsm.errors import HistoryLost, InvalidValue, JournalError, ManagerClosed, OwnerConflict
from portfsm.manager import open_manager
from portfsm.observation import Observation, Sighting
from portfsm.states import PortState

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from portfsm.manager import PortManager
    from portfsm.protocols import Journal
    from portfsm.specs import PoolSpec
    from portfsm.values import Lease

__all__ = ["Ports"]

_Key = tuple[str, str, str]
"""Pool, node, owner."""
_Replica = tuple[str, str]
"""Node, owner."""
_Result = TypeVar("_Result")
_BLOCK_S = 600.0
_CLOSE_S = 30.0


class _Keeper:
    """A manager on a loop in a thread, which ends with the process."""

    def __init__(self, opening: Callable[[], Any]) -> None:
        self._opening = opening
        self._opened: Future[tuple[BlockingPortal, PortManager]] = Future()
        self._thread = threading.Thread(target=anyio.run, args=(self._live,), name="portfsm-ray", daemon=True)
        self._thread.start()
        self.portal, self.manager = self._opened.result()

    async def _live(self) -> None:
        self._end = anyio.Event()
        try:
            async with self._opening() as manager, BlockingPortal() as portal:
                self._opened.set_result((portal, manager))
                await self._end.wait()
        except BaseException as error:  # noqa: BLE001  (there is nobody else to tell)
            if not self._opened.done():
                self._opened.set_exception(error)
            else:
                warn("ray_log_ended", error=repr(error))

    @property
    def lives(self) -> bool:
        """Whether there is anybody to ask: an error in the manager's own work, and no caller's, ends the loop with it."""
        return self._thread.is_alive()

    def ask(self, call: Callable[[PortManager], Awaitable[_Result]]) -> _Result:
        """The result of a call to the manager."""
        return self.portal.call(call, self.manager)

    def end(self) -> None:
        """Close the log."""
        with suppress(RuntimeError):  # it has ended
            self.portal.start_task_soon(self._end.set)
        self._thread.join(_CLOSE_S)


class Ports:
    """The ports of all nodes, by pool, node and replica. From one thread at a time."""

    def __init__(self, journal: str | os.PathLike[str] | Journal, pools: Iterable[PoolSpec], *, leak_grace_s: float = 60.0) -> None:
        self._opening = partial(open_manager, journal, pools=tuple(pools))
        self._leak_grace_s = leak_grace_s
        self._keeper: _Keeper | None = None
        self._history: Literal["kept", "lost"] = "kept"
        self._leases: dict[_Key, Lease] = {}
        self._seen: set[_Replica] = set()
        """Those that the controller has said to live, and not yet that they are gone."""
        self._looked_s = 0.0
        self.unsettled = True
        """Whether `prune` has something to look at even if nothing has happened."""

    def _ask(self, call: Callable[[PortManager], Awaitable[_Result]]) -> _Result:
        keeper = self._opened()
        try:
            return keeper.ask(call)
        except (JournalError, ManagerClosed) as error:
            if isinstance(error, HistoryLost):
                self._history = "lost"
            self.close()  # opening again replays, and is right again
            raise

    def _opened(self) -> _Keeper:
        if self._keeper is None or not self._keeper.lives:
            self._keeper = _Keeper(partial(self._opening, history=self._history))
            known, self._leases = self._leases, {_key(lease): lease for lease in self._keeper.ask(_held)}
            self.unsettled = True
            if self._history == "lost":
                self._history = "kept"
                for (pool, node, owner), lease in known.items():
                    self._adopt(pool, node, owner, lease.port)
        return self._keeper

    def close(self) -> None:
        """Let go of the log; the next call opens it again."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.end()

    # ------------------------------------------------------------------ one replica

    def allocate(self, pool: str, node: str, owner: str) -> int:
        """A port for a replica, the one it has if it does. Raises `PoolExhausted`."""
        lease = self._ask(lambda manager: manager.allocate(pool, owner=owner, node=node))
        self._leases[_key(lease)] = lease
        self.unsettled = True
        return lease.port

    def find(self, pool: str, node: str, owner: str) -> int | None:
        """The port that a replica has. From memory, as it is asked for every replica at every tick."""
        self._opened()
        lease = self._leases.get((pool, node, owner))
        return lease.port if lease is not None else None

    def release(self, pool: str, node: str, owner: str, port: int, *, block: bool) -> None:
        """End a replica's lease. Repeated after a lost reply, a block is kept all the same; for the rest nothing happens.

        Raises `InvalidValue` when the replica holds another port.
        """
        if (found := self.find(pool, node, owner)) not in (None, port):
            text = f"replica {owner!r} holds port {found} of pool {pool!r}, not {port}: release that one"
            raise InvalidValue(text, name="port", value=port)
        reason = f"replica {owner} could not listen there" if block else None

        async def end(manager: PortManager) -> None:
            view = manager.port(pool, port, node=node)
            if view.owner == owner and view.token:
                await manager.release(lease_of(view), block=reason, for_s=_BLOCK_S if block else None)

        self._ask(end)
        self._leases.pop((pool, node, owner), None)

    def recover(self, pool: str, node: str, owner: str, port: int) -> None:
        """A replica says that it listens there. Where the log says otherwise, that is told and the log stays as it is."""
        self._seen.add((node, owner))
        self._adopt(pool, node, owner, port)

    def _adopt(self, pool: str, node: str, owner: str, port: int) -> None:
        if self.find(pool, node, owner) == port:
            return
        try:
            lease = self._ask(lambda manager: manager.adopt(pool, port, owner=owner, node=node))
        except OwnerConflict as error:
            warn("ray_conflict", error=str(error))
        else:
            self._leases[_key(lease)] = lease

    # ------------------------------------------------------------------ all of them

    def prune(self, alive: Mapping[str, AbstractSet[str]]) -> None:
        """Release what those had that live no more. `alive` names those that do, by node."""
        self._opened()
        self._seen |= {(node, owner) for node, owners in alive.items() for owner in owners}
        missing = {(node, owner) for _, node, owner in self._leases if owner not in alive.get(node, ())}
        for node, owner in sorted(missing & self._seen):
            self._forget(self._ask(partial(_release_owner, node=node, owner=owner)))
        self._seen -= missing
        doubtful = missing & {(node, owner) for _, node, owner in self._leases}
        if doubtful and time.monotonic() - self._looked_s >= self._leak_grace_s:
            self._forget(self._ask(partial(_reconcile, alive=alive, leak_grace_s=self._leak_grace_s)))
            self._looked_s = time.monotonic()
        self.unsettled = bool(doubtful)

    def _forget(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            self._leases.pop(_key(lease), None)


def _key(lease: Lease) -> _Key:
    return lease.pool, lease.node, lease.owner


async def _held(manager: PortManager) -> list[Lease]:
    return [*map(lease_of, manager.ports(state=PortState.ALLOCATED))]


async def _release_owner(manager: PortManager, *, node: str, owner: str) -> tuple[Lease, ...]:
    return await manager.release_owner(owner, node=node)


async def _reconcile(manager: PortManager, *, alive: Mapping[str, AbstractSet[str]], leak_grace_s: float) -> tuple[Lease, ...]:
    leases = await _held(manager)
    live = [Sighting(each.owner, each.node, each.pool, each.port) for each in leases if each.owner in alive.get(each.node, ())]
    nodes = sorted({lease.node for lease in leases})
    observation = Observation(nodes, live, manager.now_ns, complete=True)
    return (await manager.reconcile(observation, leak_grace_s=leak_grace_s)).released
