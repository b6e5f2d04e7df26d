"""A place in a log, by time or by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from portfsm.errors import InvalidValue

if TYPE_CHECKING:
    from portfsm.events import Event

__all__ = ["Moment"]


@attrs.frozen
class Moment:
    """A place in a log: after everything recorded up to `ts` (UTC ns), or up to `seq`. Exactly one is given."""

    ts: int | None = None
    seq: int | None = None

    def __attrs_post_init__(self) -> None:
        if (self.ts is None) is (self.seq is None):
            raise InvalidValue("a moment is given by its ts or by a seq, by one of the two", name="moment", value=(self.ts, self.seq))

    def reached_by(self, event: Event) -> bool:
        """Whether `event` happened at this moment or after it."""
        return event.seq >= self.seq if self.seq is not None else event.ts >= (self.ts or 0)

    def covers(self, event: Event) -> bool:
        """Whether `event` had happened by this moment, at the moment itself included."""
        return event.seq <= self.seq if self.seq is not None else event.ts <= (self.ts or 0)
