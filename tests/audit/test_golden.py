"""Logs as the first version recorded them, and what is answered from them. `python -m tests.audit.test_golden --write` writes it anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest

from portfsm import audit
from portfsm.audit import Moment
from portfsm.events import Event

LOGS = Path(__file__).parents[1] / "logs" / "format-1-walks.jsonl"
GOLDEN = Path(__file__).parent / "golden.json"


def walks() -> list[list[Event]]:
    return [msgspec.json.decode(line, type=tuple[str, list[Event]])[1] for line in LOGS.read_bytes().splitlines()]


def answers(events: list[Event]) -> dict:
    """One of each question."""
    found = list(audit.spans(audit.Replay().checked(events)))
    last = max(found, key=lambda span: span.from_seq)
    middle = Moment(seq=len(events) // 2)
    states = [audit.state_at(events, moment) for moment in (middle, Moment(ts=events[-1].ts))]
    return {
        "spans": [
            [*span.place, span.state.value, span.owner, span.service, span.token, span.from_ns, span.to_ns, span.until_ns] for span in found
        ],
        "who": [span.token for span in audit.who(events, last.pool, last.port, node=last.node, at=middle, within_s=10)],
        "reuses": [[reuse.before.token, reuse.after.token, reuse.gap_ns, reuse.stranger] for reuse in audit.reuses(found)],
        "distances": [msgspec.to_builtins(pair) for pair in audit.distances(audit.reuses(found))],
        "early": [[free.span.ended.seq, free.cause, free.early_ns] for free in audit.early_frees(found)],
        "exhausted": [msgspec.to_builtins(each) for each in audit.exhaustions(events)],
        "leaks": [[leak.span.token, leak.cause] for leak in audit.leaks(found)],
        "conflicts": [[each.seq, each.kind, each.recorded, each.claimant] for each in audit.conflicts(found)],
        "longest": [[*span.place, span.from_ns] for span in audit.longest(found, 3, now_ns=events[-1].ts)],
        "diff": [[pair.after.port, pair.before.state.value, pair.after.state.value] for pair in audit.diff(*states)],
    }


@pytest.mark.parametrize("number", range(3))
def test_an_old_log_is_answered_from_otherwise(number):
    assert json.loads(json.dumps(answers(walks()[number]))) == json.loads(GOLDEN.read_text())[number]


def test_a_question_is_never_asked_of_an_old_log():
    """Each answer says something in one of the logs, or could not change."""
    found = [answers(events) for events in walks()]
    assert {key for key in found[0] if not any(answer[key] for answer in found)} == {"early", "leaks"}


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.audit.test_golden --write")
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(answers(events)) for events in walks()) + "\n]\n")
