"""The journal in etcd, for controllers on several machines: the files of a log in keys, leadership by lease, the fence in each append.

Meant for leadership and a short log: etcd holds 2 GiB unless told otherwise, in memory, too. With `archive=DIR` older segments are
shipped to files before they are deleted; without it the log grows until the quota is near, and then takes releases only.

Opening becomes the leader first and reads then: whoever led before can write no more. The first append seals what that one left.
"""

from __future__ import annotations

import contextlib
import os
import time
from itertools import chain
from typing import TYPE_CHECKING, Any

import structlog

from portfsm._codec import BATCH_BYTES, FMT, SCHEMA, Header, Seal
from portfsm.errors import Fenced, InternalError, InvalidValue, JournalError, JournalFull, JournalLocked, JournalUnreadable, OutcomeUnknown
from portfsm.journals import _snapshots
from portfsm.journals._disk import unreadable
from portfsm.journals._etcd_archive import Archive
from portfsm.journals._etcd_client import NoRoom
from portfsm.journals._etcd_lead import Lead
from portfsm.journals._etcd_place import EtcdPlace
from portfsm.journals._etcd_store import Shelf
from portfsm.journals._etcd_tail import Tail, Writes
from portfsm.journals._etcd_url import Place, parse
from portfsm.journals._etcd_wire import Status
from portfsm.journals._mend import sentence
from portfsm.journals._segments import Joint, Segment, Standing, corrupt, read_standing, stand, survey
from portfsm.values import Head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from portfsm.events import Event
    from portfsm.protocols import Clock

__all__ = ["EtcdJournal"]

_FULL = 0.9
"""Above this share of the quota the log takes no more that grows; what is left is for releases."""
_LEAST_LEASE_S, _MOST_LEASE_S = 2.0, 3600.0
_log = structlog.get_logger()


