"""Whether a real process has exited: with pidfds, as on a kernel or in a sandbox without them, and where /proc shows nobody."""

from __future__ import annotations

import os
import signal

import attrs
import pytest

from portfsm.witnesses._exits import Sight, Tracked, read_stat
from tests.witnesses.helpers import process, wait_for

SIGHTS = {
    "pidfds": Sight(),
    "no pidfds": Sight(open=lambda pid: None),
    "nobody shown": Sight(open=lambda pid: None, stat=lambda pid: None),
}
everywhere = pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
where_shown = pytest.mark.parametrize("sight", [SIGHTS["pidfds"], SIGHTS["no pidfds"]], ids=["pidfds", "no pidfds"])


@everywhere
def test_a_process_that_lives_counts_as_gone(sight):
    with process() as child:
        tracked = Tracked(child.pid, sight=sight)
        assert not tracked.look()
        os.kill(child.pid, signal.SIGSTOP)
        wait_for(lambda: read_stat(child.pid).state == "T")
        assert not tracked.look()
        child.kill()
        child.wait()
        assert tracked.look()
        tracked.close()
        assert Tracked(child.pid, sight=sight).look(), "also to one who comes after its exit"


@where_shown
def test_a_zombie_that_nobody_reaps_counts_as_alive(sight):
    with process() as child:
        tracked = Tracked(child.pid, sight=sight)
        os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: read_stat(child.pid).state == "Z")
        assert tracked.look()


@where_shown
def test_a_pid_that_was_given_away_counts_as_its_former_process(sight):
    with process() as child:
        started = read_stat(child.pid).started
        assert Tracked(child.pid, started=started - 1, sight=sight).look()
        assert not Tracked(child.pid, started=started, sight=sight).look()


def test_a_pid_given_away_between_two_looks_counts_as_its_former_process():
    with process() as child:
        shown = [read_stat(child.pid)] * 2 + [attrs.evolve(read_stat(child.pid), name="other", started=read_stat(child.pid).started + 5)]
        tracked = Tracked(child.pid, sight=Sight(open=lambda pid: None, stat=lambda pid: shown.pop(0)))
        assert not tracked.look()
        assert tracked.look()
