"""Journals on servers: which one a URL means, and how a URL is shown to people, its password left out.

Each is a class with `from_url(url, *, lease_s, ...)`, made without connecting, that implements `LeadingJournal` and `read_apart(after)`:
the events as whoever does not lead sees them, on a connection of its own. It is imported when its URL is used: what it needs is an extra.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from portfsm.errors import InvalidValue, MissingExtra
from portfsm.protocols import LeadingJournal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.events import Event
    from portfsm.journals._copy_source import Source
    from portfsm.protocols import Clock
    from portfsm.values import Head

__all__ = ["Audited", "Prepared", "ReadApart", "SharedJournal", "is_url", "shared_journal", "shown"]

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


class Audited(Protocol):
    """A look through a whole log. Use it with `with`; `events` raises `JournalCorrupt` at the first that is not what was written."""

    log_id: str
    last_seq: int
    snapshot: tuple[int, list[bytes]] | None
    heads: dict[int, Head]
    """By seq, made anew from the events that were read: those asked for, and the last."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def events(self) -> Iterator[Event]:
        """Every event, proven."""
        ...


class Prepared(Protocol):
    """What `init` did: the version of the tables before (0: there were none) and now, and whether the log is new."""

    @property
    def log(self) -> str: ...
    @property
    def version_before(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def new(self) -> bool: ...


class SharedJournal(LeadingJournal, ReadApart, Protocol):
    """What a URL gives."""

    def head_at(self, seq: int | None = None) -> Head:
        """The head as it was when `seq` was the last event; now, if None. Raises `InvalidValue`."""
        ...

    def init(self) -> Prepared:
        """Prepare the place. What is there already stays as it is."""
        ...

    def receive(self, source: Source) -> Head:
        """Become a copy of `source`, all of it or nothing; the head there, proven. Raises `InvalidValue` when there is a log already."""
        ...

    def audit(self, *, at: int | None = None) -> Audited:
        """Look through the whole log, and tell its head as of `at` as well."""
        ...


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
    except ImportError as error:  # psycopg without a libpq is no ModuleNotFoundError
        if (error.name or "").startswith("portfsm."):
            raise
        extra = "postgres" if scheme in _POSTGRES else "etcd"
        message = f'a journal on {extra} cannot be used ({error}): pip install "portfsm[{extra}]"'
        raise MissingExtra(message, extra=extra, name=error.name) from error
    # The scheme alone: the rest may hold a password.
    raise InvalidValue(f"{scheme}:// is no kind of journal: give a directory, or {_KINDS}", name="target", value=scheme)


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
