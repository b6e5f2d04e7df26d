"""Ray's controller, as far as the core sees it."""

from __future__ import annotations

from portfsm.commands import Open


def crash(world, *, boot="same"):
    """It dies, and its successor reads the log."""
    world.ledger = world.replayed()
    world.do(Open(world.ledger.epoch + 1, "successor", boot, world.now, world.now))
