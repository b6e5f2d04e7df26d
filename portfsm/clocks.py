"""The machine's clocks, and the log's own steady time made from them.

A hold must outlast a restart of the process, a step of the wall clock and a restart of the machine, so the
log does not take its times from the wall clock alone. Within one boot, log time advances with the boot clock,
which nobody steps: setting the wall clock changes no hold. With a new boot it starts again at the wall clock, but
never before the last recorded time.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from portfsm.protocols import Clock

__all__ = ["SystemClock", "Timeline"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", None) or time.CLOCK_MONOTONIC


class SystemClock:
    """The clocks of this machine."""

    def __init__(self) -> None:
        try:
            self._boot_id = _BOOT_ID.read_text().strip()
        except OSError:
            # No way to tell one boot from the next: take each process for a new one, which only lengthens holds.
            self._boot_id = uuid.uuid4().hex

    def wall_ns(self) -> int:
        """UTC nanoseconds since 1970."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since boot, suspend included."""
        return time.clock_gettime_ns(_BOOT_CLOCK)

    def boot_id(self) -> str:
        """The kernel's id of this boot."""
        return self._boot_id

    async def sleep_until(self, boot_ns: int) -> None:
        """Sleep until the boot clock reads `boot_ns`."""
        await checkpoint()
        while (left_ns := boot_ns - self.boot_ns()) > 0:  # noqa: ASYNC110  (a clock, not a condition: it may be suspended)
            await anyio.sleep(left_ns / 1e9)


class Timeline:
    """Log time (UTC ns) as a function of the boot clock, fixed at an opening."""

    def __init__(self, clock: Clock, *, opened: dict[str, Any], last_ts: int) -> None:
        """`opened` is what the last opening recorded (empty for a new log), `last_ts` the last event's time."""
        self._clock = clock
        boot_ns, boot = clock.boot_ns(), clock.boot_id()
        self._offset_ns: int
        recorded = str(opened.get("boot", ""))
        same = bool(opened) and recorded.partition("~")[0] == boot
        if same and boot_ns >= opened["boot_ns"]:
            self.boot = recorded
            self._offset_ns = int(opened["ts"]) - int(opened["boot_ns"])
        else:
            # A reading below the recorded one under the same id is another time namespace: another boot to us.
            self.boot = f"{boot}~{last_ts}" if same else boot
            self._offset_ns = max(clock.wall_ns(), last_ts + 1) - boot_ns
        self.opened_boot_ns = boot_ns
        self.opened_ts = boot_ns + self._offset_ns
        """What `opened` must carry as its boot clock reading and its time: later readings count from this pair."""

    def now(self) -> int:
        """The time to record, UTC ns."""
        return self._clock.boot_ns() + self._offset_ns

    def boot_at(self, ts: int) -> int:
        """When the boot clock will show what log time calls `ts`."""
        return ts - self._offset_ns
