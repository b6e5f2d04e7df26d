"""The recorded answers of a real HAProxy (`record.py`), read."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from portfsm.witnesses._haproxy_answers import Worker, read_worker
from portfsm.witnesses._haproxy_rules import judge

HOST = "127.0.0.1"
NEWER = 500
FREE = 21099
"""A port that no slot has."""


def recorded(name: str) -> str:
    return (Path(__file__).parent / "recorded" / f"{name}.txt").read_text()


def process(name: str) -> int:
    return int(re.search(r"Pid: (\d+)", recorded(name))[1])


def worker(name: str = "worker", *, old: bool = False, text: str = "", **changes) -> Worker:
    found = read_worker(process(name), text or recorded(name), old=old)
    assert found is not None
    return attrs.evolve(found, **changes)


def verdict(it: Worker, port: int, *, host: str = HOST, since: int = 400, **options) -> str:
    said = judge([it], host, port, since, **options)
    assert f"worker {it.pid}" in said.reason
    return said.verdict.value


def reason(it: Worker, port: int, *, host: str = HOST, since: int = 400) -> str:
    return judge([it], host, port, since).reason
