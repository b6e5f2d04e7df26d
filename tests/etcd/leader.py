"""A controller that leads until it is killed: a program of its own. It prints a line for each lease that it was given.

python -m tests.etcd.leader URL HOLDER LEASE_S
"""

from __future__ import annotations

import sys

import anyio

from portfsm import PoolSpec, PortfsmError, open_manager

SPEC = PoolSpec("http", ports="30000-39999", hold_s=3600.0)


async def lead(url: str, holder: str, lease_s: float) -> None:
    async with open_manager(url, pools=[SPEC], role="lead-or-wait", lease_s=lease_s, holder=holder) as manager:
        print("leads", manager.epoch, flush=True)

        async def work(worker: int) -> None:
            for number in range(100_000):
                lease = await manager.allocate("http", owner=f"{holder}-{worker}-{number}")
                print("given", lease.token, lease.owner, flush=True)
                if number % 2:
                    await manager.release(lease)

        async with anyio.create_task_group() as tasks:
            for worker in range(8):
                tasks.start_soon(work, worker)


if __name__ == "__main__":
    try:
        anyio.run(lead, sys.argv[1], sys.argv[2], float(sys.argv[3]))
    except* PortfsmError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print("ended", type(error).__name__, flush=True)
