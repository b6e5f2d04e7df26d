"""The simulated servers against real ones: the same questions, the same answers. What they would do differently, no story could find."""

from __future__ import annotations

import json
import random

import msgspec
import pytest

from portfsm.journals import _etcd_wire as wire
from portfsm.journals import _pg_schema as sql
from portfsm.journals._etcd_client import Client
from portfsm.journals._etcd_url import parse
from portfsm.journals._pg_place import Place
from portfsm.journals._pg_session import Session
from portfsm.journals.postgres import PostgresJournal
from tests.simulation.cluster import Cluster
from tests.simulation.server import Server


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
        before = chance.choice((self.digest, self.digest, self.digest, chance.randbytes(32)))
        lines = "\n".join(f'{{"line":{chance.getrandbits(40)},"c":"{chance.getrandbits(32):08x}"}}' for _ in range(count))
        lease_s = chance.choice((-1000.0, 1000.0))
        body = chance.randbytes(5)
        return chance.choice((
            (sql.TAKE_OVER, {"name": self.name, "holder": f"h{chance.randint(0, 9)}", "pid": 7, "lease_s": lease_s}),
            (sql.RENEW, {"log": log, "epoch": epoch, "seq": seq, "digest": before, "lease_s": lease_s}),
            (sql.GIVE_UP, {"log": log, "epoch": epoch, "digests": [before, chance.randbytes(32)]}),
            (sql.APPEND, {"log": log, "epoch": epoch, "seq": seq, "count": count, "before": before, "digest": chance.randbytes(32), "lines": lines, "lease_s": lease_s}),
            (sql.APPEND, {"log": log, "epoch": self.epoch, "seq": self.seq, "count": count, "before": self.digest, "digest": chance.randbytes(32), "lines": lines, "lease_s": lease_s}),
            (sql.LAST_LINE, {"log": log, "seq": seq}),
            (sql.PAGE, {"log": log, "after": max(0, self.seq - chance.randint(0, 9)), "upto": self.seq}),
            (sql.FIND_LOG, {"name": self.name}),
            (sql.SNAPSHOT_SAVE, {"log": log, "epoch": epoch, "seq": seq, "digest": before, "at": seq, "sha256": body, "body": body}),
            (sql.SNAPSHOT_DROP, {"log": log, "kept": 2}),
            (sql.SNAPSHOT_LOAD, {"log": log, "seq": seq}),
            (sql.WHO_LEADS, {"name": self.name}),
            (sql.CURRENT, {}),
        ))  # fmt: skip

    def heard(self, statement, rows):
        if statement is sql.FIND_LOG:
            self.epoch, self.seq, self.digest = rows[0][2:5]


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


class Requests:
    """Requests as a writer of etcd might send them, right and wrong ones."""

    def __init__(self, seed):
        self.chance, self.keys = (
            random.Random(seed),
            [f"simulated/{seed}/{name}".encode() for name in ("lead", "epoch", "f/1", "f/2", "f/3")],
        )
        self.lease, self.revisions = "0", {"0"}

    def some(self):
        chance, key = self.chance, self.chance.choice(self.keys)
        end = chance.choice((b"", b"", wire.end_of(self.keys[2][:-1])))
        options = chance.choice(({}, {"limit": "1"}, {"keys_only": True}, {"limit": "1", "sort_order": "DESCEND", "sort_target": "KEY"}))
        compare = chance.choice((wire.created, wire.modified))(chance.choice(self.keys), int(chance.choice(sorted(self.revisions))))
        compare = chance.choice((compare, compare, wire.holds(chance.choice(self.keys), b"x")))
        change = chance.choice((wire.put(key, chance.randbytes(3)), wire.put(key, b"x", lease=int(self.lease)), wire.delete(key, end)))
        return chance.choice((
            ("kv/range", {"key": key, "range_end": end, **options}),
            ("kv/txn", wire.transaction([compare], [change, wire.fetch(key, end)], [wire.fetch(key), wire.fetch(key, end)])),
            ("kv/txn", wire.transaction([wire.created(key, 0)], [change], [wire.fetch(key)])),
            ("lease/grant", {"TTL": "1000"}),
            ("lease/keepalive", {"ID": self.lease}),
            ("lease/revoke", {"ID": self.lease}) if self.lease != "0" else ("lease/keepalive", {"ID": "77"}),
        ))  # fmt: skip


def same(answer, first):
    """An answer without what differs from cluster to cluster: revisions count from where the log began, and no lease has its number."""
    if isinstance(answer, list):
        return [same(each, first) for each in answer]
    if not isinstance(answer, dict):
        return answer
    revisions = {name: int(answer[name]) - first for name in ("revision", "create_revision", "mod_revision") if name in answer}
    left_out = (*revisions, "header", "ID", "lease", "version", "count", "more", "cluster_id", "member_id", "raft_term", "deleted")
    kept = {name: same(value, first) for name, value in answer.items() if name not in left_out}
    return revisions | {name: value for name, value in kept.items() if value not in ({}, [], False, "")}


@pytest.mark.parametrize("seed", range(4))
def test_the_simulated_cluster_answers_otherwise_than_etcd(etcd_url, seed):
    """Request by request, with revisions that are right and wrong, leases that are there and gone."""
    client, cluster = Client(parse(etcd_url), patience_s=10.0), Cluster(StillWorld())
    requests, kinds = Requests(seed), set()
    there_first = int(client.ask("kv/range", {"key": b"none"}, dict)[0]["header"]["revision"])
    leases = {"0": "0", "77": "77"}
    for _ in range(300):
        path, body = requests.some()
        there = client.ask(path, body, dict)[0]
        body = json.loads(wire.encode(body))
        for part in (body, *(part.get("request_put", {}) for part in body.get("success", ()))):
            for name in {"ID", "lease"} & set(part):
                part[name] = leases[str(part[name])]
        for part in body.get("compare", ()):
            for name in [name for name in part if name.endswith("revision")]:
                part[name] = str(max(0, int(part[name]) - there_first + 1))
        status, here = cluster.run(path, body)
        here = json.loads(msgspec.json.encode(here))
        assert status == 200
        assert same(here, 1) == same(there, there_first), (path, body)
        if path == "kv/txn":  # from which the writer learns which leader it is
            assert here["header"]["revision"] - 1 == int(there["header"]["revision"]) - there_first, (path, body)
        kinds.add((path, bool(there.get("succeeded")), "kvs" in str(there)))
        requests.revisions |= {str(pair["create_revision"]) for pair in there.get("kvs", ())} | {"0"}
        if path == "lease/grant":
            leases[there["ID"]], requests.lease = here["ID"], there["ID"]
        requests.lease = "0" if path == "lease/revoke" else requests.lease
    client.close()
    assert len(kinds) >= 8
