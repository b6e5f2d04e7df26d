"""The segment that is being written, whatever it is written to: its lines, its digest, and how long a batch may be."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from portfsm._codec import ClockMark, Encoder, Header, Seal
from portfsm.journals._segments import name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from portfsm.events import Event

__all__ = ["Growing"]


class Growing(ABC):
    """Appends to one new segment until it is sealed."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.name = name_of(header.base + 1)
        self._encoder = Encoder()
        self._first_line = self._encoder.encode_line(header)
        self._digest = hashlib.sha256(self._first_line)
        self.head = (header.base, self._digest.hexdigest())
        """Last durable seq and SHA-256 up to its line, set at once: other threads may look."""

    @property
    def last_seq(self) -> int:
        """`seq` of the last durable event."""
        return self.head[0]

    @property
    def count(self) -> int:
        """How many events it holds."""
        return self.last_seq - self.header.base

    def append(self, events: Sequence[Event], mark: ClockMark | None = None) -> int:
        """Make one batch durable. Returns 0, or its length in bytes if that is more than this segment allows."""
        carry = self._encoder.carry
        data = self._encoder.encode(events) if mark is None else self._encoder.encode_line(mark) + self._encoder.encode(events)
        if len(data) > self.header.batch:
            self._encoder.carry = carry
            return len(data)
        self._keep(data, carry)
        self._digest.update(data)
        self.head = (events[-1].seq, self._digest.hexdigest())
        return 0

    def seal(self) -> None:
        """End the segment, durably."""
        carry = self._encoder.carry
        self._keep(self._encoder.encode_line(Seal(self.count, *self.head)), carry)

    def _keep(self, data: bytes, carry: bytes) -> None:
        """Make `data` durable; after a failure the segment goes on from `carry`."""
        try:
            self._put(data)
        except BaseException:
            self._encoder.carry = carry
            raise

    @abstractmethod
    def _put(self, data: bytes) -> None:
        """The bytes are durable at the end of the segment, or it is as it was, or nobody knows: each said by another error."""
