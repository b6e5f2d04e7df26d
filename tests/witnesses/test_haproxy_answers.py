"""Answers of a real HAProxy as they were recorded (`record.py`), and what a changed, cut or missing line of them may not lead to."""

from __future__ import annotations

import re

import attrs
import pytest

from portfsm.evidence import Verdict
from portfsm.witnesses._haproxy_answers import Listing, Slot, Unreadable, Worker, canonical, questions, read_listing, read_worker
from portfsm.witnesses._haproxy_rules import judge, judge_all, lowest_generation, unsettled
from tests.witnesses.answers import FREE, HOST, NEWER, process, reason, recorded, verdict, worker
from tests.witnesses.record import BUSY, GONE, NAMED, RESTING, SIX

# ---------------------------------------------------------------------- the listing


def test_a_process_that_is_overlooked():
    running, reloaded = read_listing(recorded("listing")), read_listing(recorded("listing_reloaded"))
    assert running.workers == (process("worker"),)
    assert (running.old, running.version[:4]) == ((), "2.8.")
    assert reloaded.old == running.workers
    assert (reloaded.master, len(reloaded.workers)) == (running.master, 1)
    assert (running.reloads, reloaded.reloads) == ("0[0]", "1[0]")


def test_an_uptime_that_is_read_wrongly():
    aged = recorded("listing").replace("0d00h00m00s", "2d03h04m05s").replace("0d00h00m01s", "2d03h04m05s")
    assert read_listing(aged).uptime_s == ((2 * 24 + 3) * 60 + 4) * 60 + 5


@pytest.mark.parametrize(
    "text", ["", "\n", "Unknown command\n", "#<PID> <type>\n1 master\n", "#<PID> <type> <reloads> <uptime> <version>\n"]
)
def test_something_else_that_passes_for_a_listing(text):
    with pytest.raises(Unreadable):
        read_listing(text)


def test_columns_that_are_taken_by_their_place():
    text = (
        "#<PID> <type> <version> <uptime> <reloads>\n7 master 2.9 0d00h00m09s 3\n# workers\n8 worker 2.9 0d00h00m01s 0\n# programs\n9 x y\n"
    )
    assert read_listing(text) == Listing(7, 9, "3", "2.9", (8,), ())


# ---------------------------------------------------------------------- one worker


def test_a_worker_that_is_misread():
    found = worker()
    assert (found.generation, found.relays, found.stopping, found.unreadable) == (417, True, False, "")
    assert found.early[("b", "gone")] == 3
    assert found.early[("a", "busy")] == 8
    assert found.early[("a", "")] == 2
    assert worker("worker_old").stopping


def test_a_port_in_use_that_is_called_clear():
    assert verdict(worker(), BUSY) == "HELD"
    assert "has a/busy in service at that address" in reason(worker(), BUSY)


def test_a_port_that_is_held_for_ever():
    assert verdict(worker(), FREE) == "CLEAR"
    assert verdict(worker(), RESTING) == "CLEAR"
    assert verdict(worker("worker_old", old=True), FREE) == "CLEAR"


def test_an_older_generation_that_says_nothing_about_a_slot_it_lacks():
    assert verdict(worker(), FREE, since=417) == "CLEAR"
    assert verdict(worker(), FREE, since=418) == "HELD"
    assert "runs generation 417, older than 418" in reason(worker(), FREE, since=418)
    assert verdict(worker(generation=None), FREE, since=0) == "HELD"
    assert "setenv GEN" in reason(worker(generation=None), FREE)


def test_a_slot_in_maintenance_that_waits_for_a_generation():
    assert verdict(worker(), RESTING, since=NEWER) == "CLEAR"
    assert verdict(worker(generation=None), RESTING) == "CLEAR"


@pytest.mark.parametrize(("state", "clear"), [(0, False), (1, True), (2, False), (8, False), (16, False), (0x20, False), (64, False)])
def test_draining_that_passes_for_maintenance(state, clear):
    text = recorded("worker").replace("resting 127.0.0.1 0 5", f"resting 127.0.0.1 0 {state}")
    assert verdict(worker(text=text), RESTING) == ("CLEAR" if clear else "HELD")


@pytest.mark.parametrize(("state", "clear"), [(0, True), (18, True), (22, False), (19, False)])
def test_an_agent_check_that_can_end_maintenance(state, clear):
    """Enabled, or under way: its answer may be `ready`."""
    text = recorded("worker").replace("resting 127.0.0.1 0 5 1 1 0 1 0 0 8 0", f"resting 127.0.0.1 0 5 1 1 0 1 0 0 8 {state}")
    assert verdict(worker(text=text), RESTING) == ("CLEAR" if clear else "HELD")
    assert clear or "an agent check can put it into service" in reason(worker(text=text), RESTING)


def test_one_slot_in_maintenance_that_speaks_for_another():
    text = recorded("worker").replace("3 a 2 resting", "4 b 9 also 127.0.0.1 0 0 1 1 0 1 0 0 8 0 0 0 - 21002 - 0 0 - - 0\n3 a 2 resting")
    assert verdict(worker(text=text), RESTING) == "HELD"


