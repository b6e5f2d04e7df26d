"""Journals on servers: which one a URL means, and how a URL is shown to people, its password left out.

Each is a class with `from_url(url, *, lease_s, ...)`, made without connecting, that implements `LeadingJournal` and `read_apart(after)`:
the events as whoever does not lead sees them, on a connection of its own. It is imported when its URL is used: what it needs is an extra.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from portfsm.errors import InvalidValue, MissingExtra
from portfsm.protocols import LeadingJournal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event
    from portfsm.journals._disk import Directory
    from portfsm.protocols import Clock

__all__ = ["ReadApart", "SharedJournal", "is_url", "shared_directory", "shared_journal", "shown"]

_POSTGRES, _ETCD = ("postgresql", "postgres"), ("etcd",)
_KINDS = "postgresql://user@host:port/database?log=NAME or etcd://host:port/NAME"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>//)?")
_SECRETS = re.compile(r"(password|sslpassword)=[^&]*", re.IGNORECASE)


@runtime_checkable
class ReadApart(Protocol):
    """A journal that can be read while its own connection is in use."""

    def read_apart(self, after: int = 0) -> Iterator[Event]:
        """Events with `seq > after`, verified, on a connection of their own."""
        ...


@runtime_checkable
class Shelved(Protocol):
    """A journal that keeps a log's files, wherever it keeps them."""

    def shelf(self) -> Directory:
        """They, to read from."""
        ...


class SharedJournal(LeadingJournal, ReadApart, Protocol):
    """What a URL gives."""


def is_url(target: object) -> bool:
    """Whether `target` names a server's journal, or tries to."""
    match = _URL.match(target) if isinstance(target, str) else None
    return match is not None and (match["slashes"] is not None or match["scheme"].lower() in (*_POSTGRES, *_ETCD))


def shared_journal(url: str, *, clock: Clock | None = None, lease_s: float = 10.0) -> SharedJournal:
    """The journal that `url` names, not yet open and not yet connected. Raises `InvalidValue`, `MissingExtra`."""
    scheme = url.partition(":")[0].lower()
    try:
        if scheme in _POSTGRES:
            from portfsm.journals.postgres import PostgresJournal  # noqa: PLC0415  (an extra)

            return PostgresJournal.from_url(url, lease_s=lease_s)
        if scheme in _ETCD:
            from portfsm.journals.etcd import EtcdJournal  # noqa: PLC0415  (an extra)

            return EtcdJournal.from_url(url, clock=clock, lease_s=lease_s)
    except ModuleNotFoundError as error:
        extra = "postgres" if scheme in _POSTGRES else "etcd"
        raise MissingExtra(
            f'a journal on {extra} needs {error.name}: pip install "portfsm[{extra}]"', extra=extra, name=error.name
        ) from error
    # The scheme alone: the rest may hold a password.
    raise InvalidValue(f"{scheme}:// is no kind of journal: give a directory, or {_KINDS}", name="target", value=scheme)


def shared_directory(url: str) -> Directory:
    """The log that `url` names as a directory to read from, where its journal keeps it as one. Raises as `shared_journal` does."""
    journal = shared_journal(url)
    if isinstance(journal, Shelved):
        return journal.shelf()
    raise InvalidValue(f"{shown(url)} is no directory of segments", name="target", value=shown(url))


def shown(target: object) -> str:
    """`target` for people, logs and errors: a URL without its password, anything else as it is."""
    text = str(target)
    if not is_url(text):
        return text
    # Up to the last @ all may be password: one that was not percent-encoded holds anything.
    before, at, place = text.rpartition("@")
    scheme, _, user = before.partition(":")
    text = f"{scheme}://{user.removeprefix('//').partition(':')[0]}@{place}" if at else text
    return _SECRETS.sub(r"\1=...", text)
