"""Every answer equals what a replay tells that keeps a copy of the whole state after each event and looks it up there."""

from __future__ import annotations

from itertools import groupby, pairwise

from hypothesis import given
from hypothesis import strategies as st

from portfsm import Ledger, PortState, audit
from portfsm._dump import dump, load
from portfsm._replay import replay
from portfsm.audit import Moment
from tests.audit.walks import HISTORIES, SECOND, Known

TIMES = st.integers(-2, 60).map(lambda half_seconds: half_seconds * SECOND // 2)


def told(span) -> tuple:
    """A span without the events it remembers."""
    return (*span.place, span.state, span.owner, span.service, span.token, span.from_ns, span.to_ns, span.until_ns)


def is_lost(known: Known, seq: int, place) -> bool:
    node, pool, port = place
    return known.states[seq].pool(pool, node).is_lost(port)


def lived(known: Known, place) -> list[int]:
    """The seqs from the port's first event on."""
    first = next(event.seq for event in known.events if (event.node, event.pool, event.port) == place)
    return list(range(first, len(known.states)))


@given(HISTORIES)
def test_a_span_says_other_than_the_ledger_at_some_moment(known):
    found = list(audit.spans(known.events))
    for place in known.places:
        life = [span for span in found if span.place == place]
        for seq in lived(known, place):
            (span,) = [span for span in life if span.covers(Moment(seq=seq))]
            if not is_lost(known, seq, place):
                view = known.view(seq, place)
                assert (span.state, span.owner, span.service, span.token) == (view.state, view.owner, view.service, view.token)
                if span.began and not any(event.kind == "held" for event in span.events):
                    assert span.until_ns == view.until
        assert all(before.to_ns == after.from_ns and before.ended == after.began for before, after in pairwise(life))
        assert life[-1].ended is None


@given(HISTORIES, st.data())
def test_a_life_from_a_snapshot_on_is_another(known, data):
    seq = data.draw(st.integers(0, len(known.events)))
    whole = [told(span) for span in audit.spans(known.events) if span.ended is None or span.ended.seq > seq]
    later = [told(span) for span in audit.spans(known.events[seq:], since=known.states[seq])]
    assert later == whole


@given(HISTORIES, st.data())
def test_a_holder_at_or_around_a_moment_is_missed_or_made_up(known, data):
    if not known.places:
        return
    node, pool, port = place = data.draw(st.sampled_from(known.places))
    start = known.ts(1)
    by_time = data.draw(st.booleans())
    seq = data.draw(st.integers(0, len(known.events)))
    at = Moment(ts=start + data.draw(TIMES)) if by_time else Moment(seq=seq)
    within_s = data.draw(st.sampled_from([0, 0.5, 3, 20]))
    if not by_time and not seq and within_s:
        return
    found = audit.who(known.events, pool, port, node=node, at=at, within_s=within_s)

    at_ns = at.ts if by_time else known.ts(seq)
    low, high = at_ns - within_s * SECOND, at_ns + within_s * SECOND
    if within_s:
        then = max((number for number in range(len(known.states)) if known.ts(number) <= low), default=0)
        seqs = [then, *(number for number in range(1, len(known.states)) if low <= known.ts(number) <= high)]
    elif by_time:
        seqs = [max((number for number in range(len(known.states)) if known.ts(number) <= at_ns), default=0)]
    else:
        seqs = [seq]
    every = audit.life(known.events, pool, port, node=node)
    began = {
        max((span.from_seq for span in every if span.from_seq <= number), default=0) for number in seqs if number in lived(known, place)
    }
    assert {span.from_seq for span in found} == began
    assert list(found) == sorted(found, key=lambda span: span.from_seq)
    for number in seqs:
        if number in lived(known, place) and not is_lost(known, number, place):
            view = known.view(number, place)
            assert (view.state, view.owner, view.token) in [(span.state, span.owner, span.token) for span in found]


@given(HISTORIES, st.data())
def test_the_state_at_a_moment_is_another(known, data):
    seq, since = data.draw(st.integers(0, len(known.events))), data.draw(st.integers(0, len(known.events)))
    assert audit.state_at(known.events, Moment(seq=seq)).digest() == known.states[seq].digest()
    if since <= seq:
        onto = known.states[since].copy()
        assert audit.state_at(known.events[since:], Moment(seq=seq), since=onto).digest() == known.states[seq].digest()
    ts = known.ts(1) + data.draw(TIMES)
    last = max((number for number in range(len(known.states)) if known.ts(number) <= ts), default=0)
    assert audit.state_at(known.events, Moment(ts=ts)).digest() == known.states[last].digest()


@given(HISTORIES, st.data())
def test_a_difference_is_missed_or_made_up(known, data):
    one, two = data.draw(st.integers(0, len(known.events))), data.draw(st.integers(0, len(known.events)))
    found = {
        (pair.after.node, pair.after.pool, pair.after.port): ((pair.before.state, pair.before.owner), (pair.after.state, pair.after.owner))
        for pair in audit.diff(known.states[one], known.states[two])
    }
    expected = {}
    for node in ("", "node-b"):
        for port in range(99, 106):
            listed = any((view.node, view.port) == (node, port) for seq in (one, two) for view in known.states[seq].ports())
            views = [known.view(seq, (node, "p", port)) for seq in (one, two)] if listed else []
            sides = [(view.state, view.owner) if view else (PortState.FREE, "") for view in views]
            if listed and sides[0] != sides[1]:
                expected[node, "p", port] = tuple(sides)
    assert found == expected


@given(HISTORIES)
def test_an_exhaustion_is_missed_or_made_up(known):
    expected, lasting = [], {}
    for ts, events in groupby(known.events, key=lambda event: event.ts):
        seq = max(event.seq for event in events)
        state = known.states[seq]
        for place in sorted(state.pools):
            free = state.pools[place].statistics().free
            if not free and place not in lasting:
                lasting[place] = (ts, seq)
            elif free and place in lasting:
                expected.append((*place, *lasting.pop(place), ts, seq))
    expected = sorted(expected) + sorted((*place, *begin, None, None) for place, begin in lasting.items())
    found = list(audit.exhaustions(known.events))
    ended = [each for each in found if each.to_ns is not None]
    assert found[: len(ended)] == ended
    as_tuples = [(each.node, each.pool, each.from_ns, each.from_seq, each.to_ns, each.to_seq) for each in found]
    assert sorted(as_tuples[: len(ended)]) + sorted(as_tuples[len(ended) :]) == expected


@given(HISTORIES)
def test_a_holder_or_a_lease_is_missing_from_a_life(known):
    found = list(audit.spans(known.events))
    leases = {
        (view.node, view.pool, view.port, view.owner, view.service, view.token)
        for state in known.states
        for view in state.ports(state=PortState.ALLOCATED)
    }
    assert {(*span.place, span.owner, span.service, span.token) for span in audit.held_by(found)} == leases
    for owner in "abc":
        assert [span.token for span in audit.held_by(found, owner=owner)] == sorted(lease[5] for lease in leases if lease[3] == owner)
    for service in ("", "x"):
        assert [span.token for span in audit.held_by(found, service=service)] == sorted(lease[5] for lease in leases if lease[4] == service)


@given(HISTORIES)
def test_two_holders_are_said_to_be_nearer_or_further_apart_than_they_were(known):
    ends, last, expected = {}, {}, []
    for event in known.events:
        place = (event.node, event.pool, event.port)
        if event.kind in ("allocated", "adopted"):
            if place in ends:
                expected.append((place, *last[place], event.owner, event.service, event.ts - ends[place]))
            last[place] = (event.owner, event.service)
        elif event.kind == "released" or (event.kind == "blocked" and event.token):
            ends[place] = event.ts
    found = list(audit.reuses(audit.spans(known.events)))
    as_tuples = [
        (each.before.place, each.before.owner, each.before.service, each.after.owner, each.after.service, each.gap_ns) for each in found
    ]
    assert sorted(as_tuples) == sorted(expected)
    for each in found:
        inherits = each.before.service == each.after.service != ""
        assert each.stranger == (each.before.owner != each.after.owner and not inherits)

    pairs = {}
    for _, _, before, _, after, gap in expected:
        pairs.setdefault((before, after), []).append(gap)
    for pair in audit.distances(found):
        gaps = sorted(pairs.pop((pair.before, pair.after)))
        middle = (gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) // 2
        assert (pair.count, pair.least_ns, pair.most_ns, pair.median_ns) == (len(gaps), gaps[0], gaps[-1], middle)
    assert pairs == {}


@given(HISTORIES)
def test_a_hold_that_ended_early_goes_unseen(known):
    expected = set()
    for event in known.events:
        if event.kind == "freed":
            view = known.view(event.seq - 1, (event.node, event.pool, event.port))
            if view.until and event.ts < view.until and not is_lost(known, event.seq - 1, (event.node, event.pool, event.port)):
                expected.add((event.seq, event.cause, event.reason, view.until - event.ts))
    found = {(each.span.ended.seq, each.cause, each.reason, each.early_ns) for each in audit.early_frees(audit.spans(known.events))}
    assert found == expected


@given(HISTORIES)
def test_a_leak_or_a_conflict_goes_unseen(known):
    found = list(audit.spans(known.events))
    forgotten = {event.seq for event in known.events if event.kind == "released" and event.cause in ("reconciled", "expired")}
    assert {leak.span.ended.seq for leak in audit.leaks(found)} == forgotten
    assert all(leak.cause == leak.span.ended.cause for leak in audit.leaks(found))
    claims = {}
    for event in known.events:
        against = event.kind == "adopted" and event.reason
        if against or (event.kind == "blocked" and event.cause in ("conflict", "address-in-use")):
            before = known.view(event.seq - 1, (event.node, event.pool, event.port))
            claims[event.seq] = before.owner
    assert {conflict.seq: conflict.recorded for conflict in audit.conflicts(found)} == claims


@given(HISTORIES, st.integers(0, 5))
def test_a_longer_hold_is_left_out(known, count):
    found = list(audit.spans(known.events))
    now = known.ts(len(known.events)) + 5 * SECOND
    lengths = sorted((span.lasted_ns(now) for span in found if span.state is PortState.QUARANTINED), reverse=True)
    assert [span.lasted_ns(now) for span in audit.longest(found, count, now_ns=now)] == lengths[:count]


@given(HISTORIES, st.data())
def test_a_state_read_back_from_its_lines_goes_on_otherwise(known, data):
    """What a snapshot keeps is all there is: the same digest, and the same after everything that followed."""
    seq = data.draw(st.integers(0, len(known.events)))
    ledger = Ledger()
    load(ledger, [line.removesuffix(b"\n") for line in dump(known.states[seq])])
    assert ledger.digest() == known.states[seq].digest()
    assert replay(known.events[seq:], onto=ledger).digest() == known.states[-1].digest()
