"""What a journal may offer beyond keeping events: a copy of the state to open from, and word that its place is full.

The copy is disposable. One that cannot be read is ignored, one that cannot be written is missed by nobody
but the next opening, which then reads more of the log.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from portfsm._dump import dump, load
from portfsm._ledger import Ledger
from portfsm._log import warn
from portfsm._replay import replay
from portfsm.protocols import CachingJournal, LeadingJournal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from portfsm._writer import Writer
    from portfsm.protocols import Journal

__all__ = ["Cache"]

SNAPSHOT_EVERY = 250_000
SNAPSHOT_AT_CLOSE = 10_000
"""A log shorter than this is read faster than a snapshot is worth."""


class Cache:
    """The snapshots of one journal, if it keeps any. Its methods are called in the writer's thread, its properties on the loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._caching = journal if isinstance(journal, CachingJournal) else None
        self._seq = 0
        self._seeking = False

    @property
    def full(self) -> bool:
        """The journal's place is full."""
        return self._caching is not None and self._caching.full

    @property
    def recovered(self) -> str:
        """What the opening had to mend."""
        return self._caching.recovered if self._caching is not None else ""

    def wanted(self, seq: int, *, closing: bool = False) -> bool:
        """Whether a snapshot as of `seq` is worth its time."""
        return self._caching is not None and seq - self._seq >= (SNAPSHOT_AT_CLOSE if closing else SNAPSHOT_EVERY)

    def restore(self) -> Ledger:
        """The newest snapshot, then the events after it."""
        cached = self._caching.load_snapshot() if self._caching is not None else None
        if cached is not None:
            ledger = Ledger()
            try:
                load(ledger, _with_signs_of_life(self._journal, cached[1]))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                warn("snapshot_ignored", seq=cached[0], error=str(error))
            else:
                self._seq = ledger.seq
                return replay(self._journal.read(ledger.seq), onto=ledger)
        return replay(self._journal.read(0))

    def save(self, ledger: Ledger) -> None:
        """Keep a snapshot. The ledger must not change meanwhile."""
        self._seq = ledger.seq
        try:
            if self._caching is not None:
                self._caching.save_snapshot(ledger.seq, dump(ledger))
        except BaseException as error:  # noqa: BLE001  (whatever a driver raises, the thread must live)
            warn("snapshot_failed", seq=ledger.seq, error=repr(error))

    def seek_room(self, writer: Writer) -> None:
        """On the loop: let a full journal see whether somebody made room, so that a later call is let through."""
        if not self._seeking:
            self._seeking = True
            writer.between_batches(self._look_for_room)

    def _look_for_room(self) -> None:
        with suppress(Exception):  # an append of something will tell
            self._journal.append(())
        self._seeking = False


def _with_signs_of_life(journal: Journal, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The same lines: to load the state of many nodes may take longer than a lead lasts that nobody renews."""
    if not isinstance(journal, LeadingJournal):
        yield from lines
        return
    signed_s = time.monotonic()
    for line in lines:
        if time.monotonic() - signed_s >= journal.lease_s / 3:
            journal.renew()
            signed_s = time.monotonic()
        yield line
