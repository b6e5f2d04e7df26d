"""What can be done with a log in etcd without leading it: read it, follow it, prove it, copy another into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm.journals._etcd_audit import Audit, Prepared
from portfsm.journals._etcd_client import Client
from portfsm.journals._etcd_follow import EtcdTail
from portfsm.journals._etcd_receive import receive
from portfsm.journals._etcd_store import Shelf
from portfsm.journals._inspect import head_in
from portfsm.journals._reader import read_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event
    from portfsm.journals._copy_source import Source
    from portfsm.journals._etcd_url import Place
    from portfsm.values import Head

__all__ = ["EtcdPlace"]


class EtcdPlace:
    """One log in one cluster. Each call has a connection of its own."""

    def __init__(self, place: Place, lease_s: float) -> None:
        self.place = place
        self.path = place.shown
        self.lease_s = lease_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def _connection(self) -> Client:
        return Client(self.place, patience_s=self.lease_s)

    def shelf(self) -> Shelf:
        """The log as a directory to read from: no lock, no change."""
        return Shelf(self._connection())

    def read_apart(self, after: int = 0) -> Iterator[Event]:
        """Events with `seq > after`, whoever leads. Raises as `read_journal` does."""
        return read_directory(self.shelf(), after)

    def tail(self, after: int = 0) -> EtcdTail:
        """A reader to keep."""
        return EtcdTail(self.shelf(), after)

    def head_at(self, seq: int | None = None) -> Head:
        """The head as it was when `seq` was the last event; now, if None. Raises `InvalidValue`, `JournalCorrupt`."""
        return head_in(self.shelf(), seq)

    def audit(self, *, at: int | None = None) -> Audit:
        """Look through the whole log, and tell its head as of `at` as well."""
        return Audit(self.shelf(), at)

    def init(self) -> Prepared:
        """There is nothing to prepare: see whether the cluster answers. Raises `JournalUnreadable`."""
        shelf = self.shelf()
        return Prepared(self.place.name, new=shelf.find(shelf.keys.epoch) is None)

    def receive(self, source: Source) -> Head:
        """Become a copy of `source`: see `portfsm copy`. Raises `InvalidValue` when there is a log already."""
        return receive(self.shelf(), source, self.lease_s)
