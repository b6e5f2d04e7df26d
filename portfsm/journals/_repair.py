"""What can be saved of a damaged log: everything before the first damage. For `portfsm repair`, after a person asked for it.

Opening never does this. The originals are kept in `torn/`; the order of the steps is such that a crash between two
of them leaves a log that is still refused, and can be repaired again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from portfsm._recovery import Place, events_in
from portfsm._scanner import Position, Scanner
from portfsm.errors import JournalCorrupt, OutcomeUnknown
from portfsm.journals._disk import Directory, is_full, unreadable
from portfsm.journals._lock import Lock
from portfsm.journals._mend import keep_torn
from portfsm.journals._reader import open_directory
from portfsm.journals._segments import Segment, corrupt, links, names_in, read_ends, refuse_damage
from portfsm.journals._writer import no_room

if TYPE_CHECKING:
    from portfsm.journals._disk import Disk

__all__ = ["RepairPlan", "repair"]


@attrs.frozen
class RepairPlan:
    """What a repair drops. `damage` is None when there is nothing to repair."""

    path: str
    damage: JournalCorrupt | None
    last_seq: int
    """The last event that stays."""
    cut_segment: str | None
    """The segment that is cut at `cut_offset`; None when whole segments go and none is cut."""
    cut_offset: int
    dropped_segments: tuple[str, ...]
    """Segments that go as a whole."""
    dropped_bytes: int
    dropped_events: int
    """How many events can still be read in what goes."""
    kept_in: tuple[str, ...] = ()
    """Where the originals are now; empty for a plan that was not carried out."""


def repair(path: str, *, apply: bool = False, disk: Disk | None = None) -> RepairPlan:
    """Plan a repair, and carry it out if `apply`. A torn tail is none: the next opening mends it.

    Raises `JournalLocked` while a writer has the log, `JournalUnreadable`, `JournalFull`, `JournalTooNew`.
    """
    directory = open_directory(path, disk)
    try:
        if not apply:
            return _plan(directory)
        with contextlib.ExitStack() as stack:
            directory.hold()
            stack.callback(directory.let_go)
            lock = Lock(directory)
            lock.acquire()
            stack.callback(lock.release)
            plan = _plan(directory)
            return _carry_out(directory, lock, plan) if plan.damage is not None else plan
    except OSError as error:
        if is_full(error):
            raise no_room(path) from error
        if directory.sync_failed:
            raise OutcomeUnknown(f"{path}: a sync failed during the repair: run it again", path=path, errno=error.errno) from error
        raise unreadable(path, error, "repair it") from error


def _plan(directory: Directory) -> RepairPlan:
    names = names_in(directory)
    before: Segment | None = None
    last_seq = 0
    for number, name in enumerate(names):
        place = Place.LAST if number == len(names) - 1 else Place.EARLIER
        cut: Position | None = None
        try:
            segment = _linked(directory, name, before)
            cut, damage = _first_damage(directory, segment, place)
        except JournalCorrupt as error:
            damage = error
        else:
            if damage is None:
                before, last_seq = segment, cut.next_seq - 1
                continue
        return _plan_from(directory, damage, names[number:], cut, last_seq)
    return RepairPlan(directory.path, None, last_seq, None, 0, (), 0, 0)


def _linked(directory: Directory, name: str, before: Segment | None) -> Segment:
    segment = read_ends(directory, name)
    broken = links(before, segment)
    if broken:
        raise corrupt(directory.path, name, 0, segment.header.base + 1, broken)
    return segment


def _first_damage(directory: Directory, segment: Segment, place: Place) -> tuple[Position, JournalCorrupt | None]:
    scanner = Scanner(directory.at(segment.name))
    size = 0
    for chunk in directory.chunks(segment.name):
        scanner.feed(chunk)
        size += len(chunk)
    scanner.finish()
    try:
        refuse_damage(directory, segment.name, scanner, size, place)
    except JournalCorrupt as error:
        return scanner.good, error
    return scanner.good, None


def _plan_from(directory: Directory, damage: JournalCorrupt, names: list[str], cut: Position | None, last_seq: int) -> RepairPlan:
    """Drop what follows the first damage: the rest of its segment (all of it when `cut` is None) and all later segments."""
    whole = tuple(names if cut is None else names[1:])
    offset = 0 if cut is None else cut.offset
    rest = [] if cut is None else [directory.bytes_of(names[0], offset, directory.size(names[0]))]
    rest += [directory.bytes_of(name, 0, directory.size(name)) for name in whole]
    return RepairPlan(
        directory.path,
        damage,
        last_seq if cut is None else cut.next_seq - 1,
        None if cut is None else names[0],
        offset,
        whole,
        sum(map(len, rest)),
        sum(map(events_in, rest)),
    )


def _carry_out(directory: Directory, lock: Lock, plan: RepairPlan) -> RepairPlan:
    epoch = 1 + max([lock.last_epoch, *_epochs(directory)])
    lock.claim(epoch, "portfsm repair", "")  # what is dropped may have had the highest epoch
    kept: list[str] = []
    for name in reversed(plan.dropped_segments):
        kept.append(keep_torn(directory, name, directory.bytes_of(name, 0, directory.size(name)), f"repair-{epoch}"))
        directory.disk.unlink(directory.at(name))
        directory.sync()
    if plan.cut_segment is not None:
        name = plan.cut_segment
        kept.append(keep_torn(directory, name, directory.bytes_of(name, 0, directory.size(name)), f"repair-{epoch}"))
        directory.publish(name, [directory.bytes_of(name, 0, plan.cut_offset)])
    return attrs.evolve(plan, kept_in=tuple(f"{directory.path}/{place}" for place in kept))


def _epochs(directory: Directory) -> list[int]:
    """The epochs in those headers that can be read."""
    found = []
    for name in names_in(directory):
        with contextlib.suppress(JournalCorrupt):
            found.append(read_ends(directory, name).header.epoch)
    return found
