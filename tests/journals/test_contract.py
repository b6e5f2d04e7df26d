"""The contract suite that third-party journals inherit, held against our own."""

from hashlib import sha256
from pathlib import Path

import psycopg
import pytest

from portfsm.journals import FileJournal, MemoryJournal
from portfsm.journals.postgres import PostgresJournal
from portfsm.protocols import Journal
from portfsm.testing.contract import JournalContract


class TestFileJournal(JournalContract):
    def handle(self, place: Path) -> Journal:
        return FileJournal(place / "log", segment_bytes=4000)

    def usurp(self, journal: Journal) -> None:
        """Another writer took the log over: the epoch in LOCK says so, while the lock itself held nobody back."""
        lock = Path(journal.path) / "LOCK"
        lock.write_bytes(b'{"epoch":77,"pid":1}'.ljust(512))


class TestFileJournalWhoseDirectoryWasReplaced(TestFileJournal):
    def usurp(self, journal: Journal) -> None:
        """The directory was moved away and copied back: same bytes, other files."""
        path = Path(journal.path)
        path.rename(path.with_name("moved"))
        path.mkdir()
        for file in path.with_name("moved").glob("*.jsonl"):
            (path / file.name).write_bytes(file.read_bytes())


class TestMemoryJournal(JournalContract):
    logs: dict[Path, MemoryJournal]

    def setup_method(self) -> None:
        self.logs = {}

    def handle(self, place: Path) -> Journal:
        return self.logs.setdefault(place, MemoryJournal()).reopened()

    def usurp(self, journal: Journal) -> None:
        journal.abandon()
        other = journal.reopened()
        other.open("usurper")
        other.close()


class TestPostgresJournal(JournalContract):
    @pytest.fixture(autouse=True)
    def _server(self, postgres) -> None:
        self.server = postgres

    def handle(self, place: Path) -> Journal:
        name = sha256(str(place).encode()).hexdigest()[:32]
        journal = PostgresJournal.from_url(self.server.url(name), lease_s=60.0)
        journal.init()
        return journal

    def usurp(self, journal: Journal) -> None:
        """Its lease ran out unnoticed, and another has led since."""
        name = journal.place.log
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            connection.execute("update portfsm_log set lease_until = clock_timestamp() - interval '1 s' where name = %s", [name])
        other = PostgresJournal.from_url(self.server.url(name))
        other.open("usurper")
        other.close()
