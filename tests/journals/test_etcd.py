"""The journal in etcd, against real members: the contract, and what only a cluster can do to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from portfsm.journals._etcd_url import parse
from portfsm.journals.etcd import EtcdJournal
from portfsm.protocols import Journal
from portfsm.testing.contract import JournalContract
from tests.etcd_server import Cluster


class TestEtcdJournal(JournalContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, etcd: Cluster) -> None:
        self.cluster = etcd

    def handle(self, place: Path) -> Journal:
        return EtcdJournal(parse(self.cluster.url(name_for(place))), segment_bytes=4000)

    def usurp(self, journal: Journal) -> None:
        """The lease ran out, and another came and went."""
        journal._client.ask("lease/revoke", {"ID": str(journal._lead._lease)}, dict, patience_s=5)
        other = EtcdJournal(journal.place)
        other.open("usurper")
        other.close()


def name_for(place: Path) -> str:
    return str(place).strip("/").replace("/", "-")[-64:]
