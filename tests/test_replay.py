"""A log read back: the same state at every point, and no state at all out of a log that contradicts itself."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from portfsm import _dump
from portfsm._ledger import Ledger, apply
from portfsm._replay import replay
from portfsm.commands import Adopt, Block, DefinePool, Free, Hold, Open, ReleaseOwner, Sweep, Unblock, Withdraw
from portfsm.errors import IllegalTransition, JournalCorrupt
from portfsm.events import Event
from portfsm.specs import PoolSpec


@pytest.fixture
def history(empty):
    """A log in which every kind of port event occurs, with the digest after each event."""
    empty.do(Open(1, "h", "one", 1, 1))
    empty.define()
    empty.define("q", ports="7-9", order="random", seed="s", hold_s=0.0)
    for step in range(12):
        empty.do(Withdraw(empty.allocate("a", service="s", node="n" if step % 2 else "")))
        empty.do(ReleaseOwner("a"))
        empty.allocate(f"b{step}", "q") if step < 3 else empty.do(ReleaseOwner(f"b{step - 3}"))
        empty.do(Adopt("p", 90 + step, owner=f"c{step}"))
        empty.do(Hold("p", 102, hold_s=step * 5))
        empty.do(Block("p", 103, reason="r", for_s=1))
        empty.pass_time(2)
        empty.do(Unblock("p", 103) if step % 3 else Sweep())
        if step == 4:
            empty.define(ports="95-102")
            empty.define(ports="100-104", order="longest-idle")
        if step == 6:
            empty.do(Open(2, "h", "two", 1, 1))
            empty.do(Free("p", 102, reason="r"))
        empty.do(ReleaseOwner(f"c{step - 2}"))
    ledger, empty.digests = Ledger(), [Ledger().digest()]
    for event in empty.events:
        apply(ledger, event)
        empty.digests.append(ledger.digest())
    assert len({event.kind for event in empty.events}) == 10
    return empty


def test_a_live_state_that_replay_does_not_reach(history):
    assert history.ledger.digest() == replay(history.events).digest() == history.digests[-1]
    assert replay(iter(history.events)).digest() == history.digests[-1]


def test_a_past_that_is_off_by_one(history):
    for seq, digest in enumerate(history.digests):
        assert replay(history.events, until=seq).digest() == digest
    assert replay(history.events, until=10**9).seq == len(history.events)
    assert replay([], until=5).digest() == Ledger().digest()


def test_a_snapshot_at_any_point_and_the_rest_that_differ_from_the_whole(history):
    for seq in range(len(history.events) + 1):
        ledger = Ledger()
        _dump.load(ledger, list(_dump.dump(replay(history.events[:seq]))))
        continued = replay(history.events[seq:], onto=ledger)
        assert continued is ledger
        assert continued.digest() == history.digests[-1]


def test_one_fold_that_differs_from_many(history):
    """Replay takes the log in one loop, live operation event by event, and a decision's events together."""
    ledger = Ledger()
    for first in range(0, len(history.events), 3):
        ledger.fold(history.events[first : first + 3])
        assert ledger.digest() == history.digests[ledger.seq]


def test_a_lost_a_doubled_or_a_moved_event_that_goes_unseen(history):
    events = history.events
    for place in range(len(events) - 1):
        for damaged in (
            events[:place] + events[place + 1 :],
            [*events[: place + 1], *events[place:]],
            [*events[:place], events[place + 1], events[place]],
        ):
            with pytest.raises(JournalCorrupt) as caught:
                replay(damaged)
            assert caught.value.seq in {place + 1, place + 2}


def test_an_event_forged_into_the_log_that_the_machine_does_not_allow(history):
    """Renumbered so that no gap gives it away: a lease on a port that somebody holds."""
    taken = next(event for event in history.events if event.kind == "adopted")
    forged = Event(taken.seq + 1, taken.ts, taken.kind, taken.node, taken.pool, taken.port, "thief", "", taken.seq + 1)
    rest = [msgspec.structs.replace(event, seq=event.seq + 1) for event in history.events[taken.seq :]]
    with pytest.raises(JournalCorrupt) as caught:
        replay([*history.events[: taken.seq], forged, *rest])
    assert caught.value.seq == forged.seq
    assert isinstance(caught.value.__cause__, IllegalTransition)
    assert "portfsm verify" in str(caught.value)


def test_a_faulty_event_that_spoils_the_state_before_it(history):
    ledger = Ledger()
    with pytest.raises(JournalCorrupt):
        replay([*history.events, history.events[-1]], onto=ledger)
    assert ledger.digest() == history.digests[-1]
    assert ledger.seq == len(history.events)


def test_a_fold_that_stops_early_with_a_wrong_place_in_the_log(history):
    """Whoever goes on after a refusal must be told of the right number next."""
    ledger = Ledger()
    with pytest.raises(IllegalTransition):
        ledger.fold([*history.events[:20], history.events[3]])
    assert (ledger.seq, ledger.ts) == (20, history.events[19].ts)
    ledger.fold(history.events[20:])
    assert ledger.digest() == history.digests[-1]


def test_a_pool_redefined_in_the_middle_of_a_run_of_its_events(empty):
    """The loop remembers the pool of the event before; a definition in between must not escape it."""
    empty.define(ports="100-103")
    for step in range(6):
        empty.allocate(f"o{step}", port=100 + step)
        empty.do(DefinePool(PoolSpec("p", ports=f"{99 - step}-{101 + step}")))
    assert empty.replayed().digest() == empty.ledger.digest()
    assert empty.replayed().statistics() == empty.ledger.statistics()


def test_a_replay_that_asks_for_the_time_or_for_luck(history, monkeypatch):
    for module, names in {
        "time": ["time", "time_ns", "monotonic", "monotonic_ns"],
        "os": ["urandom", "open"],
        "random": ["random", "getrandbits"],
    }.items():
        for name in names:
            monkeypatch.setattr(f"{module}.{name}", None)
    digest = replay(history.events).digest()
    monkeypatch.undo()
    assert digest == history.digests[-1]


def test_a_log_of_an_earlier_version_that_leads_to_another_state():
    """Three walks as the first version recorded and digested them, before leases had a ttl and findings a count."""
    lines = (Path(__file__).parent / "logs" / "format-1-walks.jsonl").read_bytes().splitlines()
    walks = [msgspec.json.decode(line, type=tuple[str, list[Event]]) for line in lines]
    assert len(walks) == 3
    for digest, events in walks:
        assert replay(events).digest() == digest
