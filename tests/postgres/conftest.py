"""Logs on a real PostgreSQL server."""

from __future__ import annotations

import shutil
import signal
import time

import pytest

from portfsm.journals.postgres import PostgresJournal
from portfsm.specs import PoolSpec
from tests import real_postgres
from tests.conftest import BACKENDS
from tests.postgres.link import Link

LOOPS = {name: BACKENDS[name] for name in ("asyncio", "trio")}
SPEC = PoolSpec("http", ports="30000-30999", hold_s=10.0)


@pytest.fixture(params=LOOPS.values(), ids=LOOPS.keys())
def anyio_backend(request):
    return request.param


@pytest.fixture
def link(postgres):
    """A link to the server that can be cut."""
    with Link(postgres.port) as link:
        yield link


@pytest.fixture
def through_link(postgres_url, postgres, link) -> str:
    """The same log as `postgres_url`, through the link."""
    return postgres_url.replace(f":{postgres.port}/", f":{link.port}/")


@pytest.fixture
def short() -> dict[str, float]:
    """Patience for tests."""
    return {"lease_s": 0.6, "timeout_s": 1.0}


@pytest.fixture
def open_postgres(short):
    """Open journals, closed at the end."""
    journals = []

    def open_one(url: str, holder: str = "one", **options) -> PostgresJournal:
        journal = PostgresJournal.from_url(url, **{**short, **options})
        journal.open(holder)
        journals.append(journal)
        return journal

    yield open_one
    for journal in journals:
        journal.close()


@pytest.fixture
def database(postgres):
    """A database of its own: its name."""
    name = f"d{time.monotonic_ns()}"
    postgres.ask(f"create database {name}")
    return name


@pytest.fixture
def own_server(postgres):
    """A server that a test may stop, kill and fill."""
    folder = real_postgres.new_folder()
    server = real_postgres.Server(folder, programs=postgres.programs).make_like(postgres).start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)