@pytest.mark.parametrize("state", range(12))
def test_a_stream_on_its_way_that_nobody_sees(state):
    text = recorded("worker").replace("gone 127.0.0.1 2 0", "gone 127.0.0.1 0 1").replace("scb=[3,", f"scb=[{state},")
    assert verdict(worker(text=text), GONE) == ("HELD" if state < 8 else "CLEAR")
    assert verdict(worker(text=text), GONE, retries_replies=True) == "HELD"


def test_a_stream_in_the_queue_of_its_backend_that_holds_all_of_it():
    text = recorded("worker").replace("busy 127.0.0.1 2 0", "busy 127.0.0.1 0 1")
    assert verdict(worker(text=text), BUSY, since=NEWER) == "CLEAR"


# ---------------------------------------------------------------------- old workers


def test_an_old_worker_that_serves_its_clients_from_old_lists():
    old = worker("worker_old", old=True)
    assert verdict(attrs.evolve(old, relays=False), RESTING) == "HELD"
    assert "serves its clients until it exits" in reason(attrs.evolve(old, relays=False), RESTING)
    assert verdict(attrs.evolve(old, stopping=False), RESTING) == "HELD"
    assert "never told to stop" in reason(attrs.evolve(old, stopping=False), RESTING)


def test_an_old_worker_whose_queue_is_forgotten():
    """Two streams of backend `a` have no slot yet: any slot of it may be theirs."""
    old = worker("worker_old", old=True)
    assert verdict(old, RESTING) == "HELD"
    assert "has a stream of a that is queued" in reason(old, RESTING)
    emptied = attrs.evolve(old, early={place: state for place, state in old.early.items() if state >= 8})
    assert verdict(emptied, RESTING) == "CLEAR"
    assert verdict(attrs.evolve(emptied, early={("a", "other"): 5}), RESTING) == "HELD"
    assert "is stopping and relays" in reason(emptied, RESTING)


# ---------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("host", "port", "held"),
    [
        ("::1", SIX, True),
        ("0:0::1", SIX, True),
        ("127.0.0.1", SIX, False),
        ("::ffff:127.0.0.1", BUSY, True),
        ("127.0.0.2", BUSY, False),
        ("localhost", NAMED, True),
        ("LOCALHOST", NAMED, True),
        ("elsewhere", NAMED, False),
        ("10.0.0.1", NAMED, True),
        ("localhost", BUSY, True),
        ("localhost", FREE, False),
        ("0.0.0.0", BUSY, True),
        ("::", SIX, True),
        ("0.0.0.0", FREE, False),
    ],
)
def test_one_address_in_two_spellings(host, port, held):
    assert verdict(worker(), port, host=host) == ("HELD" if held else "CLEAR")


def test_a_port_counted_back_from_the_clients_that_is_none():
    """A negative number in the table: which port it is depends on where the client came in."""
    assert verdict(worker(text=recorded("worker").replace(f"- {SIX} ", "- 4294961841 ")), FREE, host="::1") == "HELD"


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_slot_at_any_address_that_is_not_this_one(address):
    """It connects to where its client did."""
    text = recorded("worker").replace("six ::1 ", f"six {address} ")
    assert verdict(worker(text=text), SIX, host="10.0.0.1") == "HELD"
    assert verdict(worker(text=text), FREE, host="10.0.0.1") == "CLEAR"


def test_a_spelling_that_is_none():
    assert [canonical(text) for text in ("::zz", "[::1]", "a")] == ["::zz", "::1", "a"]


# ---------------------------------------------------------------------- what cannot be read


def test_an_answer_cut_anywhere_that_is_believed():
    text = recorded("worker")
    for end in range(len(text)):
        found = read_worker(process("worker"), text[:end], old=False)
        assert found is None or found.unreadable, text[end - 50 : end]


@pytest.mark.parametrize("name", ["elsewhere", "unset", "listing"])
def test_another_answer_that_passes_for_a_worker(name):
    assert read_worker(process("worker"), recorded(name), old=False) is None


def test_a_line_of_a_table_that_is_skipped_because_it_cannot_be_read():
    lines = recorded("worker").split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("# be_id"))
    for i in range(first, len(lines)):
        if lines[i]:
            for broken in ("garbage", lines[i].replace("scb=", "s1=").replace(" ", "", 1), lines[i][: len(lines[i]) // 2]):
                found = worker(text="\n".join([*lines[:i], broken, *lines[i + 1 :]]))
                assert found.unreadable, broken
                assert verdict(found, FREE) == "HELD"
                assert "holds every port" in reason(found, FREE)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("Stopping: 0", "Stopping: maybe"),
        ("Stopping: 0\n", ""),
        ("Pid: ", "Pid: 9"),
        ("\n\nGEN=417", "\n\nGEN=new"),
        ("\n\nGEN=417", "\n\nGEN=-1"),
        ("\n\nGEN=417", "\n\nPermission denied"),
        ("srv_admin_state", "srv_state"),
        ("- 21001 -", "- soon -"),
        ("a 1 busy", "a 1 b;quit"),
        ("srv=busy", "server=busy"),
    ],
)
def test_a_word_that_means_nothing_and_is_passed_over(was, becomes):
    assert was in recorded("worker")
    assert worker(text=recorded("worker").replace(was, becomes)).unreadable


