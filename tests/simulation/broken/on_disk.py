"""What a disk is trusted with too much."""

from __future__ import annotations

import os
from unittest import mock

import portfsm.journals._mend
import portfsm.testing
from portfsm import _codec, _writer
from portfsm.errors import OutcomeUnknown
from portfsm.journals import FileJournal, _disk, _lock
from portfsm.journals import _writer as _segment
from portfsm.journals._segments import Joint, Standing

from .registry import breaks, nothing, replaced


@breaks
def no_sync():
    """Events are acknowledged when they are in the kernel's cache."""
    return mock.patch.object(portfsm.testing.SimulatedDisk, "fdatasync", nothing)


@breaks
def no_directory_sync():
    """A new segment's name may be forgotten."""
    return mock.patch.object(_disk.Directory, "sync", nothing)


@breaks
def no_rewrite_at_opening():
    """What a crash or a failed sync left in the cache is sealed as it is, and believed."""

    def seal_only(directory, segment, ending, reserve):
        fd = directory.disk.open(directory.at(segment.name), os.O_RDWR)
        pieces = [*portfsm.journals._mend._good(directory, segment, ending), portfsm.journals._mend._seal_of(segment, ending)]
        directory.disk.ftruncate(fd, ending.good.offset)
        _disk.write_all(directory.disk, fd, b"".join(pieces)[ending.good.offset :], ending.good.offset)
        directory.disk.fsync(fd)
        directory.disk.close(fd)

    return mock.patch.object(portfsm.journals._mend, "_seal", seal_only)


@breaks
def no_second_look_at_the_seal():
    """A seal whose sync failed is believed, because the cache still shows it."""
    return mock.patch.object(portfsm.journals._mend, "reaffirm", nothing)


@breaks
def sync_again():
    """A failed sync is tried once more: the kernel calls the lost pages clean, so it succeeds."""

    def make(append_all):
        def again(self, events):
            try:
                append_all(self, events)
            except OutcomeUnknown:
                segment = self._journal._writer
                if segment is None:
                    raise
                self._journal._stopped = None
                segment._disk.fdatasync(segment._fd)
                segment.size = segment._disk.fstat(segment._fd).st_size
                segment.head = (events[-1].seq, segment.head[1])

        return again

    return replaced(_writer.Writer, "_append_all", make)


@breaks
def batches_torn_apart():
    """Each line stands for itself: a crash may keep half of a decision."""

    def make(encode):
        return lambda self, events: b"".join(encode(self, [event]) for event in events)

    return replaced(_codec.Encoder, "encode", make)


@breaks
def too_much_cut_off():
    """At a torn tail the whole segment is given up."""

    def make(look):
        def eager(self):
            look(self)
            found = self._standing
            if found.ending is not None and found.ending.torn_bytes:
                header = found.segments[-1].header
                self._joint = Joint(header.no, header.base, header.prev)
                self._standing = Standing(found.segments[:-1], None, self._joint)

        return eager

    return replaced(FileJournal, "_look", make)


@breaks
def no_epoch_check():
    """A writer that was superseded goes on writing."""
    return mock.patch.object(_lock.Lock, "check", nothing)


@breaks
def no_look_before_writing():
    """A writer notices only behind its write that it was superseded, and takes the write back."""

    def put(self, data):
        self._write(self._fd, data)
        try:
            self._lock.check()
        except BaseException:
            self._disk.ftruncate(self._fd, self.size)
            raise
        self._disk.fdatasync(self._fd)
        self.size += len(data)

    return mock.patch.object(_segment.Writer, "_put", put)
