"""Where events are kept. Each module implements `portfsm.protocols.Journal` for one kind of place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from portfsm.errors import InvalidValue
from portfsm.journals._near import NoPast, Past
from portfsm.journals._reader import open_directory, read_directory
from portfsm.journals.file import FileJournal
from portfsm.journals.memory import MemoryJournal
from portfsm.protocols import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm._ledger import Ledger
    from portfsm.events import Event
    from portfsm.protocols import Clock

__all__ = ["FileJournal", "MemoryJournal", "Past", "near", "open_journal", "past_of", "read_journal"]

Target = str | os.PathLike[str] | Journal
_NOT_YET = ("postgresql:", "postgres:", "etcd:")


def open_journal(target: Target, *, clock: Clock | None = None) -> Journal:
    """The journal that `target` names, not yet open: a directory, `"memory:"`, or a journal, which is returned as it is.

    Raises `InvalidValue`.
    """
    if isinstance(target, Journal) and not isinstance(target, type):
        return target
    path = _path(target)
    return MemoryJournal() if path == "memory:" else FileJournal(path, clock=clock)


def read_journal(target: Target, *, after: int = 0) -> Iterator[Event]:
    """The events of a log with `seq > after`, verified while they are read. Takes no lock and changes nothing.

    Ends quietly at a torn tail, and at what a live writer is writing just now. Raises `JournalCorrupt` at any other
    damage, `JournalUnreadable` when `target` holds no log, `JournalTooNew`, `InvalidValue`.
    """
    if type(after) is not int or after < 0:
        raise InvalidValue(f"after must be the seq of an event, or 0 for all, not {after!r}", name="after", value=after)
    if isinstance(target, FileJournal):
        return read_directory(open_directory(target.path), after)
    if isinstance(target, Journal) and not isinstance(target, type):
        return target.read(after)
    path = _path(target)
    if path == "memory:":
        raise InvalidValue("memory: names a new, empty journal each time: pass the MemoryJournal itself", name="target", value=path)
    return read_directory(open_directory(path), after)


def near(target: Target, *, seq: int | None = None, ts: int | None = None) -> tuple[Ledger, Iterator[Event]]:
    """A state of the log that is not after the moment (a `seq`, or a `ts` in UTC ns; the end without either), and the events after it.

    The state is the nearest snapshot, so that a question about any moment of a long log reads little of it: from there on everything is
    verified, before it only how segments follow on each other. Raises as `read_journal`.
    """
    past = past_of(target)
    ledger = past.nearest(seq=seq, ts=ts)
    return ledger, past.events(ledger.seq)


def past_of(target: Target) -> Past:
    """The states that were kept beside a log, with the events after each. Raises as `read_journal`."""
    if isinstance(target, FileJournal):
        return Past(open_directory(target.path))
    if (isinstance(target, Journal) and not isinstance(target, type)) or (isinstance(target, str) and "://" in target):
        return NoPast(lambda after: read_journal(target, after=after))
    return Past(open_directory(_path(target)))


def _path(target: object) -> str:
    if not isinstance(target, str | os.PathLike):
        raise InvalidValue(f"a log is a directory, a URL or a Journal, not {target!r}", name="target", value=target)
    path = os.fspath(target)
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidValue(f"a log needs the path of a directory, not {path!r}", name="target", value=path)
    if path.startswith(_NOT_YET):
        scheme = path.partition(":")[0]
        raise InvalidValue(f"{scheme} journals are not available in this version: give a directory", name="target", value=scheme)
    if "://" in path:
        scheme = path.partition("://")[0]  # alone: the rest may hold a password
        raise InvalidValue(f"{scheme}:// is no kind of journal: give a directory", name="target", value=scheme)
    return path
