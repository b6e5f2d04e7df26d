"""The segment that is being written, in etcd: each append one value (more where it is long), each write under the leader's comparison.

Each write presupposes, besides the lead, that what this writer wrote last is still there: a cluster that came back from an older
copy has the leader's key and not its events, and whatever came behind the gap would be lost with it.

What each failure means:
- another leads, or somebody wrote where we would: `Fenced`, nothing was written;
- the cluster came back from an older copy: `HistoryLost`, nothing was written, and what was before is lost;
- the quota is used up: `JournalFull`, nothing was written;
- no answer: the same write is asked again, of the other members, too. It is let through once, so finding our own bytes there
  means that an earlier try had arrived. Without any answer it is `OutcomeUnknown`.

A try may also arrive when its answer is long forgotten. So whatever removes a piece presupposes that very piece, by the revision
that made it: the next one at its place is another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from portfsm._codec import Encoder, Seal
from portfsm.errors import HistoryLost, JournalError, JournalFull, OutcomeUnknown
from portfsm.journals._etcd_client import NoAnswer, NoRoom, Refused
from portfsm.journals._etcd_store import pieces
from portfsm.journals._etcd_wire import Part, Txn, created, delete, end_of, fetch, modified, put, transaction
from portfsm.journals._growing import Growing

if TYPE_CHECKING:
    from portfsm._codec import Header
    from portfsm.journals._etcd_lead import Lead
    from portfsm.journals._etcd_store import Shelf
    from portfsm.journals._etcd_wire import KeyValue
    from portfsm.journals._segments import Ending, Segment

__all__ = ["Tail", "Writes"]


@attrs.frozen
class _Mark:
    """A key as it was left in one revision."""

    key: bytes
    revision: int

    def compare(self) -> Part:
        return modified(self.key, self.revision)

    def is_at(self, found: KeyValue | None) -> bool:
        return found is not None and found.mod_revision == self.revision


class Writes:
    """The ways to change a log that one leads."""

    def __init__(self, shelf: Shelf, lead: Lead) -> None:
        self._shelf = shelf
        self._lead = lead
        self._tip = _Mark(shelf.keys.epoch, lead.taken_at)
        """What this writer wrote last of what makes up the log: a piece, or the epoch that it began with."""

    def append(self, name: str, offset: int, data: bytes) -> None:
        """Put `data` behind the first `offset` bytes of a file, all or none. Raises `Fenced`, `JournalFull`, `OutcomeUnknown`."""
        at, tip = offset, self._tip
        for piece in pieces(data):
            try:
                self._put(self._shelf.keys.piece(name, at), piece)
            except JournalFull:
                if self._tip is not tip:
                    self._take_back(self._tip, name, offset)
                    self._tip = tip
                raise
            at += len(piece)

    def _put(self, key: bytes, value: bytes) -> None:
        body = transaction([*self._presupposed(), created(key, 0)], [put(key, value)], [fetch(self._shelf.keys.lead), fetch(key)])
        try:
            answer, doubtful = self._ask(body)
        except NoRoom as error:
            return self._without_room(key, value, error)
        except (NoAnswer, Refused) as error:  # a refusal says nothing of the tries before it
            raise self._unknown(error) from error
        if answer.succeeded:
            return self._wrote(key, answer.header.revision)
        leader, found = answer.found(0), answer.found(1)
        if doubtful and found is not None and found.value == value:
            return self._wrote(key, found.mod_revision)  # an earlier try had arrived
        if doubtful and found is None and not self._lead.is_mine(leader):
            raise self._unknown(None)
        raise self._refused(leader, "it lost its lease" if found is None else "another has written where it would have")

    def _wrote(self, key: bytes, revision: int) -> None:
        self._tip = _Mark(key, revision)

    def _presupposed(self) -> list[Part]:
        return [self._lead.compare(), self._tip.compare()]

    def _refused(self, leader: KeyValue | None, why: str = "it lost its lease") -> JournalError:
        """What a refusal means, by who leads now."""
        return self._gone() if self._lead.is_mine(leader) else self._lead.fenced(leader, why)

    def _gone(self) -> HistoryLost:
        return HistoryLost.found(self._shelf.path, "what this writer wrote last is gone: the cluster came back from an older copy")

    def _without_room(self, key: bytes, value: bytes, error: NoRoom) -> None:
        """Refused for lack of room; unless an earlier try had arrived, which leaves nothing to do."""
        if error.doubtful:
            try:
                found = self._shelf.find(key)
            except JournalError:
                found = None
            if found is not None and found.value == value:
                return self._wrote(key, found.mod_revision)
            raise self._unknown(error) from error
        raise JournalFull(str(error), path=self._shelf.path) from error

    def _take_back(self, last: _Mark, name: str, offset: int) -> None:
        """Remove what was written, up to piece `last`, of an append that cannot be finished."""
        try:
            self._remove(last, delete(self._shelf.keys.piece(name, offset), end_of(self._shelf.keys.file(name))))
        except JournalError as error:
            raise self._unknown(error) from error

    def _remove(self, piece: _Mark, *parts: Part) -> None:
        """Do `parts`, of which one removes that piece. A try that arrives after another has no effect, nor behind the next piece there."""
        presupposed = self._presupposed() + ([piece.compare()] if piece != self._tip else [])
        body = transaction(presupposed, list(parts), [fetch(self._shelf.keys.lead), fetch(piece.key)])
        answer, doubtful = self._ask(body)
        if answer.succeeded:
            return
        leader, found = answer.found(0), answer.found(1)
        if not doubtful or piece.is_at(found) or not self._lead.is_mine(leader):  # else an earlier try had arrived
            raise self._refused(leader)

    def publish(self, name: str, data: bytes) -> None:
        """Keep a whole file. Its first piece comes last: without it the others are no file."""
        offset = len(data)
        for piece in reversed(pieces(data)):
            offset -= len(piece)
            if self._lead.due():
                self._lead.renew()
            self.change(put(self._shelf.keys.piece(name, offset), piece))

    def remove(self, name: str) -> None:
        """A file goes."""
        self.clear(self._shelf.keys.file(name))

    def clear(self, prefix: bytes) -> None:
        """All keys that begin so go."""
        for first in self._shelf.range(prefix, end_of(prefix), limit="1", keys_only=True):
            self._remove(_Mark(first.key, first.mod_revision), delete(prefix, end_of(prefix)))

    def mend(self, segment: Segment, ending: Ending) -> Seal | None:
        """Seal what an unsealed segment holds, and put aside what was never finished; None when it holds no event. May be repeated."""
        empty = ending.last_seq == segment.header.base
        self._put_aside(segment.name, 0 if empty else ending.good.offset)
        if empty:
            return None
        seal = ending.seal(segment.header)
        self.append(segment.name, ending.good.offset, Encoder(ending.good.carry).encode_line(seal))
        return seal

    def _put_aside(self, name: str, offset: int) -> None:
        """What stands in a file from `offset` on was never finished: keep it elsewhere, the last piece first."""
        keys = self._shelf.keys
        for pair in reversed(self._shelf.range(keys.piece(name, offset), end_of(keys.file(name)))):
            torn = keys.torn(name, int(pair.key.rpartition(b"/")[2]), self._lead.epoch)
            self._remove(_Mark(pair.key, pair.mod_revision), put(torn, pair.value), delete(pair.key))

    def change(self, *parts: Part) -> None:
        """Do together what may be done twice, also late, if this is still the leader. Raises `Fenced` and others."""
        answer, _ = self._ask(transaction(self._presupposed(), list(parts), [fetch(self._shelf.keys.lead)]))
        if not answer.succeeded:
            raise self._refused(answer.found(0))

    def ship(self, name: str, shipped: bytes) -> int:
        """A file goes that is elsewhere, as `shipped` tells; the revision. May be repeated."""
        keys = self._shelf.keys
        prefix = keys.file(name)
        first = self._shelf.find(keys.piece(name, 0), keys_only=True)
        if first is not None:  # else an earlier try had arrived
            # The epoch is put once more so that the first write of a leader, which presupposes it, cannot arrive behind this.
            parts = put(keys.shipped, shipped), put(keys.epoch, b"%d" % self._lead.epoch), delete(prefix, end_of(prefix))
            self._remove(_Mark(first.key, first.mod_revision), *parts)
        kept = self._shelf.find(keys.shipped)
        if kept is None or kept.value != shipped:
            raise self._gone()
        if self._tip.key == keys.epoch:
            self._tip = _Mark(keys.epoch, kept.mod_revision)
        return kept.mod_revision

    def check(self, *, patience_s: float) -> None:
        """See whether the log still ends as this writer left it. Raises `HistoryLost`, `NoAnswer`."""
        if not self._tip.is_at(self._shelf.find(self._tip.key, keys_only=True, patience_s=patience_s)):
            raise self._gone()

    def _ask(self, body: Part) -> tuple[Txn, bool]:
        return self._shelf.client.ask("kv/txn", body, Txn)

    def _unknown(self, error: JournalError | None) -> OutcomeUnknown:
        path = self._shelf.path
        why = str(error) if error is not None else f"{path}: a write went unanswered, and meanwhile this writer lost its lease"
        return OutcomeUnknown(f"{why}; nobody knows what was written: open the log again, which finds out", path=path, errno=None)


class Tail(Growing):
    """Appends to one new segment in keys."""

    def __init__(self, writes: Writes, header: Header) -> None:
        super().__init__(header)
        self._writes = writes
        self.size = 0

    def _put(self, data: bytes) -> None:
        # The header goes with the first batch.
        whole = data if self.size else self._first_line + data
        self._writes.append(self.name, self.size, whole)
        self.size += len(whole)
