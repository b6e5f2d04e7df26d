"""One manager leads, others may wait: taking the lead when it is free, and giving signs of life while there is nothing to write.

Rule: this file decides only who tries. Who may write is decided by the journal, in the append itself; a leader that missed its time
finds out there, and nobody ever saw what it could not record. What it remembers it may say while its lease runs; after that it asks first.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from portfsm._log import warn
from portfsm.errors import Fenced, InvalidValue, JournalError, JournalLocked, JournalUnreadable, OutcomeUnknown
from portfsm.protocols import LeadingJournal

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm._engine import Engine
    from portfsm._writer import Writer
    from portfsm.protocols import Journal

__all__ = ["Lead", "check_leading", "keep_leading", "take_lead"]

RETRY_S = 0.2
"""How often whoever waits looks whether the lead is free."""
_SURE_NS = 450_000_000
"""Nanoseconds of certainty a second of the lease: signs come each third of it, and etcd may grant little more than half of it."""


def check_leading(role: object, after_reboot: object, journal: Journal) -> None:
    """Raise `InvalidValue` for what is no role or no way after a reboot, and for trust in the clocks of several machines."""
    if after_reboot not in ("restart", "remaining"):
        raise InvalidValue(f'after_reboot is "restart" or "remaining", not {after_reboot!r}', name="after_reboot", value=after_reboot)
    if role not in ("lead", "lead-or-wait"):
        raise InvalidValue(f'role is "lead" or "lead-or-wait", not {role!r}', name="role", value=role)
    if after_reboot == "remaining" and isinstance(journal, LeadingJournal):
        raise InvalidValue(
            'after_reboot="remaining" goes by the wall clock, and machines that share a journal have one each: leave it out, '
            "so that every hold starts over in full when another machine takes the lead",
            name="after_reboot", value=after_reboot,
        )  # fmt: skip


async def take_lead(writer: Writer, open_journal: Callable[[], int], *, wait: bool) -> int:
    """Open the journal and return the epoch; with `wait`, as soon as nobody else has it open.

    While it waits, a server that cannot be reached for a time is waited for as well: it may be failing over, too.
    """
    leader: object = None
    told = ""
    while True:
        try:
            return await writer.call(open_journal)
        except JournalLocked as error:
            if not wait:
                raise
            if error.holder != leader or told:
                warn("standing_by", path=error.path, leader=error.holder)
            leader, told = error.holder, ""
        except JournalUnreadable as error:
            if leader is None:
                raise
            if not told:
                warn("standing_by", path=error.path, error=str(error))
            told = str(error)
        await anyio.sleep(RETRY_S)


class Lead:
    """Whether what this manager is about to say is still so: another may lead by now, and have given the port away."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._journal = engine.journal if isinstance(engine.journal, LeadingJournal) else None

    @property
    def is_shared(self) -> bool:
        """Others may take the lead."""
        return self._journal is not None

    @property
    def is_sure(self) -> bool:
        """Nobody else can lead: the last sign of life is young enough, by a clock that counts suspended time."""
        if self._journal is None:
            return True
        return self._engine.clock.boot_ns() - self._engine.writer.signed_ns < self._journal.lease_s * _SURE_NS

    async def settle(self, seq: int) -> None:
        """Return when the event `seq` is durable and nobody else leads: at once what is known to be so, else when the journal was asked.

        Raises what stopped the writer, `Fenced` when another leads, `OutcomeUnknown` when it does and the event was recorded before,
        `JournalUnreadable` when nobody answers.
        """
        writer = self._engine.writer
        recorded = seq > writer.durable_seq
        if recorded:
            await writer.durable(seq)
        elif self.is_sure:
            await cancel_shielded_checkpoint()
        while not self.is_sure:
            try:
                await self._confirm()
            except Fenced as error:
                raise (_too_late(error, seq) if recorded else error) from None

    async def _confirm(self) -> None:
        """Ask the journal, once for all who wait."""
        self._engine.check_open()
        writer = self._engine.writer
        try:
            await writer.call(self._sign)
        except (Fenced, OutcomeUnknown) as error:
            _stop(writer, error)
            raise
        writer.check()

    def _sign(self) -> None:
        """In the writer's thread."""
        if self._journal is not None and not self.is_sure:
            asked_s, asked_ns = time.monotonic(), self._engine.clock.boot_ns()
            self._journal.renew()
            self._engine.writer.heard(asked_s, asked_ns)


def _too_late(error: Fenced, seq: int) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"what this call asked for was recorded up to event {seq}, and before it could be said another took the lead, which may have "
        f"changed it since: ask the one that leads now ({error})",
        path=error.path, errno=None,
    )  # fmt: skip


async def keep_leading(engine: Engine) -> None:
    """Give a sign of life whenever there was none for a third of the lease. One that fails is tried again until the lease is over."""
    journal, writer = engine.journal, engine.writer
    if not isinstance(journal, LeadingJournal):
        return None
    lease_s = journal.lease_s
    while writer.failure is None:
        idle_s = time.monotonic() - writer.signed_s
        if idle_s < lease_s / 3:
            await anyio.sleep(lease_s / 3 - idle_s)
            continue
        asked_s, asked_ns = time.monotonic(), engine.clock.boot_ns()
        try:
            await writer.call(journal.renew)
        except JournalError as error:
            if isinstance(error, Fenced | OutcomeUnknown) or idle_s > lease_s:
                return _stop(writer, error)
            warn("lease_not_renewed", error=str(error), left_s=round(lease_s - idle_s, 1))
            await anyio.sleep(lease_s / 10)
        else:
            writer.heard(asked_s, asked_ns)
    return None


def _stop(writer: Writer, error: JournalError) -> None:
    if writer.failure is None:
        writer.fail(error)
