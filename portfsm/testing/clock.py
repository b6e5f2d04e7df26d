"""A clock that stands still until a test moves it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from portfsm.errors import InvalidValue

if TYPE_CHECKING:
    from portfsm.protocols import Clock

__all__ = ["ManualClock"]

_START_NS = 1_700_000_000_000_000_000


class ManualClock:
    """Time as a test decides. Starts at `start_ns` (UTC ns since 1970) on a machine that has just booted."""

    def __init__(self, *, start_ns: int = _START_NS) -> None:
        self._wall_ns = start_ns
        self._boot_ns = 0
        self._boots = 1
        self._sleepers: list[anyio.Event] = []

    def advance(self, seconds: float) -> None:
        """Let time pass on every clock, and wake those whose time has come."""
        if not 0 <= seconds < math.inf:
            message = f"time does not go back: advance({seconds!r}); to step the wall clock use step_wall()"
            raise InvalidValue(message, name="seconds", value=seconds)
        self._wall_ns += round(seconds * 1e9)
        self._boot_ns += round(seconds * 1e9)
        self._wake()

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or a time server does. The boot clock goes on."""
        self._wall_ns += round(seconds * 1e9)

    def reboot(self, *, down_s: float = 0.0) -> None:
        """Restart the machine: the boot clock begins again under another boot id."""
        self._wall_ns += round(down_s * 1e9)
        self._boot_ns = 0
        self._boots += 1
        self._wake()

    def wall_ns(self) -> int:
        """UTC nanoseconds since 1970."""
        return self._wall_ns

    def boot_ns(self) -> int:
        """Nanoseconds since the last `reboot`."""
        return self._boot_ns

    def boot_id(self) -> str:
        """Names the present boot."""
        return f"manual-boot-{self._boots}"

    async def sleep_until(self, boot_ns: int) -> None:
        """Return once `advance` has brought the boot clock there."""
        await checkpoint()
        while self._boot_ns < boot_ns:
            moved = anyio.Event()
            self._sleepers.append(moved)
            try:
                await moved.wait()
            finally:
                self._sleepers.remove(moved)

    def _wake(self) -> None:
        for moved in self._sleepers:
            moved.set()


if TYPE_CHECKING:
    _: type[Clock] = ManualClock
