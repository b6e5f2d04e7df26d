"""Where events are kept. Each module implements `portfsm.protocols.Journal` for one kind of place."""

from __future__ import annotations

from portfsm.journals.memory import MemoryJournal

__all__ = ["MemoryJournal"]
