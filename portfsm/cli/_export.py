"""`portfsm export`: the events for other tools, as CSV, as a SQLite database or as CloudEvents."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sqlite3
import sys
from typing import IO, TYPE_CHECKING, Protocol

import click

from portfsm.audit import Lives, Replay
from portfsm.cli import _options as options
from portfsm.cli._out import Bar, complain
from portfsm.cli._text import neutral
from portfsm.cli._times import rfc3339
from portfsm.cli._views import event_json
from portfsm.errors import InvalidValue, JournalCorrupt
from portfsm.journals import past_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from portfsm.audit import Span, Step

__all__ = ["export"]

KEYS = (
    "seq", "ts", "kind", "node", "pool", "port", "from", "to", "owner", "service", "token", "until", "hold_s", "cause", "reason", "epoch",
)  # fmt: skip
_ROWS = 4_096
_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, ts TEXT NOT NULL, kind TEXT NOT NULL, node TEXT, pool TEXT, port INTEGER, "from" TEXT, "to" TEXT,
    owner TEXT, service TEXT, token INTEGER, until TEXT, hold_s REAL, cause TEXT, reason TEXT, epoch INTEGER, ts_ns INTEGER NOT NULL
);
CREATE TABLE spans (
    node TEXT, pool TEXT NOT NULL, port INTEGER NOT NULL, state TEXT NOT NULL, owner TEXT, service TEXT, token INTEGER,
    "from" TEXT NOT NULL, "to" TEXT, from_ns INTEGER NOT NULL, to_ns INTEGER
);
"""
_INDEXES = """
CREATE INDEX events_port ON events (port, seq);
CREATE INDEX events_owner ON events (owner);
CREATE INDEX spans_port ON spans (port, from_ns);
CREATE INDEX spans_owner ON spans (owner);
"""


class _Sink(Protocol):
    """Where events go."""

    def add(self, step: Step) -> None:
        """One more."""

    def close(self, error: JournalCorrupt | None) -> None:
        """No more; with the damage that ended the log, if any did."""


@options.command(
    "portfsm export ports-log --to csv > events.csv",
    "portfsm export ports-log --to sqlite -o ports.db && sqlite3 ports.db 'SELECT * FROM spans WHERE port = 30007'",
    "portfsm export ports-log --to cloudevents | jq -r .type",
)
@options.log
@click.option("--to", "target", type=click.Choice(["csv", "sqlite", "cloudevents"]), required=True, help="What to make of it.")
@click.option("-o", "path", metavar="FILE", help="Into this new file instead of stdout.")
def export(log: str, target: str, path: str | None) -> None:
    """The events for other tools.

    CSV with a header line. A SQLite database (needs -o) with the tables events, spans (every state of every port, from when to when) and
    about. CloudEvents 1.0, one JSON object a line.
    """
    if target == "sqlite" and path in (None, "-"):
        raise click.UsageError("a SQLite database is a file: name one with -o FILE")
    past = past_of(log)
    steps = Replay().steps(Bar(log).watch(past.events(0)), lambda _: True)
    with _output(path) as out:
        try:
            _run(_SINKS[target](out, past.log_id, path or ""), steps)
        except sqlite3.Error as error:
            raise OSError(None, str(error), path) from error


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[IO[str]]:
    """Stdout, or a file that is in its place when it is whole; SQLite opens its own."""
    if path in (None, "-"):
        yield sys.stdout
        return
    if os.path.lexists(path):
        raise InvalidValue(f"{path} exists: name another file, or remove that one", name="output", value=path)
    part = f"{path}.part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    try:
        with open(part, "x", encoding="utf-8", newline="", opener=_private) as out:
            yield out
    except JournalCorrupt:
        os.rename(part, path)
        complain(f"{path} holds what stands before the damage")
        raise
    except BaseException:
        os.unlink(part)
        raise
    os.rename(part, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # as the log itself


def _run(sink: _Sink, steps: Iterable[Step]) -> None:
    try:
        for step in steps:
            sink.add(step)
    except JournalCorrupt as error:  # what stands before it is worth having
        sink.close(error)
        raise
    sink.close(None)


class _Csv:
    """A line an event, the keys of `log --json` as the header."""

    def __init__(self, out: IO[str], _: str, __: str) -> None:
        self._writer = csv.writer(out, lineterminator="\n")
        self._begun = False

    def add(self, step: Step) -> None:
        self._begin()
        self._writer.writerow([_cell(value) for value in event_json(step).values()])

    def close(self, error: JournalCorrupt | None) -> None:
        if error is None:
            self._begin()

    def _begin(self) -> None:
        """The header, once it is known that there is something to read."""
        if not self._begun:
            self._writer.writerow(KEYS)
            self._begun = True


def _cell(value: object) -> object:
    """Nothing for null; no name can end a line or move a cursor."""
    return "" if value is None else neutral(value) if isinstance(value, str) else value


class _CloudEvents:
    """A CloudEvents 1.0 object a line, in ASCII."""

    def __init__(self, out: IO[str], log_id: str, _: str) -> None:
        self._out = out
        self._source = f"urn:portfsm:{log_id or 'log'}"

    def add(self, step: Step) -> None:
        event = step.event
        subject = {"subject": f"{event.node}/{event.pool}/{event.port}"} if event.port else {}
        value = {
            "specversion": "1.0", "id": str(event.seq), "source": self._source, "type": f"portfsm.{event.kind.value}",
            "time": rfc3339(event.ts), **subject, "datacontenttype": "application/json", "data": event_json(step),
        }  # fmt: skip
        self._out.write(json.dumps(value) + "\n")

    def close(self, error: JournalCorrupt | None) -> None:
        pass


class _Sqlite:
    """A database: events, spans, and what it was made from."""

    def __init__(self, _: IO[str], log_id: str, path: str) -> None:
        self._base = sqlite3.connect(f"{path}.part", isolation_level=None)
        self._base.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_SCHEMA}")
        self._base.execute("BEGIN")
        self._log_id = log_id
        self._lives = Lives()
        self._events: list[tuple[object, ...]] = []
        self._spans: list[tuple[object, ...]] = []
        self._first = self._last = 0

    def add(self, step: Step) -> None:
        event = step.event
        self._first, self._last = self._first or event.seq, event.seq
        self._events.append((*(_cell(value) or None for value in event_json(step).values()), event.ts))
        if (span := self._lives.take(event)) is not None:
            self._spans.append(_span_row(span))
        if len(self._events) >= _ROWS:
            self._write()

    def close(self, error: JournalCorrupt | None) -> None:
        self._spans += map(_span_row, self._lives.lasting())
        self._write()
        about = {"log": self._log_id, "first_seq": self._first, "last_seq": self._last, "damage": str(error) if error else None}
        self._base.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        self._base.execute("COMMIT")
        self._base.executescript(_INDEXES)
        self._base.close()

    def _write(self) -> None:
        for table, rows in (("events", self._events), ("spans", self._spans)):
            if rows:
                self._base.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608  (both are ours)
                rows.clear()


def _span_row(span: Span) -> tuple[object, ...]:
    to = None if span.to_ns is None else rfc3339(span.to_ns)
    names = (neutral(name) or None for name in (span.owner, span.service))
    node, pool = neutral(span.node) or None, neutral(span.pool)
    return (node, pool, span.port, span.state.value, *names, span.token or None, rfc3339(span.from_ns), to, span.from_ns, span.to_ns)


_SINKS: dict[str, Callable[[IO[str], str, str], _Sink]] = {"csv": _Csv, "sqlite": _Sqlite, "cloudevents": _CloudEvents}
