"""Who may write: a key that goes with its lease, and an epoch that no lease takes away.

The lease decides who tries. What decides who writes is in each append: it holds only while the key `lead` is the very one that
this writer made, by the nonce in it (revisions come again where a cluster was restored from an older copy). A writer that was
paused, cut off or slow finds out there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

import msgspec

from portfsm.errors import Fenced, HistoryLost, JournalError, JournalLocked
from portfsm.journals._etcd_wire import Granted, KeepAlive, Txn, created, encode, fetch, holds, modified, put, transaction

if TYPE_CHECKING:
    from portfsm.journals._etcd_store import Shelf
    from portfsm.journals._etcd_wire import KeyValue

__all__ = ["Lead"]

_LEAST_TTL_S = 2
"""etcd grants no less (one and a half elections)."""


class _Leader(msgspec.Struct):
    """What the key `lead` says, for people and for the next writer."""

    epoch: int = 0
    pid: int | None = None
    host: str = ""
    holder: str | None = None
    nonce: str = ""


class Lead:
    """Leadership of one log, from `acquire` to `release`."""

    def __init__(self, shelf: Shelf, lease_s: float) -> None:
        self._shelf = shelf
        self._client = shelf.client
        self._keys = shelf.keys
        self.lease_s = lease_s
        self.epoch = 0
        self.taken_at = 0
        """The revision in which that epoch was put."""
        self._text = b""
        """What the key `lead` says of this writer, and of no other."""
        self._lease = 0
        self._kept_at = 0.0
        """When the lease was renewed last, by the monotonic clock; the request's start, as the server's count began later."""

    @property
    def ttl_s(self) -> int:
        """What etcd is asked for: it looks twice a second which leases have ended, so a little less than `lease_s`."""
        return max(_LEAST_TTL_S, int(self.lease_s - 0.5))

    def acquire(self, holder: str, last_epoch: int = 0) -> int:
        """Become the leader, with an epoch above all earlier ones and `last_epoch`. Raises `JournalLocked`."""
        if leader := self.leader():
            raise self._locked(leader)
        before = self._shelf.find(self._keys.epoch)
        self.epoch = 1 + max(last_epoch, int(before.value) if before else 0)
        self._kept_at = time.monotonic()
        grant, _ = self._client.ask("lease/grant", {"TTL": str(self.ttl_s)}, Granted)
        self._lease = grant.ID
        try:
            self._take(holder, before.mod_revision if before else 0)
        except BaseException:
            self._revoke()
            raise
        return self.epoch

    def _take(self, holder: str, seen: int) -> None:
        text = self._text = encode(_Leader(self.epoch, os.getpid(), socket.gethostname()[:64], holder, os.urandom(8).hex()))
        body = transaction(
            [created(self._keys.lead, 0), modified(self._keys.epoch, seen)],
            [put(self._keys.lead, text, lease=self._lease), put(self._keys.epoch, b"%d" % self.epoch)],
            [fetch(self._keys.lead)],
        )
        answer, _ = self._client.ask("kv/txn", body, Txn)
        self.taken_at = answer.header.revision
        if not answer.succeeded:
            leader = answer.found(0)
            if leader is None or not self.is_mine(leader):
                raise self._locked(leader)
            self.taken_at = leader.mod_revision  # an earlier try had arrived

    def _locked(self, leader: KeyValue | None) -> JournalLocked:
        found = _leader(leader)
        who = f"process {found.pid} on {found.host}, {found.holder!r}" if leader else "another writer"
        path = self._shelf.path
        message = f"{path} is led already, by {who}: stop it first, wait for it (role='lead-or-wait'), or read without leading"
        return JournalLocked(message, path=path, pid=found.pid, holder=found.holder)

    # ---- while leading -----------------------------------------------------------------------------------------

    def compare(self) -> dict[str, object]:
        """What every write holds itself to."""
        return holds(self._keys.lead, self._text)

    def is_mine(self, leader: KeyValue | None) -> bool:
        """Whether that is the key that this writer made."""
        return leader is not None and leader.value == self._text

    def due(self) -> bool:
        """It is time for another sign of life, before whatever else there is to do: the manager's own wait until that is done."""
        return time.monotonic() - self._kept_at > self.ttl_s / 6

    def renew(self) -> None:
        """A sign of life. Raises `Fenced` when the lease is gone, `NoAnswer` when nobody says."""
        began = time.monotonic()
        kept, _ = self._client.ask("lease/keepalive", {"ID": str(self._lease)}, KeepAlive, patience_s=self.lease_s / 3)
        if not kept.result.TTL:
            raise self.fenced(self.leader(), "its lease has run out")
        self._kept_at = began

    def leader(self) -> KeyValue | None:
        """The key as it is now."""
        return self._shelf.find(self._keys.lead)

    def fenced(self, leader: KeyValue | None, why: str = "it lost its lease") -> JournalError:
        """The refusal to write any more."""
        if self._set_back():
            return HistoryLost.found(self._shelf.path, f"this writer had epoch {self.epoch}, of which the cluster's copy knows nothing yet")
        found = _leader(leader)
        now = f"; process {found.pid} on {found.host}, {found.holder!r}, leads now with epoch {found.epoch}" if leader else ""
        message = f"{self._shelf.path}: this writer had epoch {self.epoch} and {why}{now}: nothing was written; open the log again to go on"
        return Fenced(message, path=self._shelf.path, epoch=self.epoch, current=found.epoch or None)

    def _set_back(self) -> bool:
        """The cluster is at an earlier epoch, which only an older copy can be."""
        try:
            kept = self._shelf.find(self._keys.epoch, patience_s=1.0)
        except JournalError:
            return False
        return kept is None or int(kept.value) < self.epoch

    def release(self) -> None:
        """Let the next one in at once; if that cannot be said, it waits for the lease to end."""
        with contextlib.suppress(JournalError):
            self._revoke()

    def _revoke(self) -> None:
        lease, self._lease = self._lease, 0
        if lease:
            with contextlib.suppress(JournalError):
                self._client.ask("lease/revoke", {"ID": str(lease)}, dict, patience_s=min(1.0, self.lease_s))


def _leader(pair: KeyValue | None) -> _Leader:
    try:
        return msgspec.json.decode(pair.value, type=_Leader) if pair else _Leader()
    except ValueError:
        return _Leader()
