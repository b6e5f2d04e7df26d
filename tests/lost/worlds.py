"""A world whose history is lost, and what holds of it whatever happens."""

from __future__ import annotations

from portfsm._dump import dump, load
from portfsm._ledger import Ledger
from portfsm.commands import Open

SECOND = 1_000_000_000


def reopen(world, *, lost=False, boot="boot 1", **options):
    """A crash, and the next controller; `lost` as it was told."""
    world.ledger = world.replayed()
    world.do(Open(world.ledger.epoch + 1, "h", boot, 1, 1, lost=lost, **options))
    return world


def sums(world, pool="p", node=""):
    counts = world.ledger.statistics(pool, node=node)
    assert counts.size == counts.free + counts.allocated + counts.quarantined + counts.blocked
    return counts.free, counts.allocated, counts.quarantined, counts.blocked


def same(world):
    """Live equals replayed equals reloaded."""
    copy = Ledger()
    load(copy, list(dump(world.ledger)))
    assert world.ledger.digest() == world.replayed().digest() == copy.digest()
    assert list(world.ledger.ports()) == list(world.replayed().ports()) == list(copy.ports())
