"""The embedded journal: a directory of text segments on a local disk, one writer, any number of readers.

    ports-log/
        LOCK                            who writes, and its epoch
        00000000000000000001.jsonl      a segment, named by its first seq; `jq`, `grep` and `tail -f` read it as it is
        00000000000000104223.snap.jsonl a copy of the state: a cache
        torn/                           what was cut off after crashes
        reserve                         room kept back for a full disk

Opening reads and decides; it changes nothing but LOCK. The first append mends what a crash left (`_mend`), begins a
new segment and then writes. A segment is written by one opening only and is sealed at its end. When `append` returns,
the events are synced; when a sync fails the object is spent (`_writer` says why).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from itertools import chain
from typing import TYPE_CHECKING

import structlog

from portfsm._codec import BATCH_BYTES, FMT, SCHEMA, ClockMark, Header
from portfsm.errors import InternalError, InvalidValue, JournalError, JournalFull, JournalLocked, JournalUnreadable, OutcomeUnknown
from portfsm.journals import _snapshots
from portfsm.journals._disk import Directory, Disk, RealDisk, is_full, unreadable
from portfsm.journals._lock import Lock
from portfsm.journals._mend import mend, sentence, tidy
from portfsm.journals._reserve import Reserve
from portfsm.journals._segments import Joint, Standing, read_standing, stand, survey
from portfsm.journals._writer import Writer, no_room, outcome_unknown
from portfsm.values import Head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from portfsm.events import Event
    from portfsm.protocols import Clock

__all__ = ["FileJournal"]

_CLOCK_STEP_NS = 100_000_000
_log = structlog.get_logger()


class FileJournal:
    """A log in the directory `path`, which is made when it is missing.

    `clock` lets segments pair the wall clock with the boot clock. `allow_network` permits a network file system, where
    locks and syncs may not hold what they promise. A segment is ended when it is `segment_bytes` long; `reserve_bytes` is
    the room kept back for a full disk. `disk` is for tests (`portfsm.testing.SimulatedDisk`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        disk: Disk | None = None,
        clock: Clock | None = None,
        allow_network: bool = False,
        segment_bytes: int = 16 << 20,
        reserve_bytes: int = 1 << 20,
    ) -> None:
        for name, value, least in (("segment_bytes", segment_bytes, 1), ("reserve_bytes", reserve_bytes, 0)):
            if type(value) is not int or value < least:
                raise InvalidValue(f"{name} must be a whole number of at least {least}, not {value!r}", name=name, value=value)
        self.path = os.fspath(path) if isinstance(path, str | os.PathLike) else path
        if not isinstance(self.path, str) or not self.path or "\0" in self.path:
            raise InvalidValue(f"a log needs the path of a directory, not {self.path!r}", name="path", value=self.path)
        self._disk: Disk = disk or RealDisk()
        self._clock = clock
        self._allow_network = allow_network
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._log_id = ""
        self._lock: Lock | None = None
        self._forget()

    def _forget(self) -> None:
        """What belongs to one opening."""
        self._pid = 0
        self._epoch = 0
        self._standing = Standing()
        """What this opening found."""
        self._joint = Joint()
        """Where the next segment goes on."""
        self._mended = False
        self._writer: Writer | None = None
        self._stopped: JournalError | None = None
        self._clock_offset: int | None = None
        self._recovered = ""
        self._directory = Directory(self._disk, self.path)
        self._reserve = Reserve(self._directory, self._reserve_bytes)

    # ---- what it is ---------------------------------------------------------------------------------------

    @property
    def log_id(self) -> str:
        """Names this log for ever; known after `open`."""
        return self._log_id

    @property
    def full(self) -> bool:
        """The disk is full and the last appends lived on the reserve; an append of no events looks whether it still is."""
        return self._reserve.full

    @property
    def recovered(self) -> str:
        """What this opening had to mend, or will mend with the first append; empty when nothing."""
        return self._recovered

    def head(self) -> Head:
        """Names the whole history up to the last durable event.

        The digest is the SHA-256 of the segment that holds that event, from its start to the end of the event's line; the
        segment's header links to all earlier ones.
        """
        writer = self._writer
        return Head(self._log_id, *(writer.head if writer is not None and writer.count else self._joint.head))

    # ---- opening --------------------------------------------------------------------------------------------

    def open(self, holder: str) -> int:
        """Lock the log, check how its segments follow on each other and what the last one ends in; return the new epoch.

        Raises `JournalLocked`, `JournalCorrupt`, `JournalTooNew`, `JournalUnreadable`, `JournalFull`.
        """
        if self._lock is not None:
            raise JournalLocked(f"this object has {self.path} open already: close it first", path=self.path, pid=os.getpid(), holder=holder)
        self._forget()
        with contextlib.ExitStack() as undo:
            self._hold_directory()
            undo.callback(self._directory.let_go)
            lock = Lock(self._directory)
            lock.acquire()
            undo.callback(lock.release)
            try:
                self._look()
                self._epoch = 1 + max([lock.last_epoch, *(segment.header.epoch for segment in self._standing.segments[-1:])])
                lock.claim(self._epoch, holder, self._clock.boot_id() if self._clock else "")
            except OSError as error:
                if is_full(error):
                    raise no_room(self.path) from error
                raise unreadable(self.path, error, "read the log") from error
            undo.pop_all()
        self._lock = lock
        self._pid = os.getpid()
        if self._recovered:
            _log.warning("journal.unclean", path=self.path, found=self._recovered)
        return self._epoch

    def _hold_directory(self) -> None:
        try:
            self._make_directory()
            network = "" if self._allow_network else self._disk.is_network(self.path)
            self._directory.hold()
        except OSError as error:
            if is_full(error):
                raise no_room(self.path) from error
            raise unreadable(self.path, error, "use this directory") from error
        if network:
            self._directory.let_go()
            raise JournalUnreadable(
                f"{self.path} lies on a network file system ({network}), where locks and syncs may not hold: "
                "use a local disk, a shared journal (postgresql://, etcd://), or allow_network=True at your own risk",
                path=self.path,
                errno=None,
            )

    def _make_directory(self) -> None:
        try:
            info = self._disk.stat(self.path.rstrip("/") + "/.")  # through a link to a directory, which is a common set-up
        except FileNotFoundError:
            return self._disk.mkdir(self.path)
        if not stat.S_ISDIR(info.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is not a directory", self.path)
        return None

    def _look(self) -> None:
        """Learn where the log stands, changing nothing."""
        standing = self._standing = stand(self._directory, survey(self._directory))
        self._joint = standing.joint
        self._recovered = sentence(standing)
        self._log_id = standing.segments[-1].header.log if standing.segments else os.urandom(16).hex()

    # ---- reading -----------------------------------------------------------------------------------------------

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events with `seq > after`, every byte proven. Between `open` and the first `append`."""
        self._check_usable()
        if self._mended:
            raise JournalError("read() belongs between open and the first append: use read_journal(path)", path=self.path)
        return chain.from_iterable(self._read(after))

    def _read(self, after: int) -> Iterator[list[Event]]:
        try:
            yield from read_standing(self._directory, self._standing, after=after)
        except OSError as error:
            raise unreadable(self.path, error, "read the log") from error

    # ---- writing -----------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event]) -> None:
        """Make the events durable, all or none, then return. With no events: only see whether there is room again.

        Raises `Fenced` and `JournalFull` (nothing was written; the latter may be tried again), `OutcomeUnknown` (every
        later append raises it too), `JournalError` when closed or used in a forked process.
        """
        lock = self._check_usable()
        if not events:
            return self._reserve.take() if self._reserve.full else None
        last = self.head_seq
        if events[0].seq != last + 1 or events[-1].seq != last + len(events):
            raise InternalError(f"events {events[0].seq}..{events[-1].seq} do not follow {last}: nothing was written")
        # Stays when anything unforeseen leaves the block below, a KeyboardInterrupt for one.
        self._stopped = OutcomeUnknown(f"{self.path}: an append was interrupted: open the log again", path=self.path, errno=None)
        try:
            self._append(lock, events)
        except JournalFull:
            self._stopped = None
            raise
        except JournalError as error:
            self._stopped = error
            _log.error("journal.stopped", path=self.path, why=str(error))
            raise
        self._stopped = None
        if self._reserve.full:
            self._reserve.take_now_and_then()
        return None

    @property
    def head_seq(self) -> int:
        """`seq` of the last durable event."""
        return self._writer.last_seq if self._writer is not None else self._joint.base

    def _append(self, lock: Lock, events: Sequence[Event]) -> None:
        writer = self._writer
        if writer is not None and writer.size >= self._segment_bytes:
            self._end_segment(writer)
            writer = None
        if writer is None:
            writer = self._begin_segment(lock, BATCH_BYTES)
        too_long = writer.append(events, self._clock_mark(events[0].ts))
        if too_long:
            self._end_segment(writer)
            self._begin_segment(lock, too_long + 1024).append(events, None)

    def _end_segment(self, writer: Writer) -> None:
        """Seal it; the next one follows. One without events is replaced instead."""
        if writer.count:
            writer.seal()
            self._joint = Joint.after(writer.header, writer.head)
        writer.close()
        self._writer = None

    def _begin_segment(self, lock: Lock, batch_bytes: int) -> Writer:
        try:
            lock.check()  # whoever was superseded must not mend what another writes
            self._mend_once()
            writer = Writer(self._directory, lock, self._reserve, self._header(batch_bytes))
            self._reserve.make_room_for(writer.create)
        except OSError as error:
            if is_full(error):
                raise no_room(self.path) from error
            raise outcome_unknown(self.path, error, "beginning a new segment") from error
        self._writer = writer
        return writer

    def _mend_once(self) -> None:
        if self._mended:
            return
        tidy(self._directory, self._joint.base)
        self._reserve.make_room_for(lambda: mend(self._directory, self._standing, self._reserve, self._epoch))
        self._mended = True
        if not self._reserve.full:
            self._reserve.take()

    def _header(self, batch_bytes: int) -> Header:
        boot_id, wall, boot = "", 0, 0
        if self._clock is not None:
            boot_id, wall, boot = self._clock.boot_id(), self._clock.wall_ns(), self._clock.boot_ns()
            self._clock_offset = wall - boot
        return Header(
            fmt=FMT,
            log=self._log_id,
            no=self._joint.no,
            base=self._joint.base,
            epoch=self._epoch,
            prev=self._joint.prev,
            schema=SCHEMA,
            batch=batch_bytes,
            boot_id=boot_id,
            wall_ns=wall,
            boot_ns=boot,
        )

    def _clock_mark(self, ts: int) -> ClockMark | None:
        """A line that notes a step of the wall clock, when there was one since the last such line or header."""
        if self._clock is None or self._clock_offset is None:
            return None
        wall, boot = self._clock.wall_ns(), self._clock.boot_ns()
        if abs(wall - boot - self._clock_offset) <= _CLOCK_STEP_NS:
            return None
        self._clock_offset = wall - boot
        return ClockMark(ts, wall, boot)

    def _check_usable(self) -> Lock:
        if self._lock is None:
            raise JournalError(f"{self.path} is not open: open it first", path=self.path)
        if os.getpid() != self._pid:
            raise JournalError(f"{self.path} was opened by process {self._pid}: a forked process must open its own", path=self.path)
        if self._stopped is not None:
            raise self._stopped
        if self._directory.sync_failed:
            raise OutcomeUnknown(f"{self.path}: a sync of the directory failed: open the log again", path=self.path, errno=None)
        return self._lock

    # ---- snapshots ----------------------------------------------------------------------------------------------

    def load_snapshot(self) -> tuple[int, list[bytes]] | None:
        """The newest intact snapshot no newer than the log; None when there is none."""
        self._check_usable()
        try:
            return _snapshots.load(self._directory, self._log_id, self.head_seq)
        except OSError as error:
            raise unreadable(self.path, error, "list the log") from error

    def save_snapshot(self, seq: int, lines: Iterable[bytes]) -> None:
        """Keep the state as of `seq`. Not on a full disk, where the room is for events, nor after a failure. Failing is only logged."""
        if self._reserve.full or self._stopped is not None or self._directory.sync_failed:
            return
        self._check_usable()
        try:
            _snapshots.save(self._directory, self._log_id, seq, lines)
        except OSError as error:
            _log.warning("snapshot.failed", path=self.path, seq=seq, why=str(error), effect="the next opening reads more of the log")

    # ---- closing --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Seal the segment and let go. May be called twice; never raises because of an earlier failure."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        writer = self._writer
        if writer is not None:
            if writer.count:
                self._joint = Joint.after(writer.header, writer.head)
            if writer.count and self._stopped is None and os.getpid() == self._pid:
                self._seal_at_close(writer)
            self._writer = None
            writer.close()
        self._directory.let_go()
        lock.release()

    def _seal_at_close(self, writer: Writer) -> None:
        try:
            writer.seal()
        except JournalError as error:
            _log.warning("journal.unsealed", path=self.path, why=str(error), effect="the next opening mends the last segment")
