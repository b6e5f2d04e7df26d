"""What the tests share: a ledger with its history for the pure core; every event loop and a log in each kind of place for the manager."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import psycopg
import pytest
import structlog
import structlog.testing
from hypothesis import settings

from portfsm._decide import decide
from portfsm._ledger import Ledger, apply_all
from portfsm._replay import replay
from portfsm.commands import Allocate, Block, Command, DefinePool, Release, Sweep
from portfsm.events import Event
from portfsm.journals import FileJournal, MemoryJournal, open_journal, read_journal
from portfsm.journals._etcd_store import Keys
from portfsm.journals.etcd import EtcdJournal
from portfsm.journals.postgres import PostgresJournal
from portfsm.manager import PortManager, open_manager
from portfsm.protocols import CachingJournal
from portfsm.specs import PoolSpec
from portfsm.testing import GatedJournal, ManualClock
from portfsm.values import Lease
from tests import real_postgres
from tests.etcd.server import Cluster

# What tests share asserts, too: a failure there shows the values as one in a test does.
pytest.register_assert_rewrite(
    *(f"tests.{name}" for name in ("cancellation", "groups", "journals.failing", "listen", "lost", "manager", "report", "waiting")),
    *(f"tests.{name}" for name in ("core_expectations", "core_model", "group_model", "observer", "segment", "tasks")),
)

# `pytest --hypothesis-profile thorough` looks twenty times longer.
settings.register_profile("portfsm", max_examples=150, deadline=None)
settings.register_profile("thorough", max_examples=3000, deadline=None)
settings.load_profile("portfsm")

SECOND = 1_000_000_000


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="ten times as many seeds, cuts, kills and rounds; takes two hours")


def pytest_collection_modifyitems(config, items):
    """Those that may take longest come first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: -_allowed_s(item, 0))
    if config.getoption("--long"):
        for item in items:
            item.add_marker(pytest.mark.timeout(10 * _allowed_s(item, float(config.getini("timeout")))), append=False)


def _allowed_s(item, otherwise):
    return max((mark.args[0] for mark in item.iter_markers("timeout") if mark.args), default=otherwise)


