"""The server of a shared log, in this process: what it keeps, its own clock, and the statements that the real client sends.

Rule: the client is the library's own (`PostgresJournal`); here is only what PostgreSQL does for it. A statement is one step, whole or not at all, as
`_pg_schema` has it: what they say in SQL stands here once more in Python, and nothing else does.
"""

from __future__ import annotations

from copy import copy
from hashlib import sha256

from psycopg import errors

from portfsm.journals import _pg_schema as sql
from portfsm.journals._chain import Chain, begin

from .link import Faulty

SECOND = 1_000_000_000


class Row:
    """The log's row."""

    def __init__(self):
        self.header = begin("5" * 32).decode()
        self.digest = sha256(self.header[:-1].encode()).digest()
        self.epoch = self.seq = self.pid = 0
        self.holder = self.former = ""
        self.lease_until = None


class Server(Faulty):
    """One log on one PostgreSQL."""

    def __init__(self, world):
        super().__init__(world)
        self.row = Row()
        self.lines, self.digests, self.snapshots = [], {}, {}
        self._events, self._chain = [], Chain(self.row.header.encode(), "the simulated server")
        self._does = {
            sql.CURRENT: lambda: [(sql.VERSION,)], sql.FIND_LOG: self._find, sql.TAKE_OVER: self._take_over, sql.WHO_LEADS: self._who_leads,
            sql.RENEW: self._renew, sql.GIVE_UP: self._give_up, sql.APPEND: self._append, sql.LAST_LINE: self._last_line, sql.PAGE: self._page,
            sql.SNAPSHOT_SAVE: self._save, sql.SNAPSHOT_DROP: self._drop, sql.SNAPSHOT_LOAD: self._load,
        }  # fmt: skip

    # ------------------------------------------------------------------ what the judge asks

    @property
    def epoch(self):
        """Whose it is."""
        return self.row.epoch

    @property
    def free(self):
        """Nobody need be waited for."""
        return self.row.lease_until is None or self.row.lease_until < self.now()

    def events(self):
        """The log as a reader finds it, every line proven."""
        if len(self._events) < len(self.lines):
            self._events += self._chain.read("".join(line + "\n" for line in self.lines[len(self._events) :]).encode())
        return list(self._events)

    def go_back_to(self, other):
        """Be what another was. Its clock and its faults stay."""
        self.row, self.lines = copy(other.row), list(other.lines)
        self.digests, self.snapshots = dict(other.digests), dict(other.snapshots)
        self._events, self._chain = [], Chain(self.row.header.encode(), "the simulated server")

    # ------------------------------------------------------------------ statements

    def run(self, statement, values):
        """The rows of one statement, or what PostgreSQL refuses it with."""
        if self.read_only and statement in (sql.APPEND, sql.TAKE_OVER, sql.RENEW, sql.GIVE_UP, sql.SNAPSHOT_SAVE, sql.SNAPSHOT_DROP):
            raise errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction")
        if self.full and statement in (sql.APPEND, sql.SNAPSHOT_SAVE):
            raise errors.DiskFull("could not extend file: No space left on device")
        return self._does[statement](**values)

    def _lease(self, lease_s):
        self.row.lease_until = self.now() + round(lease_s * SECOND)

    def _find(self, name):
        row = self.row
        return [(1, row.header, row.epoch, row.seq, row.digest)]

    def _take_over(self, name, holder, pid, lease_s):
        row = self.row
        if row.lease_until is not None and row.lease_until >= self.now():
            return []
        self.world.deposed(row.epoch, given_up=row.lease_until is None)
        row.epoch, row.former, row.holder, row.pid = row.epoch + 1, row.holder if row.lease_until is not None else "", holder, pid
        self.tops[row.epoch] = row.seq
        self._lease(lease_s)
        return [(1, row.header, row.epoch, row.seq, row.digest, row.former)]

    def _who_leads(self, name):
        left_ns = (self.row.lease_until or 0) - self.now()
        return [(self.row.holder, self.row.pid, max(0, left_ns) / SECOND)]

    def _renew(self, log, epoch, seq, digest, lease_s):
        if (epoch, seq, digest) != (self.row.epoch, self.row.seq, self.row.digest):
            return []
        self._lease(lease_s)
        return [(1,)]

    def _give_up(self, log, epoch, digests):
        if epoch == self.row.epoch and self.row.digest in digests:
            self.row.lease_until = None
        return []

    def _append(self, log, epoch, seq, count, before, digest, lines, lease_s):
        row = self.row
        if (epoch, seq, before) != (row.epoch, row.seq, row.digest):
            return [(0, None)]
        added = lines.split("\n")
        self.lines += added
        row.seq, row.digest = seq + count, digest
        self.digests[row.seq], self.tops[epoch] = digest, row.seq
        self._lease(lease_s)
        return [(len(added), None)]

    def _last_line(self, log, seq):
        return [(self.lines[seq - 1][-16:], self.digests.get(seq))] if 0 < seq <= len(self.lines) else []

    def _page(self, log, after, upto):
        lines = self.lines[after:upto]
        return [("".join(line + "\n" for line in lines).encode() or None, len(lines))]

    def _save(self, log, epoch, seq, digest, at, sha256, body):
        if (epoch, seq, digest) == (self.row.epoch, self.row.seq, self.row.digest):
            self.snapshots[at] = sha256, body
        return []

    def _drop(self, log, kept):
        for old in sorted(self.snapshots)[:-kept]:
            del self.snapshots[old]
        return []

    def _load(self, log, seq):
        return [(at, *self.snapshots[at]) for at in sorted(self.snapshots, reverse=True) if at <= seq]
