"""The time of the log: what it is made of, and what it survives. Pure but for the last few, which ask this machine."""

import time

import anyio
import pytest

from portfsm import SystemClock
from portfsm.clocks import Timeline
from portfsm.errors import InvalidValue
from portfsm.protocols import Clock
from portfsm.testing import ManualClock

SECOND = 1_000_000_000


def reopened(clock, before, last_ts):
    """The timeline of the next opening, after one whose first event carried what `before` says."""
    opened = {"boot": before.boot, "boot_ns": before.opened_boot_ns, "ts": before.opened_ts}
    return Timeline(clock, opened=opened, last_ts=last_ts)


@pytest.fixture
def clock():
    clock = ManualClock()
    clock.advance(1000)
    return clock


@pytest.fixture
def line(clock):
    return Timeline(clock, opened={}, last_ts=0)


def test_a_new_log_does_not_start_at_the_wall_clock(clock, line):
    assert line.now() == clock.wall_ns()
    clock.advance(5)
    assert line.now() == clock.wall_ns()


def test_setting_the_wall_clock_moves_the_time_of_the_log(clock, line):
    start = line.now()
    for step in (3600, -7200, 86400 * 365):
        clock.step_wall(step)
        assert line.now() == start
        assert reopened(clock, line, start).now() == start


def test_openings_within_a_boot_drift(clock, line):
    """Each opening hands the next one the pair of readings it began with; time between the readings must not count."""

    class Slow(ManualClock):
        """Every reading takes a second."""

        def boot_ns(self):
            self.advance(1)
            return super().boot_ns()

    slow = Slow()
    first = before = Timeline(slow, opened={}, last_ts=0)
    for _ in range(10):
        before = reopened(slow, before, before.now())
        assert before.opened_ts - before.opened_boot_ns == first.opened_ts - first.opened_boot_ns


def test_suspended_time_does_not_count(clock, line):
    start = line.now()
    clock.advance(8 * 3600)  # the boot clock goes on while the machine sleeps
    assert reopened(clock, line, start).now() == start + 8 * 3600 * SECOND


@pytest.mark.parametrize("step", [-3600, 0, 3600])
def test_time_goes_back_over_a_reboot(clock, line, step):
    last = line.now()
    clock.step_wall(step)
    clock.reboot(down_s=30)
    after = reopened(clock, line, last)
    assert after.now() == max(last + 1, clock.wall_ns())
    assert after.boot != line.boot


def test_a_boot_clock_that_reads_less_is_taken_for_the_same_boot(clock, line):
    """A container's own boot clock may start anywhere: a reading below the recorded one is another clock."""
    last = line.now()

    class Namespace(ManualClock):
        def boot_id(self):
            return clock.boot_id()

    inside = Namespace(start_ns=last - 3600 * SECOND)
    after = reopened(inside, line, last)
    assert after.now() == last + 1
    assert after.boot != line.boot
    assert after.boot.startswith(clock.boot_id())
    again = reopened(inside, after, last + 1)
    assert (again.boot, again.now()) == (after.boot, after.now())


def test_a_clock_without_a_boot_id_breaks_the_opening():
    class Nameless(ManualClock):
        def boot_id(self):
            return ""

    clock = Nameless()
    assert Timeline(clock, opened={}, last_ts=0).now() == clock.wall_ns()


def test_a_log_time_is_due_at_another_boot_time(clock, line):
    due = line.now() + 7 * SECOND
    at = line.boot_at(due)
    clock.advance(7)
    assert clock.boot_ns() == at
    assert line.now() == due


# ---------------------------------------------------------------------- ManualClock


def test_manual_clock_goes_back():
    clock = ManualClock()
    with pytest.raises(InvalidValue):
        clock.advance(-1)
    clock.advance(0)
    assert isinstance(clock, Clock)


@pytest.mark.anyio
async def test_manual_clock_wakes_early_late_or_somebody_else():
    clock, woken = ManualClock(), []

    async def sleep(seconds):
        await clock.sleep_until(round(seconds * SECOND))
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (3, 1, 2, 1):
            tasks.start_soon(sleep, seconds)
        for expected in ([], [1, 1], [1, 1, 2], [1, 1, 2, 3]):
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert woken == expected
            clock.advance(1)
    await clock.sleep_until(0)


def test_manual_clock_remembers_the_loop_that_slept_last():
    clock = ManualClock()

    async def sleep_a_little():
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(clock.sleep_until, clock.boot_ns() + SECOND)
                await anyio.lowlevel.checkpoint()
                scope.cancel()

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(sleep_a_little, backend=backend)
        clock.advance(10)


def test_reboot_keeps_the_boot_id():
    clock = ManualClock()
    clock.advance(5)
    wall, boot = clock.wall_ns(), clock.boot_id()
    clock.reboot(down_s=60)
    assert (clock.boot_ns(), clock.wall_ns()) == (0, wall + 60 * SECOND)
    assert clock.boot_id() != boot


# ---------------------------------------------------------------------- SystemClock


def test_system_clock_stops_in_suspend_or_names_each_process_another_boot():
    first, second = SystemClock(), SystemClock()
    assert first.boot_id() == second.boot_id() != ""
    assert first.boot_ns() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) <= second.boot_ns()
    assert abs(first.wall_ns() - time.time_ns()) < 3600 * SECOND
    assert isinstance(first, Clock)


@pytest.mark.anyio
async def test_system_clock_wakes_early():
    clock = SystemClock()
    for ns in (0, 1, 3_000_000):
        at = clock.boot_ns() + ns
        await clock.sleep_until(at)
        assert clock.boot_ns() >= at


@pytest.mark.anyio
async def test_system_clock_holds_the_loop_when_the_time_has_come():
    """A sleep that need not sleep still lets others run, and can be cancelled."""
    clock = SystemClock()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep_until(0)
        pytest.fail("no checkpoint")
    assert scope.cancelled_caught
