"""A pool that is too small: callers queue up, first come first served, and are woken as holds end."""

import anyio

from portfsm import PoolExhausted, PoolSpec, open_manager


async def main() -> None:
    """Two ports, four jobs, a hold of a tenth of a second."""
    async with open_manager("memory:", pools=[PoolSpec("jobs", ports="20000-20001", hold_s=0.1)]) as manager:

        async def job(name: str) -> None:
            async with manager.lease("jobs", owner=name, wait_s=None) as lease:
                print(f"{name} works on {lease.port}")

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(job, f"job-{number}")
        try:
            await manager.allocate("jobs", owner="in-a-hurry")
        except PoolExhausted as error:
            print(error)


if __name__ == "__main__":
    anyio.run(main)
