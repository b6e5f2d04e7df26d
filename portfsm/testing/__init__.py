"""What tests of portfsm, and of programs built on it, need: a clock that is moved by hand, a disk that fails on demand."""

from portfsm.testing.clock import ManualClock

__all__ = ["ManualClock"]
