"""The shortest whole program: a port for a replica, given back, and what the log makes of it."""

import tempfile

import anyio

from portfsm import PoolSpec, open_manager


async def main(log: str) -> None:
    """Lease a port, release it, ask about it."""
    pools = [PoolSpec("http", ports="30000-30999", hold_s=10.0)]
    async with open_manager(log, pools=pools) as manager:
        async with manager.lease("http", owner="replica-1", node="node-a", service="checkout") as lease:
            print(f"replica-1 listens on {lease.port}")
        print(manager.explain("http", lease.port, node="node-a"))
        other = await manager.allocate("http", owner="replica-2", node="node-a", service="search")
        print(f"replica-2, of another service, gets {other.port} while the hold runs")
        again = await manager.allocate("http", owner="replica-3", node="node-a", service="checkout")
        print(f"replica-3, of the same service, gets {again.port} back at once")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(main, f"{folder}/ports-log")
