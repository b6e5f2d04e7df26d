"""Every state that a power cut can leave behind, from the list of what was done to the disk.

A second model beside `SimulatedDisk.crashed`, which draws from seeds: here nothing is drawn. A file keeps what was synced and any
choice of the writes since (a write is as many as it has sectors); a directory any choice of the creations, renames and removals since
its sync. A new sector may also come back as zeros or as garbage: its length was kept and its bytes were not.
"""

from __future__ import annotations

import os
from itertools import combinations, pairwise, product
from typing import NamedTuple

from portfsm.testing.disk import SimulatedDisk

SECTOR = 512
FEW = 2
"""Of so many unsynced steps of one file or directory every choice is tried; of more, those in `choices`."""
LOST, KEPT, HALF, ZEROS, JUNK = "lost", "kept", "half", "zeros", "junk"


class Op(NamedTuple):
    """One step: what kind, of which inode or directory, and the rest."""

    kind: str
    of: int | str
    rest: tuple


class RecordedDisk(SimulatedDisk):
    """Writes down every step that changed something, and what the journal promised between them."""

    def __init__(self):
        super().__init__()
        self.ops = []

    def note(self, kind, of, *rest):
        self.ops.append(Op(kind, of, rest))

    def _inode(self, path):
        folder, name = _split(path)
        return next((entries.now.get(name) for at, entries in self._directories.items() if _plain(at) == folder), None)

    def open(self, path, flags, mode=0o777):
        before = self._inode(path) if flags & os.O_CREAT else 0
        fd = super().open(path, flags, mode)
        if before is None:
            self.note("step", *_split(path), "", self._inode(path))
        return fd

    def mkdir(self, path):
        super().mkdir(path)
        self.note("mkdir", _plain(path))

    def pwrite(self, fd, data, offset):
        data = bytes(data)
        size = super().pwrite(fd, data, offset)
        self.note("write", self._handles[fd].inode, data[:size], offset)
        return size

    def ftruncate(self, fd, size):
        super().ftruncate(fd, size)
        self.note("size", self._handles[fd].inode, size)

    def allocate(self, fd, size):
        super().allocate(fd, size)
        self.note("size", self._handles[fd].inode, size)

    def rename(self, source, target):
        inode = self._inode(source)
        super().rename(source, target)
        self.note("step", *_split(target), _split(source)[1], inode)

    def unlink(self, path):
        super().unlink(path)
        folder, name = _split(path)
        self.note("step", folder, "", name, 0)

    def fsync(self, fd):
        super().fsync(fd)
        handle = self._handles[fd]
        self.note("sync", _plain(handle.path) if handle.inode is None else handle.inode)

    def fdatasync(self, fd):
        self.fsync(fd)


def _plain(path):
    return "/" + os.path.normpath(path).lstrip("/")


def _split(path):
    folder, _, name = _plain(path).rpartition("/")
    return folder, name


