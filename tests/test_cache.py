"""A copy of the state to open from: what may happen while it is read."""

from __future__ import annotations

import pytest

from portfsm import Fenced, MemoryJournal, PoolSpec, open_manager, replay
from portfsm._cache import Cache
from portfsm._dump import dump

pytestmark = pytest.mark.anyio

NODES = 7


class Led(MemoryJournal):
    """A shared journal that counts the signs of life, up to the one that comes too late."""

    def __init__(self):
        super().__init__()
        self.lease_s, self.append_renews, self.signs, self.late = 3600.0, True, 0, 0

    def renew(self) -> None:
        self.signs += 1
        if self.signs == self.late:
            raise Fenced("another leads", path="memory:", epoch=1, current=2)


async def filled() -> tuple[Led, str]:
    """Leases on some nodes and a snapshot of them, due for a sign of life at every moment from now on; and the digest."""
    journal = Led()
    async with open_manager(journal, pools=[PoolSpec("p", ports="1-9")]) as manager:
        for number in range(NODES):
            await manager.allocate("p", owner=f"o{number}", node=f"n{number}")
    ledger = replay(journal.read())
    journal.save_snapshot(ledger.seq, dump(ledger))
    journal.lease_s = 0.0
    return journal, ledger.digest()


async def test_a_leader_is_taken_for_dead_while_it_loads_a_large_state():
    journal, digest = await filled()
    assert Cache(journal).restore().digest() == digest
    assert journal.signs == NODES + 1


async def test_a_leader_that_lost_its_lead_while_it_loads_goes_on():
    journal, _ = await filled()
    journal.late = 3
    with pytest.raises(Fenced):
        Cache(journal).restore()
