"""Controllers that share a log, as part of the suite: a quick run, the long one, proof that it notices, and a server that answers as PostgreSQL does."""

from __future__ import annotations

import random

import pytest

from portfsm.journals import _pg_schema as sql
from portfsm.journals._pg_place import Place
from portfsm.journals._pg_session import Session
from portfsm.journals.postgres import PostgresJournal
from tests.simulation.broken import SHARED
from tests.simulation.many import explain, many
from tests.simulation.server import Server
from tests.simulation.story import tell

HAPPENED = """
    took the lead|lead was lost|lead was given up|kill|machine restarted|left
    partition|process paused|machine suspended|stale leader was asked|leader slept and still leads
    append: question lost|append: answer lost|append: late|sign of life: question lost|sign of life: answer lost|sign of life: late
    take-over: question lost|take-over: answer lost|take-over: late|giving up: question lost|giving up: answer lost|giving up: late
    what was late arrived|server answers nobody|server takes no writes|server fails over to its stand-by|server is full
    server's clock step|wall clock step|events lost before anybody was told|opened from a snapshot
    allocate Fenced|allocate OutcomeUnknown|allocate JournalUnreadable|allocate JournalFull|renew Fenced|release Fenced
    controller ended by Fenced|controller ended by OutcomeUnknown|controller ended by JournalUnreadable
    event held reboot|event released expired|event freed evidence|event freed elapsed|event proxy_joined|waiter was served|answered twice
"""


def test_a_promise_is_broken_where_the_log_is_shared():
    """One process: what else runs meanwhile has the other cores."""
    found = many(0, 60, 200, shared=True, processes=1, chunk=60)
    assert not found.failures, explain(found.failures[0][0], 200, shared=True)
    never = [what for line in HAPPENED.strip().splitlines() for what in line.strip().split("|") if not found.hits[what]]
    assert not never


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_promise_is_broken_once_in_a_thousand_stories_of_a_shared_log(times):
    found = many(60, 1000 * times, 200, shared=True)
    assert not found.failures, explain(found.failures[0][0], 200, shared=True)
    assert found.hits["lead was lost"] > 3000


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHARED)
def test_a_safeguard_of_the_shared_log_is_off_and_nobody_notices(name):
    assert many(0, 200, 200, name=name, enough=1, chunk=2, shared=True).failures


def test_a_failing_seed_of_a_shared_log_does_not_say_how_to_see_it_again():
    with SHARED["a_refusal_is_not_heard"]():
        failing = next(seed for seed in range(20) if tell(seed, shared=True).failure)
    text = explain(failing, 200, name="a_refusal_is_not_heard", shared=True)
    assert f"python -m tests.simulation --seed {failing} --steps 200 --shared --broken a_refusal_is_not_heard" in text
    assert int(text.split(" steps are enough")[0].rsplit("\n", 1)[1]) < 60


# ---------------------------------------------------------------------- the server


class Statements:
    """Statements as two writers and a reader might send them, right and wrong ones."""

    def __init__(self, seed, name, header, log):
        self.chance, self.name, self.log = random.Random(seed), name, log
        self.epoch = self.seq = 0
        self.digest = b"first"

    def some(self):
        chance, log = self.chance, self.log
        epoch = chance.choice((self.epoch, self.epoch, self.epoch, self.epoch - 1, self.epoch + 1))
        seq = chance.choice((self.seq, self.seq, self.seq, max(0, self.seq - 1), self.seq + 1))
        count = chance.randint(1, 3)
        lines = "\n".join(f'{{"line":{chance.getrandbits(40)},"c":"{chance.getrandbits(32):08x}"}}' for _ in range(count))
        lease_s = chance.choice((-1000.0, 1000.0))
        body = chance.randbytes(5)
        return chance.choice((
            (sql.TAKE_OVER, {"name": self.name, "holder": f"h{chance.randint(0, 9)}", "pid": 7, "lease_s": lease_s}),
            (sql.RENEW, {"log": log, "epoch": epoch, "lease_s": lease_s}),
            (sql.GIVE_UP, {"log": log, "epoch": epoch}),
            (sql.APPEND, {"log": log, "epoch": epoch, "seq": seq, "count": count, "digest": chance.randbytes(32), "lines": lines, "lease_s": lease_s}),
            (sql.APPEND, {"log": log, "epoch": self.epoch, "seq": self.seq, "count": count, "digest": chance.randbytes(32), "lines": lines, "lease_s": lease_s}),
            (sql.LAST_LINE, {"log": log, "seq": seq}),
            (sql.PAGE, {"log": log, "after": max(0, self.seq - chance.randint(0, 9)), "upto": self.seq}),
            (sql.FIND_LOG, {"name": self.name}),
            (sql.SNAPSHOT_SAVE, {"log": log, "epoch": epoch, "at": seq, "sha256": body, "body": body}),
            (sql.SNAPSHOT_DROP, {"log": log, "kept": 2}),
            (sql.SNAPSHOT_LOAD, {"log": log, "seq": seq}),
            (sql.WHO_LEADS, {"name": self.name}),
            (sql.CURRENT, {}),
        ))  # fmt: skip

    def heard(self, statement, rows):
        if statement is sql.FIND_LOG:
            self.epoch, self.seq = rows[0][2:4]


class StillWorld:
    true_ns = 0

    def deposed(self, epoch, *, given_up):
        pass


def rows_of(statement, rows):
    """As both can give them: without the log's number and PostgreSQL's own types."""
    plain = [tuple(bytes(value) if isinstance(value, memoryview) else value for value in row) for row in rows]
    if statement in (sql.TAKE_OVER, sql.FIND_LOG):
        return [row[1:] for row in plain]
    if statement is sql.WHO_LEADS:
        return [(*row[:2], row[2] > 0) for row in plain]
    return [(row[0],) for row in plain] if statement is sql.APPEND else plain


@pytest.mark.parametrize("seed", range(4))
def test_the_simulated_server_answers_otherwise_than_postgresql(postgres_url, seed):
    """Statement by statement, with epochs and ends that are right, too old and too new, and leases that are over or not."""
    place = Place.parse(postgres_url)
    PostgresJournal.from_url(postgres_url).init()
    session, server = Session(place, timeout_s=10.0, writing=True), Server(StillWorld())
    log, header, *_, digest = session.ask(sql.FIND_LOG, name=place.log)[0]
    server.row.header, server.row.digest = header, digest
    statements = Statements(seed, place.log, header, log)
    done = set()
    for _ in range(400):
        statement, values = statements.some()
        here, there = rows_of(statement, server.run(statement, values)), rows_of(statement, session.ask(statement, **values))
        assert here == there, (statement, values)
        done.add((statement, bool(there) and there[0][0] not in (0, None)))
        statements.heard(sql.FIND_LOG, server.run(sql.FIND_LOG, {"name": place.log}))
    session.close()
    assert len(done) >= 16, "too many statements never did anything, or never nothing"
