"""Room kept back for the day the disk is full: releasing must still be recordable when nothing else is.

A file of really allocated blocks. Giving it up makes room for about six thousand events; `full` is true from
then until it could be taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm.journals._disk import is_full, shut
from portfsm.journals._snapshots import give_up_older

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm.journals._disk import Directory

__all__ = ["Reserve"]

NAME = "reserve"
_TRY_EVERY = 64
"""Appends between two attempts to take the room back: each costs a few system calls."""


class Reserve:
    """The reserve of one log."""

    def __init__(self, directory: Directory, size: int) -> None:
        self._directory = directory
        self._size = size
        self._countdown = 0
        self.full = False

    def take(self) -> None:
        """Take the room if it is not held. `full` tells whether it could be had."""
        self._countdown = _TRY_EVERY
        self.full = not (self._held() or self._allocate())

    def take_now_and_then(self) -> None:
        """`take`, at most once in a while."""
        self._countdown -= 1
        if self._countdown <= 0:
            self.take()

    def give(self) -> bool:
        """Give the room up, and what is a mere cache, so that what must be written fits; False when there is none to give."""
        self.full = True
        self._countdown = _TRY_EVERY
        given = give_up_older(self._directory)
        return self._directory.remove(NAME) or given

    def make_room_for(self, action: Callable[[], None]) -> None:
        """Do it; on a full disk give the room up and do it once more. Raises `OSError`."""
        try:
            return action()
        except OSError as error:
            if not is_full(error) or not self.give():
                raise
        return action()

    def _held(self) -> bool:
        try:
            return self._directory.size(NAME) >= self._size
        except OSError:
            return False

    def _allocate(self) -> bool:
        """Whether the room is held now, or the attempt failed for another reason than lack of room."""
        try:
            fd = self._directory.create(NAME)
            try:
                self._directory.disk.allocate(fd, self._size)
            finally:
                shut(self._directory.disk, fd)
        except OSError as error:
            self._directory.remove(NAME)
            return not is_full(error)
        return True
