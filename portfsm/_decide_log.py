"""What commands lead to that concern no port but the log itself: its opening and closing, its pools, its proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm._dump import spec_data
from portfsm._pool import QUARANTINED
from portfsm._rejections import stale_epoch
from portfsm.states import EventKind

if TYPE_CHECKING:
    from portfsm import commands
    from portfsm._draft import Draft
    from portfsm._ledger import Ledger
    from portfsm._pool import Pool

__all__ = ["BATCH", "close", "define", "join", "leave", "open_log"]

BATCH = 4096
"""How many events one decision makes at most where it could make any number."""


def define(command: commands.DefinePool, ledger: Ledger, draft: Draft) -> None:
    """Put a pool in force, if it is not."""
    spec = command.spec
    if ledger.specs.get(spec.name) != spec:
        seed = ledger.seeds.get(spec.name) or (command.seed if spec.order == "random" else "")
        draft.add(EventKind.POOL_DEFINED, pool=spec.name, data=spec_data(spec, seed))


def open_log(command: commands.Open, ledger: Ledger, draft: Draft) -> None:
    """A machine that restarted has lost its clock, so every hold starts over before anything else happens.

    `opened` goes into the last batch: it names the new boot, and a crash between two batches must leave the rest
    of the holds to be restarted again.
    """
    if command.lost:
        draft.ts = max(draft.ts, ledger.ts + 1)  # tells what was before from what comes after
    held = [(pool, offset) for pool in ledger.select() for offset in pool.offsets(states=bytes((QUARANTINED,)))]
    other_boot = bool(command.restart_holds and ledger.opened) and command.boot != ledger.opened["boot"]
    cause = "lost" if command.lost else "reboot" if other_boot else ""
    held = held if cause else []
    early = max(0, len(held) - BATCH // 2)
    for pool, offset in held[:early]:
        _restart(pool, offset, cause, draft)
    if command.epoch <= ledger.epoch:
        raise stale_epoch(command.epoch, ledger.epoch)
    data = {"epoch": command.epoch, "holder": command.holder, "boot": command.boot, "boot_ns": command.boot_ns, "wall_ns": command.wall_ns}
    if command.lost or (other_boot and ledger.lost):
        data["history"] = "lost" if command.lost else "held anew"
    told = [command.recovered, _WHY["lost"] if command.lost else ""]
    draft.add(EventKind.OPENED, reason="; ".join(filter(None, told)), data=data)
    for pool, offset in held[early:]:
        _restart(pool, offset, cause, draft)


_WHY = {
    "lost": "the history before was lost: every port not proven live is held in full",
    "reboot": "the machine restarted: the full hold starts over",
}


def _restart(pool: Pool, offset: int, cause: str, draft: Draft) -> None:
    hold_ms = max(pool.spec.hold_ms, pool.held_ms(offset))
    until = max(draft.ts + hold_ms * 1_000_000, pool.until[offset])
    draft.on(pool, offset, EventKind.HELD, hold_ms=hold_ms, until=until, cause=cause, reason=_WHY[cause])


def close(command: commands.Close, ledger: Ledger, draft: Draft) -> None:  # noqa: ARG001  (dispatched on its type)
    """The last event of a writer that left in order."""
    draft.add(EventKind.CLOSED)


def join(command: commands.Join, ledger: Ledger, draft: Draft) -> None:
    """Require a proxy's evidence."""
    if command.proxy not in ledger.proxies:
        draft.add(EventKind.PROXY_JOINED, data={"proxy": command.proxy})


def leave(command: commands.Leave, ledger: Ledger, draft: Draft) -> None:
    """Require it no more."""
    if command.proxy in ledger.proxies:
        draft.add(EventKind.PROXY_LEFT, reason=command.reason, data={"proxy": command.proxy})
