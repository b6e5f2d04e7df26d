"""Work that is broken off when something else comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["unless"]


async def unless(end: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[None]]) -> None:
    """Do `work`; cancel it when `end` returns first. What `work` raises comes out as it is, and not in a group."""
    failed: list[Exception] = []
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  (raised below)
                failed.append(error)
            tasks.cancel_scope.cancel()

        tasks.start_soon(run)
        await end()
        tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]
