"""What tests of portfsm, and of programs built on it, need: a clock that is moved by hand, disks and journals that fail on demand."""

from portfsm.testing.clock import ManualClock
from portfsm.testing.disk import SimulatedDisk
from portfsm.testing.journal import GatedJournal

__all__ = ["GatedJournal", "ManualClock", "SimulatedDisk"]