class EtcdJournal(EtcdPlace):
    """A log in the cluster that `place` names. `EtcdJournal.from_url` is the usual way to one.

    `lease_s`: how long a leader that died is waited for; etcd's least is about 2 s. `clock` lets segments pair the wall clock with the
    boot clock. A segment is ended when it is `segment_bytes` long.
    """

    append_renews = False
    """It proves who leads, and etcd's lease goes on running out."""

    def __init__(self, place: Place, *, clock: Clock | None = None, lease_s: float = 10.0, segment_bytes: int = 4 << 20) -> None:
        if type(lease_s) not in (int, float) or not _LEAST_LEASE_S <= lease_s <= _MOST_LEASE_S:
            raise InvalidValue(f"lease_s must be from 2 to 3600 seconds for etcd, not {lease_s!r}", name="lease_s", value=lease_s)
        if type(segment_bytes) is not int or segment_bytes < 1:
            message = f"segment_bytes must be a whole number of at least 1, not {segment_bytes!r}"
            raise InvalidValue(message, name="segment_bytes", value=segment_bytes)
        super().__init__(place, float(lease_s))
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._client = self._connection()
        self._log_id = ""
        self._lead: Lead | None = None
        self._forget()

    @classmethod
    def from_url(cls, url: str, *, clock: Clock | None = None, lease_s: float = 10.0) -> EtcdJournal:
        """`etcd://[user:password@]host:port[,host:port]/NAME[?archive=DIR&tls=yes&ca=FILE&cert=FILE&key=FILE&quota_mib=2048]`."""
        return cls(parse(url), clock=clock, lease_s=lease_s)

    def _forget(self) -> None:
        """What belongs to one opening."""
        self._pid = 0
        self._epoch = 0
        self._sealed: list[Segment] = []
        """Those in etcd, oldest first."""
        self._standing = Standing()
        """What this opening found."""
        self._joint = Joint()
        """Where the next segment goes on."""
        self._mended = False
        self._tail: Tail | None = None
        self._stopped: JournalError | None = None
        self._full = False
        self._recovered = ""
        self._shelf = Shelf(self._client)
        self._archive = Archive(self._shelf, self.place.archive) if self.place.archive else None

    # ---- what it is ---------------------------------------------------------------------------------------

    @property
    def log_id(self) -> str:
        """Names this log for ever; known after `open`."""
        return self._log_id

    @property
    def full(self) -> bool:
        """Nine tenths of the quota are used; an append of no events looks whether they still are."""
        return self._full

    @property
    def recovered(self) -> str:
        """What this opening had to mend, or will mend with the first append; empty when nothing."""
        return self._recovered

    @property
    def head_seq(self) -> int:
        """`seq` of the last durable event."""
        return self._tail.last_seq if self._tail is not None else self._joint.base

    def head(self) -> Head:
        """Names the whole history up to the last durable event: the same as of a file log that holds the same bytes."""
        tail = self._tail
        return Head(self._log_id, *(tail.head if tail is not None and tail.count else self._joint.head))

    # ---- opening --------------------------------------------------------------------------------------------

    def open(self, holder: str) -> int:
        """Become the leader and see where the log stands; return the new epoch.

        Raises `JournalLocked` while another leads, `JournalCorrupt`, `JournalTooNew`, `JournalUnreadable` (no answer, no right),
        `JournalFull`.
        """
        if self._lead is not None:
            raise JournalLocked(f"this object has {self.path} open already: close it first", path=self.path, pid=os.getpid(), holder=holder)
        self._forget()
        lead = Lead(self._shelf, self.lease_s)
        try:
            lead.acquire(holder)
            self._epoch = lead.epoch
            self._look()
            self._measure()
        except NoRoom as error:
            self._abandon(lead)
            raise JournalFull(str(error), path=self.path) from error
        except OSError as error:
            self._abandon(lead)
            raise unreadable(self.path, error, "read the log") from error
        except BaseException:
            self._abandon(lead)
            raise
        self._lead, self._pid = lead, os.getpid()
        self._writes = Writes(self._shelf, lead)
        if self._recovered:
            _log.warning("journal.unclean", path=self.path, found=self._recovered)
        return self._epoch

    def _abandon(self, lead: Lead) -> None:
        lead.release()
        self._client.close()

    def _look(self) -> None:
        """Learn where the log stands, changing nothing."""
        segments = survey(self._shelf)
        self._log_id = segments[-1].header.log if segments else os.urandom(16).hex()
        for last in segments[-1:]:
            if last.header.epoch >= self._epoch:
                why = f"it is of epoch {last.header.epoch} and the key `epoch` says {self._epoch - 1}: put that key right"
                raise corrupt(self.path, last.name, 0, last.header.base + 1, why)
        standing = self._standing = stand(self._shelf, segments)
        self._sealed = [segment for segment in segments if segment.seal and segment.header.base >= self._shelf.shipped.base]
        self._joint = standing.joint
        self._recovered = sentence(standing)

    def _measure(self) -> None:
        """Learn how full the cluster is. Where it does not say, nothing is new: an append will tell."""
        try:
            status, _ = self._client.ask("maintenance/status", {}, Status, patience_s=1.0)
        except JournalError:
            return
        was, self._full = self._full, status.dbSizeInUse > _FULL * self.place.quota_bytes
        if self._full and not was:
            used, quota = status.dbSizeInUse >> 20, self.place.quota_bytes >> 20
            effect = "ports can be released but not given; ship older events (archive=DIR), or raise the quota and quota_mib"
            _log.warning("journal.nearly_full", path=self.path, why=f"{used} of {quota} MiB are used", effect=effect)

    # ---- reading -----------------------------------------------------------------------------------------------

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events with `seq > after`, every byte proven. Between `open` and the first `append`."""
        self._check_usable()
        if self._mended:
            raise JournalError("read() belongs between open and the first append: use read_journal(url)", path=self.path)
        return chain.from_iterable(self._read(after))

    def _read(self, after: int) -> Iterator[list[Event]]:
        self._shelf.reach(after)
        self._show_life()
        try:
            for events in read_standing(self._shelf, self._standing, after=after):
                self._show_life()
                yield events
        except OSError as error:
            raise unreadable(self.path, error, "read the log") from error

    # ---- leading -----------------------------------------------------------------------------------------------

    def renew(self) -> None:
        """A sign of life. Raises `Fenced` when the lease was lost, `JournalUnreadable` when nobody answered in half of `lease_s`.

        Also `HistoryLost`, when the cluster came back from an older copy.
        """
        lead, until = self._check_usable(), time.monotonic() + self.lease_s / 2
        try:
            lead.renew()
            self._writes.check(patience_s=until - time.monotonic())
        except (Fenced, OutcomeUnknown) as error:
            self._stopped = error
            raise
        self._measure()

    def _show_life(self) -> None:
        """Before and in the midst of other work. Where nobody answers, that work will tell."""
        if self._lead is not None and self._lead.due():
            with contextlib.suppress(JournalUnreadable):
                self.renew()

    # ---- writing -----------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event]) -> None:
        """Make the events durable, all or none, then return. With no events: only see whether there is room again.

        Raises `Fenced` and `JournalFull` (nothing was written; the latter may be tried again), `OutcomeUnknown` (every later append
        raises it too), `JournalError` when closed or used in a forked process.
        """
        self._check_usable()
        if not events:
            return self._measure() if self._full else None
        last = self.head_seq
        if events[0].seq != last + 1 or events[-1].seq != last + len(events):
            raise InternalError(f"events {events[0].seq}..{events[-1].seq} do not follow {last}: nothing was written")
        self._show_life()
        # Stays when anything unforeseen leaves the block below, a KeyboardInterrupt for one.
        self._stopped = OutcomeUnknown(f"{self.path}: an append was interrupted: open the log again", path=self.path, errno=None)
        try:
            self._append(events)
        except JournalFull:
            self._stopped = None
            self._full = True
            raise
        except JournalError as error:
            self._stopped = error
            _log.error("journal.stopped", path=self.path, why=str(error))
            raise
        self._stopped = None
        return None

    def _append(self, events: Sequence[Event]) -> None:
        tail = self._tail
        if tail is not None and tail.size >= self._segment_bytes:
            self._end_segment(tail)
            tail = None
        tail = tail or self._begin_segment(BATCH_BYTES)
        too_long = tail.append(events)
        if too_long:
            self._end_segment(tail)
            self._begin_segment(too_long + 1024).append(events)

    def _end_segment(self, tail: Tail) -> None:
        """Seal it; the next one follows. One without events was never written."""
        if tail.count:
            tail.seal()
            self._joint = Joint.after(tail.header, tail.head)
            self._sealed.append(Segment(tail.name, tail.header, Seal(tail.count, *tail.head), tail.size))
            if self._archive is not None:
                self._archive.ship(self._sealed)
        self._tail = None

    def _begin_segment(self, batch_bytes: int) -> Tail:
        if not self._mended:
            self._mend()
            self._mended = True
        self._tail = Tail(self._writes, self._header(batch_bytes))
        return self._tail

    def _mend(self) -> None:
        """Seal what the last writer left, and put aside what it never finished. Doing it again after a crash does no harm."""
        for seq in _snapshots.seqs_in(self._shelf):
            if seq > self._joint.base:  # of a history that was cut off
                self._writes.remove(_snapshots.name_of(seq))
        ending = self._standing.ending
        if ending is not None:
            last = self._standing.segments[-1]
            seal = self._writes.mend(last, ending)
            if seal is not None:
                self._sealed.append(Segment(last.name, last.header, seal, self._shelf.size(last.name)))

    def _header(self, batch_bytes: int) -> Header:
        clock = self._clock
        times: dict[str, Any] = {"boot_id": clock.boot_id(), "wall_ns": clock.wall_ns(), "boot_ns": clock.boot_ns()} if clock else {}
        return Header(
            fmt=FMT, log=self._log_id, no=self._joint.no, base=self._joint.base, epoch=self._epoch, prev=self._joint.prev, schema=SCHEMA,
            batch=batch_bytes, **times,
        )  # fmt: skip

    def _check_usable(self) -> Lead:
        if self._lead is None:
            raise JournalError(f"{self.path} is not open: open it first", path=self.path)
        if os.getpid() != self._pid:
            raise JournalError(f"{self.path} was opened by process {self._pid}: a forked process must open its own", path=self.path)
        if self._stopped is not None:
            raise self._stopped
        return self._lead

    # ---- snapshots ----------------------------------------------------------------------------------------------

    def load_snapshot(self) -> tuple[int, list[bytes]] | None:
        """The newest intact snapshot no newer than the log; None when there is none."""
        self._check_usable()
        self._show_life()
        return _snapshots.load(self._shelf, self._log_id, self.head_seq)

    def save_snapshot(self, seq: int, lines: Iterable[bytes]) -> None:
        """Keep the state as of `seq` and the one before; then let go of the segments that neither needs, if they were shipped.

        Not after a failure, nor where room is short, unless this is how room is made. Failing is only logged.
        """
        if self._stopped is not None or (self._full and self._archive is None):
            return
        self._check_usable()
        try:
            self._show_life()
            self._writes.publish(_snapshots.name_of(seq), b"".join(_snapshots.render(self._log_id, seq, lines)))
            for old in _snapshots.seqs_in(self._shelf)[:-2]:
                self._writes.remove(_snapshots.name_of(old))
        except JournalError as error:
            _log.warning("snapshot.failed", path=self.path, seq=seq, why=str(error), effect="the next opening reads more of the log")
            return
        if self._archive is not None and self._archive.ship(self._sealed):
            self._sealed = self._archive.drop(self._sealed, self._writes)

    # ---- closing --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Seal the segment and let go. May be called twice; never raises because of an earlier failure."""
        lead, self._lead = self._lead, None
        if lead is None:
            return
        tail, self._tail = self._tail, None
        if tail is not None and tail.count:
            self._joint = Joint.after(tail.header, tail.head)
            if self._stopped is None and os.getpid() == self._pid:
                try:
                    tail.seal()
                except JournalError as error:
                    _log.warning("journal.unsealed", path=self.path, why=str(error), effect="the next opening seals the last segment")
        if os.getpid() == self._pid:
            lead.release()
        self._client.close()
