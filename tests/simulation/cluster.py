"""etcd in this process, as far as the library's own client speaks with it: keys with revisions, transactions, leases by the cluster's clock.

Rule: as in `server`. A request is one step, whole or not at all, and answered as etcd's JSON gateway answers it.
"""

from __future__ import annotations

import base64
import json
import re
from functools import partial

import httpx
import msgspec

from portfsm.journals._etcd_store import Keys, Shelf
from portfsm.journals._reader import read_directory

from .link import Faulty, Unanswered
from .machines import ETCD, HERE

SECOND = 1_000_000_000
NO_LEADER = 503
GROWS = ("kv/txn", "lease/grant")
_SEQ = re.compile(rb'^\{"seq":(\d+)', re.MULTILINE)


class Key(msgspec.Struct):
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int


class Cluster(Faulty):
    """One log in one etcd."""

    def __init__(self, world):
        super().__init__(world)
        self.keys, self.held, self.leases = Keys(ETCD.name), {}, {}
        self.revision, self.lease_count = 1, 0
        self._read = (0, [])
        self._does = {
            "kv/range": self._range, "kv/txn": self._txn, "lease/grant": self._grant, "lease/keepalive": self._keep,
            "lease/revoke": self._revoke, "maintenance/status": self._status,
        }  # fmt: skip

    # ------------------------------------------------------------------ what the judge asks

    @property
    def epoch(self):
        """Whose it is; -1 while it is nobody's."""
        lead = self.held.get(self.keys.lead)
        return json.loads(lead.value)["epoch"] if lead is not None else -1

    @property
    def free(self):
        self._expire()
        return self.keys.lead not in self.held

    def events(self):
        """The log as a reader finds it, every byte proven."""
        if self._read[0] != self.revision:
            there = self.keys.epoch in self.held and any(key.startswith(self.keys.files) for key in self.held)
            self._read = self.revision, list(read_directory(Shelf(Direct(self)))) if there else []
        return list(self._read[1])

    def go_back_to(self, other):
        """Be what another was. Its clock and its faults stay, and leases begin anew, as after any start."""
        self.held, self.revision = dict(other.held), other.revision
        self.leases = {lease: (ttl_s, self.now() + ttl_s * SECOND) for lease, (ttl_s, _) in other.leases.items()}
        self._read = (0, [])

    # ------------------------------------------------------------------ requests

    def run(self, path, body):
        """The answer to one request: a status and what it says."""
        self._expire()
        if self.read_only:
            return NO_LEADER, {"code": 14, "message": "etcdserver: no leader"}
        if self.full and path in GROWS:
            return 429, {"code": 8, "message": "etcdserver: mvcc: database space exceeded"}
        return 200, self._does[path](body)

    def _expire(self):
        for lease, (_, until_ns) in list(self.leases.items()):
            if until_ns < self.now() and not self.patient:
                self._end_lease(lease, given_up=False)

    def _end_lease(self, lease, *, given_up):
        epoch = self.epoch
        self.leases.pop(lease, None)
        gone = [key for key, kept in self.held.items() if kept.lease == lease]
        self.revision += bool(gone)
        for key in gone:
            del self.held[key]
            if key == self.keys.lead:
                self.world.deposed(epoch, given_up=given_up)

    def _between(self, body):
        key, end = _bytes(body["key"]), _bytes(body.get("range_end", ""))
        return sorted(held for held in self.held if (key <= held < end if end else held == key))

    def _range(self, body):
        keys = self._between(body)[:: -1 if body.get("sort_order") == "DESCEND" else 1]
        keys = keys[: int(body.get("limit", 0)) or None]
        found = [msgspec.structs.replace(self.held[key], value=b"" if body.get("keys_only") else self.held[key].value) for key in keys]
        return {"kvs": found, "header": {"revision": self.revision}}

    def _holds(self, compare):
        kept = self.held.get(_bytes(compare["key"]))
        if compare["target"] == "VALUE":
            return kept is not None and kept.value == _bytes(compare["value"])
        field = {"CREATE": "create_revision", "MOD": "mod_revision"}[compare["target"]]
        return (getattr(kept, field) if kept else 0) == int(compare[field])

    def _txn(self, body):
        succeeded = all(map(self._holds, body["compare"]))
        parts = body["success" if succeeded else "failure"]
        self.revision += any(map(self._changes, parts))
        responses = [self._part(*next(iter(part.items()))) for part in parts]
        return {"succeeded": succeeded, "responses": responses, "header": {"revision": self.revision}}

    def _changes(self, part):
        return "request_put" in part or ("request_delete_range" in part and bool(self._between(part["request_delete_range"])))

    def _part(self, name, body):
        if name == "request_range":
            return {"response_range": self._range(body)}
        if name == "request_delete_range":
            for key in self._between(body):
                del self.held[key]
            return {}
        key, value, was = _bytes(body["key"]), _bytes(body["value"]), self.held.get(_bytes(body["key"]))
        made = was.create_revision if was else self.revision
        self.held[key] = Key(key, value, made, self.revision, int(body["lease"]))
        if key == self.keys.lead:
            self.tops[self.epoch] = max(self.tops.values(), default=0)
        elif key.startswith(self.keys.files) and b".snap." not in key and (seqs := _SEQ.findall(value)):
            self.tops[self.epoch] = int(seqs[-1])
        return {}

    def _grant(self, body):
        self.lease_count += 1
        self.leases[self.lease_count] = int(body["TTL"]), self.now() + int(body["TTL"]) * SECOND
        return {"ID": str(self.lease_count), "TTL": body["TTL"]}

    def _keep(self, body):
        lease = int(body["ID"])
        if lease not in self.leases:
            return {"result": {"ID": str(lease)}}
        ttl_s = self.leases[lease][0]
        self.leases[lease] = ttl_s, self.now() + ttl_s * SECOND
        return {"result": {"ID": str(lease), "TTL": str(ttl_s)}}

    def _revoke(self, body):
        self._end_lease(int(body["ID"]), given_up=True)
        return {}

    def _status(self, body):
        return {"dbSizeInUse": str(ETCD.quota_bytes if self.full else 0)}


