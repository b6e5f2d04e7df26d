"""A real pgbouncer in front of the server: refused where it may give each statement another session, of use where it does not."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import anyio
import psycopg
import pytest

from portfsm import follow, open_manager, read_journal, replay
from portfsm.errors import Fenced, JournalUnreadable
from portfsm.journals.postgres import PostgresJournal
from tests.conftest import end_lease
from tests.postgres.conftest import SPEC
from tests.real_postgres import PATIENCE_S, as_whom, free_port, new_folder

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer on this machine: its package is named pgbouncer")


class Pooler:
    """One pgbouncer, in one mode, in front of one server."""

    def __init__(self, folder: Path, server_port: int, mode: str) -> None:
        self.port = free_port()
        self.config = folder / f"{mode}.ini"
        self.log = folder / f"{mode}.log"
        (folder / "users").write_text('"postgres" ""\n')
        self.config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={self.port}\n"
            f"unix_socket_dir=\nauth_type=trust\nauth_file={folder}/users\npool_mode={mode}\ndefault_pool_size=5\n"
        )

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([PGBOUNCER, self.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **as_whom())
        for _ in range(PATIENCE_S * 20):
            assert self.process.poll() is None, self.log.read_text()
            try:
                psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres", connect_timeout=1).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return self
        raise TimeoutError(self.log.read_text())

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module", params=["statement", "transaction", "session"])
def pooler(request, postgres) -> Iterator[Pooler]:
    folder = new_folder()
    try:
        with Pooler(folder, postgres.port, request.param) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def through_pooler(pooler, postgres, postgres_url) -> str:
    return postgres_url.replace(f":{postgres.port}/", f":{pooler.port}/")


def test_a_pooler_that_nobody_vouched_for_is_led_through(through_pooler):
    with pytest.raises(JournalUnreadable, match="pooler=session"):
        PostgresJournal.from_url(through_pooler).open("one")
    with pytest.raises(JournalUnreadable, match="pooler=session"):
        list(read_journal(through_pooler))


@pytest.mark.anyio
async def test_a_pooler_that_was_vouched_for_loses_or_doubles_something(through_pooler, postgres_url):
    """Also where that was a lie: then it may cost time, and no port."""
    vouched = f"{through_pooler}&pooler=session"
    async with open_manager(vouched, pools=[SPEC], holder="first", lease_s=5.0) as first:
        async with follow(vouched, poll_s=0.2) as follower:

            async def live(number: int) -> None:
                for turn in range(5):
                    lease = await first.allocate("http", owner=f"{number}-{turn}")
                    if turn % 2:
                        await first.release(lease)

            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    for number in range(20):
                        tasks.start_soon(live, number)
                await follower.reached(first.seq)
            assert follower.digest() == first.digest()
        await anyio.to_thread.run_sync(end_lease, PostgresJournal.from_url(postgres_url))
        async with open_manager(vouched, pools=[SPEC], holder="second") as second:
            assert second.epoch == first.epoch + 1
            assert second.ports() == first.ports()
            with pytest.raises(Fenced):
                await first.allocate("http", owner="too late")
            taken = await second.allocate("http", owner="after")
            assert not first.find("after")
    events = list(read_journal(postgres_url))
    assert replay(events).seq == len(events)
    assert taken.token in [event.seq for event in events]