class Platter:
    """The disk in the middle of a list of steps: what is safe, and what may still be lost."""

    def __init__(self):
        self.safe, self.writes = {}, {}
        self.names, self.steps = {}, {}

    def take(self, op):
        if op.kind == "mkdir":
            self.names[op.of], self.steps[op.of] = {}, []
        elif op.kind == "step":
            self.steps[op.of].append(op.rest)
        elif op.kind == "write":
            self.writes.setdefault(op.of, []).extend(_sectors(*op.rest))
        elif op.kind == "size":
            self.writes.setdefault(op.of, []).append((None, op.rest[0]))
        elif isinstance(op.of, str):
            self.names[op.of] = _named(self.names[op.of], self.steps[op.of], [KEPT] * len(self.steps[op.of]))
            self.steps[op.of].clear()
        else:
            self.safe[op.of] = self.file(op.of, [KEPT] * len(self.writes.get(op.of, ())))
            self.writes.pop(op.of, None)

    def file(self, inode, fates):
        """What the file holds when its unsynced writes met these fates."""
        data = bytearray(self.safe.get(inode, b""))
        for fate, (piece, place) in zip(fates, self.writes.get(inode, ()), strict=True):
            if fate == LOST:
                continue
            if piece is None:
                data[place:] = bytes(max(0, place - len(data)))
                continue
            if fate != KEPT:  # what a sector held safely before is not lost with what comes behind it
                fresh = max(0, len(self.safe.get(inode, b"")) - place)
                found = piece[:fresh] + _bad(piece[fresh:], fate)
            else:
                found = piece
            data[len(data) :] = bytes(max(0, place - len(data)))
            data[place : place + len(found)] = found
        return bytes(data)

    def states(self):
        """Every tree that the power cut can leave: {folder: {name: bytes}}, as sorted tuples."""
        folders = sorted(self.names)
        for kept in product(*(choices(len(self.steps[folder]), (LOST, KEPT)) for folder in folders)):
            named = [(f, n, i) for f, k in zip(folders, kept, strict=True) for n, i in _named(self.names[f], self.steps[f], k).items()]
            inodes = sorted({inode for _, _, inode in named})
            fates = (choices(len(self.writes.get(inode, ())), (LOST, KEPT, HALF, ZEROS, JUNK)) for inode in inodes)
            for fate in product(*fates):
                data = {inode: self.file(inode, each) for inode, each in zip(inodes, fate, strict=True)}
                yield tuple(folders), tuple(sorted((folder, name, data[inode]) for folder, name, inode in named))


def _bad(new, fate):
    """What came of bytes on their way to a new place."""
    return new[: len(new) // 2] if fate == HALF else (b"\0" if fate == ZEROS else b"\xa5") * len(new)


def _sectors(data, offset):
    """One write as the disk does it: sector by sector, in any order."""
    edges = [offset, *range(offset - offset % SECTOR + SECTOR, offset + len(data), SECTOR), offset + len(data)]
    return [(data[start - offset : stop - offset], start) for start, stop in pairwise(edges)]


def _named(names, steps, fates):
    found = dict(names)
    for (come, gone, inode), fate in zip(steps, fates, strict=True):
        if fate == KEPT:
            found.pop(gone, None)
            if come:
                found[come] = inode
    return found


def choices(count, fates):
    """Fates of `count` steps: all combinations of few; of many: none, all, each alone, all but one, each beginning, with the next one torn."""
    if count <= (FEW if len(fates) > 2 else 3 * FEW):
        return list(product(fates, repeat=count))
    found = {(fate,) * count for fate in fates}
    for at, fate in product(range(count), fates):
        rest = count - at - 1
        found.add((LOST,) * at + (fate,) + (LOST,) * rest)
        found.add((KEPT,) * at + (fate,) + (KEPT,) * rest)
        found.add((KEPT,) * at + (fate,) + (LOST,) * rest)
    for first, second in combinations(range(count), 2):
        found.add(tuple(LOST if at in (first, second) else KEPT for at in range(count)))
    return sorted(found)


def disk_of(state, kind=SimulatedDisk):
    """A disk with this tree, all of it durable."""
    disk = kind()
    folders, files = state
    for folder in folders:
        disk.mkdir(folder)
    for folder, name, data in files:
        fd = disk.open(f"{folder}/{name}", os.O_RDWR | os.O_CREAT)
        disk.pwrite(fd, data, 0)
        disk.fsync(fd)
        disk.close(fd)
    for folder in folders:
        fd = disk.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        disk.fsync(fd)
        disk.close(fd)
    return disk


def crash_states(ops, start=0):
    """(number of steps done, acknowledged, attempted, tree) for every power cut behind step `start`; each once."""
    platter, seen = Platter(), set()
    acknowledged = attempted = 0
    for number, op in enumerate(ops, 1):
        if op.kind == "attempt":
            attempted = op.of
            continue  # nothing of it is on the disk yet
        if op.kind == "acknowledge":
            acknowledged = op.of
        else:
            platter.take(op)
        for state in platter.states() if number > start else ():
            key = acknowledged, attempted, state
            if key not in seen:
                seen.add(key)
                yield number, acknowledged, attempted, state
