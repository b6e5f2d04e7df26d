"""What is written, and what is done to the cluster behind the journal's back."""

from __future__ import annotations

from portfsm.journals._etcd_client import Client
from portfsm.journals._etcd_wire import Txn, transaction
from portfsm.journals.etcd import EtcdJournal
from portfsm.testing.contract import sample_events

EVENTS = sample_events(600)


def change(journal: EtcdJournal, *parts: dict[str, object]) -> Txn:
    """Something done to the cluster behind the journal's back."""
    return Client(journal.place, patience_s=5).ask("kv/txn", transaction([], list(parts)), Txn)[0]
