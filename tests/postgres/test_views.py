"""What an auditor reads with SQL is what the log says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from portfsm import open_manager, read_journal
from portfsm.journals.postgres import PostgresJournal
from portfsm.testing import ManualClock
from tests.postgres.conftest import SPEC

pytestmark = pytest.mark.anyio


@pytest.fixture
def ask(postgres, postgres_url):
    """Rows of a view, those of this log alone, by seq or time."""
    name = postgres_url.partition("log=")[2]

    def rows(columns: str, view: str, order: str) -> list[tuple]:
        return postgres.ask(f"select {columns} from {view} where log = %(name)s order by {order}", name=name)

    return rows


async def test_a_view_tells_another_history_than_the_log(postgres_url, ask):
    clock = ManualClock()
    async with open_manager(postgres_url, pools=[SPEC], clock=clock, holder='o\'brien "pid" 1') as manager:
        first = await manager.allocate("http", owner="a\\b", node="nöde", service="s")
        clock.advance(1.25)
        await manager.release(first)
        await manager.block("http", 30500, reason="% sign, 'quotes', \\ and 日本")
        clock.advance(60)
        await manager.sweep()
        await manager.allocate("http", owner="b", node="nöde")
        await manager.adopt("http", 30500, owner="c")
    found = ask(
        "seq, kind, node, pool, port, owner, service, token, cause, reason, extract(epoch from time) * 1000000000", "portfsm_history", "seq"
    )
    wanted = [
        (
            event.seq,
            event.kind.value,
            event.node,
            event.pool,
            event.port or None,
            event.owner,
            event.service,
            event.token or None,
            event.cause,
            event.reason,
            event.ts,
        )
        for event in read_journal(postgres_url)
    ]
    assert found == wanted
    untils = dict(ask("seq, extract(epoch from until) * 1000000000", "portfsm_history", "seq"))
    assert untils == {event.seq: event.until or None for event in read_journal(postgres_url)}
    holds = dict(ask("seq, hold_s", "portfsm_history", "seq"))
    assert holds == {event.seq: event.hold_ms / 1000 if event.hold_ms else None for event in read_journal(postgres_url)}


async def test_a_view_names_another_holder_than_the_log(postgres_url, ask):
    clock = ManualClock()
    async with open_manager(postgres_url, pools=[SPEC], clock=clock) as manager:
        first = await manager.allocate("http", owner="a", node="n", service="s")
        clock.advance(2)
        await manager.release(first)
        clock.advance(20)
        await manager.allocate("http", owner="b", node="n", port=first.port)
        other = await manager.allocate("http", owner="c", node="m")
        await manager.withdraw(other)
        clock.advance(3)
        await manager.block("http", other.port, node="m", reason="x")
        await manager.adopt("http", other.port, owner="d", node="m")
    found = ask(
        "node, port, owner, token, adopted, extract(epoch from held_to - held_from)::float8, ended_by",
        "portfsm_holders",
        "held_from, token",
    )
    tokens = {event.owner: event.token for event in read_journal(postgres_url) if event.kind in {"allocated", "adopted"}}
    assert found == [
        ("n", first.port, "a", tokens["a"], False, 2.0, "released (released)"),
        ("n", first.port, "b", tokens["b"], False, None, None),
        ("m", other.port, "c", tokens["c"], False, 3.0, "blocked (operator)"),
        ("m", other.port, "d", tokens["d"], True, None, None),
    ]


async def test_an_auditor_needs_an_index_that_cannot_be_made(postgres, database):
    """The one that `docs/postgres.md` shows; the view goes by it."""
    url = postgres.url("ports", database)
    PostgresJournal.from_url(url).init()
    async with open_manager(url, pools=[SPEC]) as manager:
        for number in range(300):
            await manager.allocate("http", owner=f"o{number}")
    page = (Path(__file__).parents[2] / "docs" / "postgres.md").read_text()
    postgres.ask(re.search(r"create index .*?;", page)[0].replace("concurrently ", ""), database)
    postgres.ask("analyze portfsm_event", database)
    plan = postgres.ask("explain select * from portfsm_history where log = 'ports' and port = 30007", database)
    assert "portfsm_event_port" in str(plan)
    assert postgres.ask("select owner from portfsm_holders where log = 'ports' and port = 30007", database) == [("o7",)]
