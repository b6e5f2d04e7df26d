"""What tests of portfsm, and of programs built on it, need: a clock moved by hand, disks and journals that fail on demand, fake proxies."""

from portfsm.testing.clock import ManualClock
from portfsm.testing.disk import SimulatedDisk
from portfsm.testing.journal import GatedJournal
from portfsm.testing.witness import FakeWitness

__all__ = ["FakeWitness", "GatedJournal", "ManualClock", "SimulatedDisk"]
