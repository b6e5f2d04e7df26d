"""The simulation as part of the suite: a quick run, the long one, proof that it notices, and that a seed is a seed."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.broken import BREAKS
from tests.simulation.many import explain, many
from tests.simulation.story import tell

ROOT = Path(__file__).resolve().parents[2]

HAPPENED = """
    adopt done|allocate done|block done|free done|hold done|release done|release_owner done|sweep done|unblock done|withdraw done
    allocate cancelled|allocate PoolExhausted|allocate PortUnavailable|allocate OwnerConflict|allocate PortOutOfRange|allocate Fenced
    allocate JournalFull|allocate ManagerClosed|allocate OutcomeUnknown|release StaleLease|withdraw StaleLease|adopt OwnerConflict
    unblock IllegalTransition|hold IllegalTransition|free IllegalTransition|block PortOutOfRange
    event adopted|event allocated|event withdrawn|event released released|event released cancelled|event held operator|event held reboot
    renew done|renew StaleLease|event released expired|event blocked conflict
    event freed elapsed|event freed operator|event blocked holder|event blocked operator|event unblocked elapsed|event unblocked operator
    event opened|event pool_defined|event closed
    kill|kill and restart of the machine|power cut|died inside a disk call: power|died inside a disk call: killed|left|takeover|disk hangs
    mended: torn|mended: unsealed|events lost before anybody was told|wall clock step|pool grew|pool shrank|port retired
    opened from a snapshot|new segment|sync failed|write failed|write was short|disk was full|write was interrupted
    controller ended by OutcomeUnknown|controller ended by JournalFull|controller ended by JournalUnreadable
    waiter was served|waiter gave up|answered twice
    reconcile done|reconcile cancelled|event released reconciled
    allocate_group done|allocate_group cancelled|allocate_group GroupUnavailable|allocate_group OwnerConflict|allocate_group InvalidValue|group gave up
    define done|define cancelled|define JournalFull|allocate QuotaExceeded|allocate_group QuotaExceeded|band entered|event freed pressure
    history lost|event held lost|survivor adopted|survivor not adopted
    event proxy_joined|event proxy_left|event freed evidence|join done|leave done|wait_clear done|wait_clear is True|wait_clear is False
    wait_clear InvalidValue|wait_clear ManagerClosed|wait_clear OutcomeUnknown|drained and free in one step
    proxy froze|proxy restarted|proxy went back|witness took a port out|witness outlived its controller
    witness is prompt|witness is early|witness is late|witness is silent|witness is raises
"""


@pytest.fixture(scope="module")
def quick():
    return many(0, 150, 200)


def test_a_promise_is_broken(quick):
    assert not quick.failures, explain(quick.failures[0][0], 200)


@pytest.mark.parametrize("what", [what.strip() for line in HAPPENED.strip().splitlines() for what in line.split("|")])
def test_something_never_happens(quick, what):
    assert quick.hits[what] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_promise_is_broken_once_in_two_thousand_stories(times):
    found = many(150, 2000 * times, 200)
    assert not found.failures, explain(found.failures[0][0], 200)
    assert found.hits["power cut"] > 1000


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BREAKS)
def test_a_safeguard_is_off_and_nobody_notices(name):
    _, promise, said = many(0, 400, 200, name=name, enough=1, chunk=2).failures[0]
    assert not re.search(r"\b(Attribute|Name|Type)Error\b", f"{promise} {said}"), "what is broken here is the break"


@pytest.mark.parametrize("shared", [False, True], ids=["a directory", "a shared log"])
def test_a_seed_tells_another_story_in_another_process(shared):
    here = hashlib.sha256("".join("\n".join(tell(seed, shared=shared).story) for seed in range(4)).encode()).hexdigest()
    program = (
        "import hashlib; from tests.simulation.story import tell; "
        f"print(hashlib.sha256(''.join('\\n'.join(tell(seed, shared={shared}).story) for seed in range(4)).encode()).hexdigest())"
    )
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == here


def test_a_failing_seed_does_not_say_how_to_see_it_again():
    failing = next(seed for seed in range(50) if tell_broken(seed).failure)
    text = explain(failing, 200, name="no_token_check")
    assert f"python -m tests.simulation --seed {failing} --steps 200 --broken no_token_check" in text
    assert "nobody asked for released" in text
    assert int(text.split(" steps are enough")[0].rsplit("\n", 1)[1]) < 40


def tell_broken(seed):
    with BREAKS["no_token_check"]():
        return tell(seed)
