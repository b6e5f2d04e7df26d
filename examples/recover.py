"""What a controller does when it comes back after a crash: the log knows the leases, the world knows who lives."""

import anyio

from portfsm import MemoryJournal, PoolSpec, open_manager

POOLS = [PoolSpec("http", ports="30000-30009", hold_s=10.0)]


async def before_the_crash(journal: MemoryJournal) -> None:
    """Three replicas start; then the controller dies without a word."""
    async with open_manager(journal, pools=POOLS) as manager:
        for number in range(3):
            await manager.allocate("http", owner=f"replica-{number}", service="checkout")


async def after_the_crash(journal: MemoryJournal, alive: set[str]) -> None:
    """Take up the living, release the dead: their ports wait out a full hold."""
    async with open_manager(journal, pools=POOLS) as manager:
        for view in manager.ports("http"):
            if view.owner in alive:
                print(f"{view.owner} goes on with port {view.port}")
            else:
                await manager.release_owner(view.owner)
                print(manager.explain("http", view.port))


async def main() -> None:
    """A journal in memory stands for the directory; the crash itself is what `portfsm demo` shows."""
    journal = MemoryJournal()
    await before_the_crash(journal)
    await after_the_crash(journal, alive={"replica-0", "replica-2"})


if __name__ == "__main__":
    anyio.run(main)
