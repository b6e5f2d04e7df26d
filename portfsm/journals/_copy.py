"""A log moved from one kind of place to another: `portfsm copy`.

Events and epochs stay as they are, and so does the log's name. Between a directory and etcd the files go byte for byte, so the
head is the same at both ends; a database names histories by another digest, so there the events are compared one by one.

What is not finished does not look finished: a directory is filled under another name and renamed when it is proven, etcd
carries a mark that keeps every opening out, a database commits all or nothing. Copying again starts over.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from portfsm.errors import InvalidValue, JournalCorrupt, JournalFull
from portfsm.journals._copy_source import Files, digest_of, open_source
from portfsm.journals._disk import Directory, RealDisk, is_full, unreadable
from portfsm.journals._inspect import head_in, inspect_in
from portfsm.journals._lock import Lock
from portfsm.journals._reader import read_directory
from portfsm.journals._segments import names_in
from portfsm.journals._urls import is_url, shared_journal, shown

if TYPE_CHECKING:
    from portfsm.journals._copy_source import Source
    from portfsm.values import Head

__all__ = ["Copied", "copy", "prove"]

BUILDING = ".copying"
"""Ends the name of a directory that is not finished."""


@attrs.frozen
class Copied:
    """What was copied, and the names of the history at both ends."""

    source: str
    target: str
    head: Head
    head_there: Head
    closed: bool
    """Its last writer ended the source. Otherwise a controller may still write to it, and what comes is not in the copy."""


def copy(source: str, target: str) -> Copied:
    """Copy the log at `source` (a directory or URL) to `target`, where none is yet.

    Takes no lock on the source: of one that is written to, what is there now is copied. Raises `InvalidValue` when there is something at
    `target`, `JournalCorrupt` when the source is damaged or the copy does not prove (then there is none), `JournalLocked` while
    another copies to the same place or leads there, `JournalUnreadable`, `JournalFull`.
    """
    _check_target(target)
    found = open_source(source)
    there = shared_journal(target).receive(found) if is_url(target) else _to_directory(found, target.rstrip("/") or "/")
    return Copied(found.shown, shown(target), found.head, there, found.closed)


def _check_target(target: str) -> None:
    if not isinstance(target, str) or not target or "\0" in target or target == "memory:":
        raise InvalidValue(f"a log can be copied to a directory or a URL, not to {target!r}", name="target", value=target)


def prove(source: Source, directory: Directory) -> Head:
    """The head of a copy that lies in files, when every byte of it proves. Raises `JournalCorrupt`."""
    report = inspect_in(directory)
    if report.damage:
        raise report.damage[0]
    head = head_in(directory)
    whole = isinstance(source, Files)  # byte for byte
    same = head == source.head if whole else digest_of(read_directory(directory)) == digest_of(source.events())
    if not same:
        message = (
            f"{directory.path}: the copy is not what {source.shown} holds up to @{source.head.seq}: it was changed meanwhile; copy again"
        )
        raise JournalCorrupt(message, path=directory.path, segment=None, offset=None, seq=None)
    return head


# ---------------------------------------------------------------------- to a directory


def _to_directory(source: Source, path: str) -> Head:
    building = Directory(RealDisk(), path + BUILDING)
    try:
        _refuse_taken(path)
        _refuse_strange(building)
        lock = Lock(building)
        lock.acquire()
        try:
            for name in names_in(building):
                building.disk.unlink(building.at(name))
            for name, chunks in source.segments():
                building.publish(name, chunks)
            head = prove(source, building)
            lock.claim(source.epoch, "portfsm copy", "")
        finally:
            lock.release()
            building.let_go()
        _refuse_taken(path)
        _put_in_place(building, path)
    except OSError as error:
        if is_full(error):
            raise JournalFull(f"{path}: no room for the copy: free some space and copy again", path=path) from error
        raise unreadable(path, error, "copy a log there") from error
    return head


def _refuse_taken(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.listdir(path):  # noqa: PTH208
            raise InvalidValue(f"{path} is not empty: name a directory that is, or is not there yet", name="target", value=path)


def _refuse_strange(building: Directory) -> None:
    """Make the place, or find only what an earlier copy left there."""
    try:
        names = set(building.names())
    except FileNotFoundError:
        return building.disk.mkdir(building.path)
    strange = names - {*names_in(building), "LOCK"} - {name for name in names if name.endswith(".jsonl.tmp")}
    if strange:
        message = f"{building.path} is where the copy is made, and holds {min(strange)}: remove it or name another directory"
        raise InvalidValue(message, name="target", value=building.path)
    return None


def _put_in_place(building: Directory, path: str) -> None:
    """The rename replaces an empty directory and nothing else."""
    os.rename(building.path, path)  # noqa: PTH104
    parent = Directory(building.disk, str(Path(path).absolute().parent))
    try:
        parent.sync()
    finally:
        parent.let_go()