def _bytes(text):
    return base64.b64decode(text)


class Direct:
    """In the place of a client, for the judge: nothing comes between."""

    place = ETCD

    def __init__(self, cluster):
        self.cluster = cluster

    def ask(self, path, body, kind, **_):
        answer = self.cluster._does[path](msgspec.json.decode(msgspec.json.encode(body)))
        return msgspec.json.decode(msgspec.json.encode(answer), type=kind, strict=False), False

    def close(self):
        pass


def word_for(path, body):
    """What a request is, in the words of the story."""
    puts = [_bytes(part["request_put"]["key"]) for part in body.get("success", ()) if "request_put" in part]
    if path == "kv/txn" and any(key.endswith(b"/lead") for key in puts):
        return "take-over"
    if path == "kv/txn" and any(b".jsonl/" in key and b".snap." not in key for key in puts):
        return "append"
    return {"lease/keepalive": "sign of life", "lease/revoke": "giving up"}.get(path, "another question")


def send(client, path, body, left_s, headers=None):
    """In the place of `Client._send`: one request, over the link of whoever asks."""
    controller, asked = HERE.get(), msgspec.json.decode(body)
    link, asked_ns = controller.machine.link, controller.world.true_ns
    word, act = word_for(path, asked), partial(link.server.run, path, asked)
    try:
        status, answer = link.carry(word, act, connected=link.life == link.server.life)
    except Unanswered:
        link.life = link.server.life
        if link.cut or link.server.down:
            controller.waited_s += client.patience_s  # before this job was begun
        raise httpx.ReadTimeout("no answer in time") from None
    if status == NO_LEADER:  # it would try until its patience ends, and nobody else had a turn meanwhile
        controller.waited_s += client.patience_s
    if path == "lease/grant" or word == "sign of life":
        ttl_s = int((answer.get("result") or answer).get("TTL", 0))
        controller.over_ns = asked_ns + ttl_s * SECOND if ttl_s else controller.over_ns
    return httpx.Response(status, content=msgspec.json.encode(answer))