@pytest.mark.parametrize(
    ("description", "env", "relay", "expected"),
    [
        ("", "GEN=5", "RELAY=1", (5, True)),
        ("", "GEN=5", "Variable not found", (5, False)),
        ("", "Variable not found", "RELAY=1", (None, True)),
        ("GEN=7 RELAY=1", "Variable not found", "Variable not found", (7, True)),
        ("edge GEN=3 RELAY=0", "GEN=5", "RELAY=1", (3, False)),
        ("GEN=3", "GEN=5", "RELAY=1", (3, False)),
        ("the edge of GENEVA", "GEN=5", "RELAY=0", (5, False)),
    ],
)
def test_a_stamp_of_an_earlier_configuration_that_counts(description, env, relay, expected):
    text = recorded("worker").replace("\n\nGEN=417", f"\n\n{env}").replace("\n\nRELAY=1", f"\n\n{relay}")
    text = re.sub(r"description: .*", f"description: {description}", text)
    found = worker(text=text)
    assert (found.generation, found.relays) == expected


# ---------------------------------------------------------------------- a round


SETTLED = Listing(1, 5, "2[0]", "2.8", (10,), (8, 9))


@pytest.mark.parametrize(
    ("after", "silent", "why"),
    [
        ({}, [], ""),
        ({"old": (9,)}, [8], ""),
        ({"uptime_s": 6}, [], ""),
        ({"old": (9,)}, [9], "worker 9 did not answer"),
        ({}, [10], "worker 10 did not answer"),
        ({"master": 2}, [], "reloaded"),
        ({"reloads": "3[0]"}, [], "reloaded"),
        ({"reloads": "2[1]"}, [], "reloaded"),
        ({"workers": (11,)}, [], "reloaded"),
        ({"workers": ()}, [10], "lost a worker"),
        ({"old": (8, 9, 10)}, [], "worker 10 became an old worker"),
    ],
)
def test_a_round_in_which_things_moved_that_is_believed(after, silent, why):
    found = unsettled(SETTLED, attrs.evolve(SETTLED, **after), silent)
    assert why in found
    assert bool(found) == bool(why)


def test_a_round_without_workers_that_is_believed():
    nobody = attrs.evolve(SETTLED, workers=())
    assert "no current worker" in unsettled(nobody, nobody, [])


def test_a_generation_that_only_one_of_two_workers_has():
    assert lowest_generation([worker(generation=5), worker(generation=7), worker(old=True, generation=1)]) == 5
    assert lowest_generation([worker(generation=5), worker(generation=None)]) is None
    assert lowest_generation([]) is None


def test_one_worker_that_speaks_for_all():
    both = [worker(), worker("worker_old", old=True, relays=False)]
    said = judge(both, HOST, RESTING, 400)
    assert said.verdict is Verdict.HELD
    assert said.reason.startswith("old worker")


@pytest.mark.parametrize("changes", [{}, {"generation": None}, {"unreadable": "noise"}, {"strays": [("a", "busy")]}, {"slots": {}}])
def test_many_answers_that_differ_from_one(changes):
    """A port without a slot shares its verdict with others, and never one that is not its own."""
    workers = [worker(**changes), worker("worker_old", old=True)]
    places = [(host, port, since) for host in (HOST, "::1", "edge") for port in (BUSY, GONE, FREE, 1) for since in (0, 416, 417, 418, 419)]
    for known in (workers, [attrs.evolve(it, slots={port: slots for port, slots in it.slots.items() if port}) for it in workers]):
        assert list(judge_all(known, places)) == [judge(known, *place) for place in places]


def test_streams_that_are_asked_for_before_the_table():
    line = questions(7)
    assert line.index("show info") < line.index("servers state") < line.index("show sess")
    assert line.count("@!7 ") == 5


@pytest.mark.parametrize(
    ("address", "port", "name", "verdict"),
    [
        ("10.0.0.7", 30000, "", Verdict.CLEAR),
        ("10.0.0.7", 30000, "node-a", Verdict.CLEAR),
        ("10.0.0.7", 0, "", Verdict.HELD),
        ("10.0.0.8", 30000, "node-a", Verdict.HELD),
        ("0.0.0.0", 30000, "", Verdict.HELD),
    ],
)
def test_a_slot_in_maintenance_that_may_be_anywhere_answers_for_one_that_is_not_there_yet(address, port, name, verdict):
    """An older configuration without the port's own slot, and one elsewhere that is out of service: the newer one may still come. Found by fuzzing."""
    worker = Worker(7, old=False, generation=10, slots={port: [Slot("b", "s", address, port, name, maintenance=True)]})
    assert judge([worker], "10.0.0.7", 30000, 11).verdict is verdict
