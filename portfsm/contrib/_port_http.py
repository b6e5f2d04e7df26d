"""The calls of the port server over HTTP, each as the manager has it. What is said is in `_port_wire`."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from portfsm._log import warn
from portfsm.cli._views import port_json, status_json
from portfsm.contrib import _port_wire as wire
from portfsm.contrib._peers import Process
from portfsm.contrib._unless import unless
from portfsm.errors import InvalidValue, PortfsmError
from portfsm.groups import Request
from portfsm.witnesses._serving import RefusedError, departures

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from portfsm.contrib._connection import Connection
    from portfsm.contrib._port_desk import Desk
    from portfsm.manager import PortManager
    from portfsm.values import Lease
    from portfsm.witnesses._serving import Asked, Exchange

    Say = Callable[[Any], Awaitable[None]]

__all__ = ["Calls"]

_LAST_WORDS_S = 0.5


class Calls:
    """Answers requests; `most_waiting` of them may wait for a port at a time, so that there is room for those who bring one back."""

    def __init__(self, manager: PortManager, desk: Desk, *, node: str, most_waiting: int) -> None:
        self._manager, self._desk, self._node = manager, desk, node
        self._room = most_waiting
        self._departures = departures()
        self._paths: dict[str, tuple[str, Callable[[Asked, Say], Awaitable[None]]]] = {
            "/v1/allocate": ("POST", self._allocate),
            "/v1/allocate_group": ("POST", self._allocate_group),
            "/v1/release": ("POST", self._release),
            "/v1/renew": ("POST", self._renew),
            "/v1/explain": ("GET", self._explain),
            "/v1/status": ("GET", self._status),
        }

    async def answer(self, exchange: Exchange, connection: Connection) -> None:
        """One request. Raises one of `departures` when the client has gone."""
        try:
            asked = await exchange.read(self._admit)
        except RefusedError as error:
            await exchange.answer(error.status, wire.encode({"error": str(error)}))
        else:
            await unless(connection.hung_up, partial(self._do, asked, exchange))

    async def _do(self, asked: Asked, exchange: Exchange) -> None:

        async def say(value: Any) -> None:
            await exchange.answer(200, wire.encode(value))

        try:
            await self._paths[asked.target.partition("?")[0]][1](asked, say)
        except RefusedError as error:
            await exchange.answer(error.status, wire.encode({"error": str(error)}))
        except PortfsmError as error:
            await exchange.answer(*wire.failure(error))
        except anyio.get_cancelled_exc_class():
            # Either the client has gone, which this does not reach, or the server is going.
            with anyio.move_on_after(_LAST_WORDS_S, shield=True):
                await self._last_words(exchange)
            raise
        except Exception as error:
            if isinstance(error, self._departures):
                raise
            warn("request_failed", error=repr(error), effect="the client got a 500; please report it")
            await exchange.answer(500, wire.encode({"error": "a fault in portfsm: the server's stderr says more"}))

    async def _last_words(self, exchange: Exchange) -> None:
        with suppress(*self._departures):
            await exchange.answer(503, wire.encode({"error": "the port server is stopping: ask again when it is back"}))

    def _admit(self, request: Any) -> None:
        path = request.target.decode("ascii").partition("?")[0]
        if path not in self._paths:
            raise RefusedError(404, f"there is {', '.join(self._paths)}")
        if request.method.decode("ascii") != (method := self._paths[path][0]):
            raise RefusedError(405, f"{path} is asked by {method}")

    # ------------------------------------------------------------------ ports

    async def _allocate(self, asked: Asked, say: Say) -> None:
        want = wire.read_body(asked.body, wire.Allocate)

        async def ask() -> Sequence[Lease]:
            names = {"owner": want.owner, "node": self._on(want.node), "service": want.service, "port": want.port}
            return [await self._manager.allocate(want.pool, **names, ttl_s=want.ttl_s, wait_s=want.wait_s)]  # type: ignore[arg-type]

        await self._give([want.owner], ask, want.wait_s, lambda leases: say(wire.lease_json(leases[0])))

    async def _allocate_group(self, asked: Asked, say: Say) -> None:
        want = wire.read_body(asked.body, wire.AllocateGroup)
        requests = [
            Request(**{name: getattr(each, name) for name in each.__struct_fields__ if name != "node"}, node=self._on(each.node))
            for each in want.requests
        ]
        ask = partial(self._manager.allocate_group, requests, wait_s=want.wait_s)
        owners = [request.owner for request in requests]
        await self._give(owners, ask, want.wait_s, lambda leases: say({"leases": [*map(wire.lease_json, leases)]}))

    async def _give(
        self,
        owners: list[str],
        ask: Callable[[], Awaitable[Sequence[Lease]]],
        wait_s: float | None,
        tell: Callable[[Sequence[Lease]], Awaitable[None]],
    ) -> None:
        for owner in owners:
            if Process.of_owner(owner) is not None:
                text = f"owner {owner!r} is the name of a process: ask with its pid alone, as portpicker does, or choose another name"
                raise InvalidValue(text, name="owner", value=owner)
        waits = wait_s != 0
        if waits and not self._room:
            raise RefusedError(503, "as many wait for a port as may: ask again later, or with wait_s 0")
        self._room -= waits
        try:
            async with self._desk.giving(owners, ask) as leases:
                await tell(leases)
        finally:
            self._room += waits

    async def _release(self, asked: Asked, say: Say) -> None:
        want = wire.read_body(asked.body, wire.Release)
        await self._manager.release(self._desk.lease(want.token), block=want.block, for_s=want.for_s)
        await say({"released": want.token})

    async def _renew(self, asked: Asked, say: Say) -> None:
        want = wire.read_body(asked.body, wire.Renew)
        await say(wire.lease_json(await self._manager.renew(self._desk.lease(want.token))))

    # ------------------------------------------------------------------ questions

    async def _explain(self, asked: Asked, say: Say) -> None:
        pool, port, node = wire.read_query(asked.target.partition("?")[2])
        node = self._on(node)
        view, text = self._manager.port(pool, port, node=node), self._manager.explain(pool, port, node=node)
        await say({"node": node or None, "pool": pool, **port_json(view), "explanation": text})

    async def _status(self, _: Asked, say: Say) -> None:
        head = await anyio.to_thread.run_sync(lambda: self._manager.head)  # it waits for a sync that is under way
        await say(status_json(self._manager._engine.published, head))  # noqa: SLF001  (all of it, as the command prints it)

    def _on(self, node: str | None) -> str:
        return self._node if node is None else node
