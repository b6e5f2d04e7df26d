"""What the package asks of the world: a journal, a clock. Implement either to bring your own.

Both are structural: no base class, no registration. `portfsm.testing` ships the contract suite that a
third-party journal inherits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from portfsm.events import Event
    from portfsm.values import Head

__all__ = ["CachingJournal", "Clock", "Journal", "LeadingJournal"]


@runtime_checkable
class Journal(Protocol):
    """An append-only sequence of events, kept somewhere.

    Blocking, and called from one thread at a time, so that any driver fits every event loop. The manager
    numbers and stamps the events; a journal stores them as they are.

    Durability: when `append` returns, the events survive a crash of the process and of the machine. When it
    raises `OutcomeUnknown`, nobody knows; the object must then refuse every further append. When it raises
    `Fenced`, another writer has taken over and nothing was written.
    """

    @property
    def log_id(self) -> str:
        """Names this log for ever: chosen when it is created, never reused. Known after `open`."""
        ...

    def open(self, holder: str) -> int:
        """Become the writer and return its epoch, larger than every earlier one.

        `holder` tells people who has it. Raises `JournalLocked` while another writer lives, `JournalCorrupt`
        at damage that is not a torn tail, and then changes nothing.
        """
        ...

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events with `seq > after`, in order. Between `open` and the first `append`, or on a reader's own object."""
        ...

    def append(self, events: Sequence[Event]) -> None:
        """Make the events durable, all or none, then return.

        Raises `Fenced`, `JournalFull` (nothing written) or `OutcomeUnknown`.
        """
        ...

    def head(self) -> Head:
        """Names the whole history up to the last durable event."""
        ...

    def close(self) -> None:
        """Let go. Never raises because of an earlier failure; may be called twice."""
        ...


@runtime_checkable
class CachingJournal(Journal, Protocol):
    """A journal that can also keep a copy of the state, so that opening need not read everything.

    The copy is a cache: losing it, or finding it damaged, costs time and nothing else.
    """

    @property
    def full(self) -> bool:
        """The place is full and the last appends lived on the reserve: stop growing, keep releasing."""
        ...

    @property
    def recovered(self) -> str:
        """What the opening had to mend, in a sentence for people; empty when nothing."""
        ...

    def load_snapshot(self) -> tuple[int, list[bytes]] | None:
        """The newest intact snapshot no newer than the log, as (seq, lines); None when there is none."""
        ...

    def save_snapshot(self, seq: int, lines: Iterable[bytes]) -> None:
        """Keep the state as of `seq`. Failing to is not an error."""
        ...


@runtime_checkable
class LeadingJournal(Journal, Protocol):
    """A journal that writers on several machines take over from one another: who has it open leads while it gives signs of life.

    An append may be one; a leader calls `renew` for want of others. `open` raises `JournalLocked` while another leads. Time only decides
    who may try: a leader whose lease ran out unnoticed is told apart by its epoch, in the append itself.
    """

    lease_s: float
    """How long a leader that gives no sign of life is waited for."""
    append_renews: bool
    """Whether an append is a sign of life."""

    def renew(self) -> None:
        """Give a sign of life.

        Called in the writer's thread when there was no other for a third of `lease_s`, and, where signs did not come in time (the
        process stood still), before the manager answers out of its memory. Raises `Fenced` when another leads, another `JournalError`
        when nobody answered in time: calling again may succeed.
        """
        ...


@runtime_checkable
class Clock(Protocol):
    """Time, as an argument. `portfsm.testing.ManualClock` is the other implementation."""

    def wall_ns(self) -> int:
        """UTC nanoseconds since 1970. May be stepped by anyone at any time."""
        ...

    def boot_ns(self) -> int:
        """Nanoseconds since the machine started, suspend included. Never stepped."""
        ...

    def boot_id(self) -> str:
        """Changes with every start of the machine: `boot_ns` readings compare only within one."""
        ...

    async def sleep_until(self, boot_ns: int) -> None:
        """Return when `boot_ns()` has reached the argument. Cancellable."""
        ...