@pytest.fixture(scope="session")
def times(request):
    """By how much more than usual is to be tried."""
    return 10 if request.config.getoption("--long") else 1


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server; tests keep their logs in it side by side."""
    folder = real_postgres.new_folder()
    server = None
    try:
        server = real_postgres.Server(folder).make().start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres) -> str:
    """The URL of a log that is there and empty."""
    url = postgres.url(f"log-{uuid.uuid4().hex[:12]}")
    PostgresJournal.from_url(url).init()
    return url


class World:
    """A ledger and all that happened to it: a manager without loop and journal."""

    def __init__(self):
        self.ledger = Ledger()
        self.events = []
        self.now = 1_700_000_000 * SECOND

    def decide(self, command: Command) -> tuple[Event, ...]:
        return decide(self.ledger, command, now_ns=self.now)

    def do(self, command: Command) -> list[str]:
        """Decide and apply; the kinds of the events."""
        events = self.decide(command)
        if events:
            apply_all(self.ledger, events)
        self.events += events
        return [str(event.kind) for event in events]

    def define(self, name="p", *, ports="100-103", hold_s=10.0, order="lowest", seed="") -> None:
        self.do(DefinePool(PoolSpec(name, ports=ports, hold_s=hold_s, order=order), seed=seed))

    def allocate(self, owner, pool="p", *, node="", service="", port=None) -> Lease:
        events = self.decide(Allocate(pool, owner=owner, node=node, service=service, port=port))
        if events:
            apply_all(self.ledger, events)
        self.events += events
        return next(lease for lease in self.ledger.find(owner) if (lease.pool, lease.node) == (pool, node))

    def release(self, lease, **options) -> list[str]:
        return self.do(Release(lease, **options))

    def pass_time(self, seconds) -> None:
        self.now += round(seconds * SECOND)

    def put(self, state: str, *, port=100) -> tuple[Lease, Lease]:
        """Bring a port into `state` after two leases, of `former` and of `last`; both leases, the last one first."""
        former = self.allocate("former", service="s1", port=port)
        self.release(former)
        self.pass_time(100)
        self.do(Sweep())
        last = self.allocate("last", service="s2", port=port)
        if state == "BLOCKED":
            self.do(Block("p", port, reason="broken"))
        elif state != "ALLOCATED":
            self.release(last)
            if state == "FREE":
                self.pass_time(100)
                self.do(Sweep())
        assert self.ledger.port("p", port).state.value == state
        return last, former

    def state(self, port, pool="p", node="") -> str:
        return self.ledger.port(pool, port, node=node).state.value

    def replayed(self) -> Ledger:
        return replay(self.events)


@pytest.fixture
def empty() -> World:
    """Nothing defined yet."""
    return World()


@pytest.fixture
def world(empty) -> World:
    """One pool `p` of 100-103 with a hold of ten seconds."""
    empty.define()
    return empty


# ---------------------------------------------------------------------- the manager: loops, clocks, logs


RESERVE_BYTES = 4096
BACKENDS = {
    "asyncio": ("asyncio", {}),
    "asyncio+uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.fixture(params=BACKENDS.values(), ids=BACKENDS.keys())
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return request.param


def lose_lead(journal: EtcdJournal) -> None:
    """Let the key of whoever leads go."""
    journal.shelf().client.ask("kv/deleterange", {"key": Keys(journal.place.name).lead}, dict)


def end_lease(journal: PostgresJournal) -> None:
    """Let the lease of whoever leads be over."""
    with psycopg.connect(**journal.place.parameters, autocommit=True) as connection:
        connection.execute("update portfsm_log set lease_until = 'epoch' where name = %s", [journal.place.log])


@attrs.define
class Log:
    """One log, in a directory or in memory, whoever has it open."""

    path: Path | None = None
    memory: MemoryJournal = attrs.field(factory=MemoryJournal)
    url: str = ""

    def handle(self) -> CachingJournal:
        """One more handle on it, not yet open."""
        if self.url:
            return open_journal(self.url, lease_s=60.0)
        return FileJournal(self.path, reserve_bytes=RESERVE_BYTES) if self.path is not None else self.memory.reopened()

    def gated(self) -> GatedJournal:
        """The same, behind a gate."""
        return GatedJournal(self.handle())

    def lose(self, handle: CachingJournal) -> None:
        """Let `handle` lose its place without knowing, as a crash or a lost lock does: the next opening gets in."""
        if isinstance(handle, EtcdJournal):
            lose_lead(handle)
        elif self.url:
            end_lease(handle)
        elif self.path is not None:
            (self.path / "LOCK").unlink()
        else:
            assert isinstance(handle, MemoryJournal)
            handle.abandon()

    def events(self, *, after: int = 0) -> list[Event]:
        """What is recorded now."""
        return list(read_journal(self.url or self.path or self.memory, after=after))

    def kinds(self, *, after: int = 0) -> list[str]:
        """The kinds of what is recorded now, those of opening and closing left out."""
        return [event.kind.value for event in self.events(after=after) if event.kind not in {"opened", "closed", "pool_defined"}]

    def replayed(self) -> Ledger:
        """The state that the log leads to."""
        return replay(self.events())

    def check(self, manager: PortManager) -> None:
        """What the manager shows is what the log says up to there, and the counts add up."""
        ledger = replay(self.events(), until=manager.seq)
        assert manager.seq == manager.durable_seq == ledger.seq
        assert manager.digest() == ledger.digest()
        found = manager.statistics()
        assert found.size == found.free + found.allocated + found.quarantined + found.blocked


SERVERS = ["postgres", "etcd"]
ON_SERVERS = {"manager", "failures", "cancellation", "test_load", "test_recovery", "test_watch"}
"""Folders and files whose tests of a log run on a server as well."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "log_place" in metafunc.fixturenames:
        on_server = not ON_SERVERS.isdisjoint(metafunc.module.__name__.split("."))
        metafunc.parametrize(
            "log_place", ["memory", "file", *[pytest.param(server, marks=pytest.mark.slow) for server in SERVERS] * on_server]
        )


@pytest.fixture
def log(log_place: str, request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    """A log in each kind of place."""
    if log_place in SERVERS:
        return Log(url=request.getfixturevalue(f"{log_place}_url"))
    return Log(tmp_path / "log") if log_place == "file" else Log()


@pytest.fixture
def memory_log() -> Log:
    """A log in memory."""
    return Log()


@pytest.fixture
def file_log(tmp_path: Path) -> Log:
    """A log in a directory."""
    return Log(tmp_path / "log")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pool() -> PoolSpec:
    """Four ports, ten seconds of hold."""
    return PoolSpec("http", ports="30000-30003", hold_s=10.0)


@pytest.fixture
def gated(log: Log, clock: ManualClock, pool: PoolSpec) -> tuple[GatedJournal, AbstractAsyncContextManager[PortManager]]:
    """A journal behind a gate, and a manager on it."""
    journal = log.gated()
    return journal, open_manager(journal, pools=[pool], clock=clock, close_s=5)


@pytest.fixture(autouse=True)
def _structlog_as_before() -> Iterator[None]:
    """A test may set structlog up, as a command line does: for a file that is closed when the next test logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def told() -> Iterator[list[dict[str, object]]]:
    """What structlog is told."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One real member, for all tests that need no cluster of their own."""
    with Cluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def etcd_url(etcd: Cluster) -> str:
    """The URL of a log that is not there yet."""
    return etcd.url(f"log-{uuid.uuid4().hex[:12]}")
