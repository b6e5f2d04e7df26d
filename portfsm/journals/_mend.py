"""After a crash: make the last segment one that can be believed, before the first new event stands on it.

What a crashed writer wrote may be in the kernel's cache and not on the disk, and a failed sync may have marked it
clean, so that no later sync would write it. Therefore the good bytes are written anew, into a fresh file, synced, and
put in the place of the old one. What is cut off is kept in `torn/`.
"""

from __future__ import annotations

import hashlib
import os
from itertools import chain
from typing import TYPE_CHECKING

from portfsm._codec import Encoder
from portfsm.journals._disk import TEMPORARY, Directory, is_full, shut, write_all
from portfsm.journals._segments import corrupt, seal_at_end
from portfsm.journals._snapshots import remove_newer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.journals._reserve import Reserve
    from portfsm.journals._segments import Ending, Segment, Standing

__all__ = ["TORN", "keep_torn", "mend", "reaffirm", "sentence", "tidy"]

TORN = "torn"


def sentence(standing: Standing) -> str:
    """What mending does, for people; empty where there is nothing to mend."""
    ending = standing.ending
    if ending is None:
        return ""
    segment = standing.segments[-1]
    left_open = f"the last writer left {segment.name} unsealed after seq {ending.last_seq}"
    if not ending.torn_bytes:
        return f"{left_open}; nothing was cut"
    return f"{left_open}; {ending.torn_bytes} bytes of a torn write were cut at byte {ending.good.offset} and are kept in {TORN}/"


def mend(directory: Directory, standing: Standing, reserve: Reserve, epoch: int) -> None:
    """Make the end of a log one that can be believed. Repeating it after another crash does no harm. Raises `OSError`."""
    if not standing.segments:
        return
    segment, ending = standing.segments[-1], standing.ending
    if ending is None:
        reaffirm(directory, segment)
        return
    if ending.torn_bytes:
        torn = directory.bytes_of(segment.name, ending.good.offset, ending.size)
        keep_torn(directory, segment.name, torn, f"{ending.good.offset}-{epoch}")
    if ending.last_seq > segment.header.base:
        _seal(directory, segment, ending, reserve)


def reaffirm(directory: Directory, segment: Segment) -> None:
    """Write a seal over itself, and sync the directory. Raises `OSError`.

    The sync behind it may have failed: the cache shows it all the same, the disk never had it, and after a power cut the log
    could not be opened any more, once another segment followed. So it is with the rename that put a mended segment in its place.
    """
    disk = directory.disk
    start, line, seal = seal_at_end(directory, segment.name, segment.size)
    if seal != segment.seal:
        raise corrupt(directory.path, segment.name, start, None, "it reads differently than when it was opened")
    fd = disk.open(directory.at(segment.name), os.O_RDWR | os.O_NOFOLLOW)
    try:
        write_all(disk, fd, line, start)
        disk.fsync(fd)
    finally:
        shut(disk, fd)
    directory.sync()


def tidy(directory: Directory, last_seq: int) -> None:
    """Remove files that a crash left half made, and snapshots of what was cut off. Raises `OSError`."""
    for name in directory.names():
        if name.endswith(TEMPORARY):
            directory.remove(name)
    remove_newer(directory, last_seq)


def keep_torn(directory: Directory, name: str, data: bytes, label: str) -> str:
    """Keep bytes that are about to be cut off. Returns where."""
    torn = Directory(directory.disk, directory.at(TORN))
    if TORN not in directory.names():
        directory.disk.mkdir(torn.path)
    try:
        torn.publish(f"{name}.{label}", [data])
    finally:
        torn.let_go()
    return f"{TORN}/{name}.{label}"


def _seal(directory: Directory, segment: Segment, ending: Ending, reserve: Reserve) -> None:
    try:
        directory.publish(segment.name, chain(_good(directory, segment, ending), [_seal_of(segment, ending)]))
    except OSError as error:
        if not is_full(error):
            raise
        reserve.give()
        _seal_in_place(directory, segment, ending)


def _seal_in_place(directory: Directory, segment: Segment, ending: Ending) -> None:
    """No room for a second copy: write the same bytes over themselves, which makes the kernel write them out again.

    The seal comes last, once the rest is durable and what was torn is gone: a seal in front of that could not be told from damage, and
    whoever finds a seal writes nothing but that anew.
    """
    disk = directory.disk
    fd = disk.open(directory.at(segment.name), os.O_RDWR | os.O_NOFOLLOW)
    try:
        if ending.torn_bytes:
            disk.ftruncate(fd, ending.good.offset)
        offset = 0
        for piece in _good(directory, segment, ending):
            write_all(disk, fd, piece, offset)
            offset += len(piece)
        disk.fsync(fd)
        write_all(disk, fd, _seal_of(segment, ending), offset)
        disk.fsync(fd)
    finally:
        shut(disk, fd)


def _good(directory: Directory, segment: Segment, ending: Ending) -> Iterator[bytes]:
    """The good bytes, checked on the way against what was believed when the log was opened."""
    digest = hashlib.sha256()
    for chunk in directory.chunks(segment.name, 0, ending.good.offset):
        digest.update(chunk)
        yield chunk
    if ending.newline_missing:
        digest.update(b"\n")
        yield b"\n"
    if digest.hexdigest() != ending.sha256:
        raise corrupt(directory.path, segment.name, ending.good.offset, None, "it reads differently than when it was opened")


def _seal_of(segment: Segment, ending: Ending) -> bytes:
    return Encoder(ending.good.carry).encode_line(ending.seal(segment.header))
