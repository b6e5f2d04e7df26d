"""The simulated disk under a machine that can stop at any call, and be looked at without being disturbed."""

from __future__ import annotations

import errno
import os
from collections import Counter
from contextlib import contextmanager

from portfsm.errors import JournalUnreadable
from portfsm.journals._reader import open_directory, read_directory
from portfsm.testing import SimulatedDisk

PATH = "/log"
_WORDS = {
    ("fsync", errno.EIO): "sync failed",
    ("fdatasync", errno.EIO): "sync failed",
    ("pwrite", errno.EIO): "write failed",
    ("pwrite", errno.EINTR): "write was interrupted",
}


class PowerCut(BaseException):
    """The machine stopped. No handler in the journal may stop it from having stopped."""


class PowerDisk(SimulatedDisk):
    cut_in = -1
    """Calls until the machine stops; -1 for never."""
    is_cut = False
    cut_how = (True, 0)
    """Whether it stops for lack of power, and the seed of what that leaves."""
    looking = False
    provoked = False
    """A fault was asked for since the disk was last whole: errors are no surprise."""

    def __init__(self, hits=None):
        super().__init__()
        self.hits = hits if hits is not None else Counter()

    def _called(self, name, *arguments):
        if self.looking:
            return os.path.normpath("/" + arguments[0]) if isinstance(arguments[0], str) else ""
        if name == "close" and (self.is_cut or self.cut_in == 0):
            return ""  # the garbage collector closes too, at its own time
        if self.is_cut or self.cut_in == 0:
            self.is_cut = True
            raise PowerCut
        self.cut_in -= self.cut_in > 0
        return self._note(name, arguments)

    def _note(self, name, arguments):
        """Make the call, and count what happened."""
        if name == "rename" and arguments[1].endswith(".jsonl"):
            self.hits["new segment"] += 1
        try:
            found = super()._called(name, *arguments)
        except OSError as error:
            self.hits[_WORDS.get((name, error.errno), "another call failed")] += 1
            raise
        self.hits["write was short"] += found == "short"
        return found

    def _forget_unlinked(self):
        if not self.looking:
            super()._forget_unlinked()

    @contextmanager
    def aside(self):
        """Calls inside count for no fault, no cut and no trace."""
        self.looking = True
        try:
            yield
        finally:
            self.looking = False

    def without_power(self, seed):
        """What a power cut leaves."""
        after = PowerDisk()
        after.__dict__.update(self.crashed(seed).__dict__)
        after.provoked, after.hits = after.capacity is not None, self.hits
        return after

    def after_kill(self):
        """What the death of every process leaves."""
        self.trace.clear()
        after = self.killed()
        after.cut_in, after.is_cut, after.provoked, after.hits = -1, False, after.capacity is not None, self.hits
        return after

    def mend(self):
        """No fault and room enough from now on."""
        self.heal()
        self.capacity = None
        self.provoked = False

    def lose_locks(self):
        """As when the directory is on a file system that only pretends to lock."""
        self._locks.clear()

    def used(self):
        return sum(len(file.cache) for file in self._files.values())

    def events(self):
        """The log as a reader finds it."""
        with self.aside():
            try:
                directory = open_directory(PATH, self)
            except JournalUnreadable:  # nothing of it lasted
                return []
            return list(read_directory(directory))
