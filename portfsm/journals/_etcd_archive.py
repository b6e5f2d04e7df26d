"""Older segments go to files before they leave etcd: a directory that reads as an ordinary log.

A segment is copied when it is sealed, and read back and proven before anything is deleted. It is deleted when two snapshots
cover it, so that opening needs neither it nor the archive. A directory that does not go on where etcd begins is left alone,
and so are the segments: a full cluster is the lesser evil.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import structlog

from portfsm._recovery import Place
from portfsm.errors import JournalError, JournalFull, JournalUnreadable
from portfsm.journals import _snapshots
from portfsm.journals._disk import Directory, RealDisk, is_full, unreadable
from portfsm.journals._etcd_store import Shipped
from portfsm.journals._etcd_wire import encode
from portfsm.journals._segments import Segment, corrupt, ending_of, links, names_in, read_ends

if TYPE_CHECKING:
    from portfsm._codec import Seal
    from portfsm.journals._etcd_store import Shelf
    from portfsm.journals._etcd_tail import Writes

__all__ = ["Archive"]

_log = structlog.get_logger()


class Archive:
    """The directory that one leader ships to. `segments` are those in etcd that are sealed, oldest first."""

    def __init__(self, shelf: Shelf, path: str) -> None:
        self._shelf = shelf
        self._directory = Directory(RealDisk(), path)
        self._done: set[str] = set()
        """Segments that were read back from here and proven."""

    def ship(self, segments: list[Segment]) -> bool:
        """Copy what is not there yet. Failing is logged and tells nobody else: the events are safe where they are."""
        try:
            for segment in segments:
                if segment.name not in self._done:
                    self._copy(segment)
        except (JournalError, OSError) as error:
            path = self._directory.path
            _log.warning("journal.not_shipped", path=path, why=str(error), effect="the segments stay in etcd, which may fill up")
            return False
        return True

    def _copy(self, segment: Segment) -> None:
        directory = self._directory
        try:
            self._make()
            if segment.name not in names_in(directory):
                self._refuse_gap(segment)
                directory.publish(segment.name, self._shelf.chunks(segment.name))
            self._prove(segment)
        except OSError as error:
            if is_full(error):
                raise JournalFull(f"{directory.path}: no room for older segments: free some space", path=directory.path) from error
            raise unreadable(directory.path, error, "keep older segments there") from error
        self._done.add(segment.name)

    def _make(self) -> None:
        try:
            self._directory.names()
        except FileNotFoundError:
            self._directory.disk.mkdir(self._directory.path)

    def _refuse_gap(self, segment: Segment) -> None:
        names = names_in(self._directory)
        before = read_ends(self._directory, names[-1]) if names else None
        why = links(before, segment)
        if why:
            path = self._directory.path
            raise JournalUnreadable(f"{path}: {segment.name} does not belong behind what is there: {why}", path=path, errno=None)

    def _prove(self, segment: Segment) -> None:
        """Every byte of the file, as it is on the disk: what the seal in etcd says."""
        copied = read_ends(self._directory, segment.name)
        ending_of(self._directory, copied, Place.EARLIER)
        if (copied.size, copied.seal, _sha256(self._directory, segment.name)) != (
            segment.size, segment.seal, _sha256(self._shelf, segment.name),
        ):  # fmt: skip
            raise corrupt(self._directory.path, segment.name, 0, segment.header.base + 1, "it is not what etcd has")

    def drop(self, segments: list[Segment], writes: Writes) -> list[Segment]:
        """Delete from etcd what is here and what two snapshots cover; the segments that stay."""
        seqs = _snapshots.seqs_in(self._shelf)[-2:]
        covered = seqs[0] if len(seqs) > 1 else 0
        revision, kept = 0, list(segments)
        try:
            while kept and kept[0].name in self._done and kept[0].seal is not None and kept[0].seal.last <= covered:
                revision = self._drop(kept[0], kept[0].seal, writes)
                kept.pop(0)
            if revision:
                self._compact(revision)
        except JournalError as error:
            _log.warning(
                "journal.not_dropped", path=self._shelf.path, why=str(error), effect="the segments stay in etcd, which may fill up"
            )
        return kept

    def _drop(self, segment: Segment, seal: Seal, writes: Writes) -> int:
        return writes.ship(segment.name, encode(Shipped.up_to(segment.header.no, seal.last, seal.sha256, self._directory.path)))

    def _compact(self, revision: int) -> None:
        """Let the cluster use the room again. It forgets the history of all keys up to here, as it does by itself where that is set."""
        try:
            self._shelf.client.ask("kv/compaction", {"revision": str(revision)}, dict, patience_s=1.0)
        except JournalError as error:
            _log.info("journal.not_compacted", path=self._shelf.path, why=str(error))


def _sha256(directory: Directory, name: str) -> str:
    digest = hashlib.sha256()
    for chunk in directory.chunks(name):
        digest.update(chunk)
    return digest.hexdigest()
