"""`portfsm init`: prepare a shared journal, once, by whoever may make tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portfsm.cli import _options as options
from portfsm.cli._out import Out
from portfsm.errors import InvalidValue
from portfsm.journals._urls import is_url, shared_journal, shown

if TYPE_CHECKING:
    from portfsm.journals._urls import Prepared

__all__ = ["init"]


@options.command(
    "portfsm init 'postgresql://portfsm@db.example:5432/ports?log=edge'",
)
@click.argument("url")
@options.as_json
def init(url: str, as_json: bool) -> None:  # noqa: FBT001
    """Prepare a shared journal in a database.

    Its tables, brought up to this version, and the log. URL is postgresql://user:password@host:port/database?log=NAME, or
    etcd://host:port/NAME, which only has to answer. What is there already stays as it is, so this may be repeated.
    PostgreSQL's password may be left to PGPASSWORD or ~/.pgpass.
    """
    if not is_url(url):
        raise InvalidValue(f"{url!r} is no URL: a log in a directory needs no preparation", name="url", value=url)
    done = shared_journal(url).init()
    out = Out(as_json=as_json)
    if as_json:
        out.json({"url": shown(url), "log": done.log, "new": done.new, "version_before": done.version_before, "version": done.version})
    else:
        out.line(_sentence(shown(url), done), wrap=True)


def _sentence(url: str, done: Prepared) -> str:
    if not done.version:
        return f"{url}: nothing to prepare; log {done.log!r} {'will be made by whoever opens it first' if done.new else 'is there'}"
    tables = f"tables of version {done.version}"
    if not done.version_before:
        tables += " made"
    elif done.version_before < done.version:
        tables += f", brought up from {done.version_before}"
    else:
        tables += " were there"
    return f"{url}: {tables}; log {done.log!r} {'made' if done.new else 'was there'}"
