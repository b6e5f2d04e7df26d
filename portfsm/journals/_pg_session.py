"""One connection to PostgreSQL: bounded in time, plain in what went wrong.

psycopg's blocking API, so that it runs in a thread beside any event loop. A statement is one transaction. Three clocks bound it: the
server's `statement_timeout`, the kernel's TCP timeouts, and a watchdog here that shuts the socket when neither helps, as with a
server that is stopped but still acknowledges packets.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg import errors

from portfsm.errors import JournalUnreadable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from portfsm.journals._pg_place import Place

__all__ = ["Session", "first_line", "lost"]

_CONNECT_S = 5
_OLDEST = 150_000
_HELLO = """
select pg_backend_pid(), current_setting('server_version_num')::int, current_setting('server_encoding'), current_setting('fsync'),
    set_config('statement_timeout', %(timeout)s, false), set_config('lock_timeout', '0', false),
    set_config('default_transaction_isolation', 'read committed', false),
    case current_setting('synchronous_commit') when 'off' then set_config('synchronous_commit', 'on', false) end
"""
_log = structlog.get_logger()


def lost(error: psycopg.Error) -> bool:
    """The connection is gone, so nobody knows what became of the statement; else the server said no, and undid it."""
    state = error.sqlstate or ""
    return isinstance(error, errors.OperationalError | errors.InterfaceError | errors.InternalError) and (
        not state or state[:2] in ("08", "58", "XX") or state in ("57P01", "57P02", "57P03", "57P05")
    )


def first_line(error: BaseException) -> str:
    """What happened, in one line."""
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line and not line.startswith("Is the server running")) or type(error).__name__


class Session:
    """A connection. Used by one thread at a time; made by connecting, raises `JournalUnreadable`.

    `writing`: a stand-by server is passed over. `timeout_s` bounds each statement.
    """

    def __init__(self, place: Place, *, timeout_s: float, writing: bool = False) -> None:
        self.place = place
        self.warnings: list[str] = []
        """What the server warned of since the list was emptied."""
        self._timeout_s = timeout_s
        self._connection = _connect(place, timeout_s, writing=writing)
        self._watchdog = _Watchdog(self._connection, 1.2 * timeout_s + 1.0)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    @property
    def broken(self) -> bool:
        """Known to be of no use any more."""
        return self._connection.closed

    def fileno(self) -> int:
        """The socket, to wait for news on."""
        return self._connection.fileno()

    def ask(self, statement: str, *, prepare: bool | None = None, **values: Any) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows. Raises what psycopg does; see `lost`."""
        with self._watchdog:
            cursor = self._connection.execute(statement.encode(), values or None, prepare=prepare, binary=True)
            return cursor.fetchall() if cursor.description else []

    def run(self, script: str) -> None:
        """Several statements that take no values and return nothing."""
        with self._watchdog:
            self._connection.execute(script.encode())

    def read(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """The same for what changes nothing or may be done again. Raises `JournalUnreadable`."""
        try:
            return self.ask(statement, **values)
        except psycopg.Error as error:
            raise self.failed("answer", error) from error

    def failed(self, what: str, error: psycopg.Error) -> JournalUnreadable:
        """The error for people: the server could not do `what`."""
        why = self.place.hide(first_line(error))
        return JournalUnreadable(f"{self.place.shown} did not {what}: {why}", path=self.place.shown, errno=None)

    def many(self) -> AbstractContextManager[object]:
        """Several statements as one: `with session.many(): ...`."""
        return self._connection.transaction()

    def told(self) -> bool:
        """Whether a listener was told something since it was last asked, also while a statement ran."""
        return bool(list(self._connection.notifies(timeout=0)))

    def close(self) -> None:
        """Let go, whatever state it is in."""
        self._watchdog.end()
        with suppress(psycopg.Error):
            self._connection.close()

    def _greet(self) -> None:
        self._connection.add_notice_handler(self._warned)
        pid, version, encoding, fsync, *_ = self.read(_HELLO, timeout=str(round(1000 * self._timeout_s)))[0]
        place = self.place
        if version < _OLDEST:
            raise self._refused(f"is version {version // 10_000}: 15 is the oldest that works")
        if encoding != "UTF8":
            raise self._refused(f"keeps text as {encoding}: make a database with `encoding 'UTF8'`")
        if pid != self._connection.info.backend_pid and not place.pooler:
            raise self._refused(
                "stands behind a connection pooler, which may give every statement another session: connect to the server "
                "itself, or to a pool in session mode and say so with pooler=session in the URL"
            )
        if fsync == "off":
            _log.warning("journal.not_durable", path=place.shown, why="the server runs with fsync = off", effect="a power cut loses events")

    def _refused(self, why: str) -> JournalUnreadable:
        return JournalUnreadable(f"{self.place.shown} {why}", path=self.place.shown, errno=None)

    def _warned(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "")


def _connect(place: Place, timeout_s: float, *, writing: bool) -> psycopg.Connection[tuple[Any, ...]]:
    options: dict[str, Any] = {
        "connect_timeout": _CONNECT_S, "application_name": "portfsm", "client_encoding": "UTF8",
        "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": round(1000 * timeout_s),
    }  # fmt: skip
    if writing:
        options["target_session_attrs"] = "read-write"
    options |= place.parameters
    if place.pooler:
        options["prepare_threshold"] = None
    try:
        return psycopg.connect(autocommit=True, **options)
    except (psycopg.Error, UnicodeError, ValueError) as error:
        raise JournalUnreadable(
            f"{place.shown} cannot be reached: {place.hide(first_line(error))}. "
            f"Waited at most {options['connect_timeout']} s for each address; look whether the server runs and lets this user in",
            path=place.shown, errno=None,
        ) from None  # fmt: skip


class _Watchdog:
    """Shuts a connection down when a statement takes longer than it can: the driver itself would wait for ever."""

    def __init__(self, connection: psycopg.Connection[Any], limit_s: float) -> None:
        self._connection = connection
        self._limit_s = limit_s
        self._due: float | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="portfsm-watchdog", daemon=True).start()

    def __enter__(self) -> None:
        self._due = time.monotonic() + self._limit_s

    def __exit__(self, *_: object) -> None:
        self._due = None

    def end(self) -> None:
        """Watch no more: the socket's number may soon be another's."""
        with self._lock:
            self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._limit_s / 10):
            due = self._due
            if due is not None and time.monotonic() > due:
                with self._lock:
                    if not self._ended.is_set():
                        self._shut()
                return

    def _shut(self) -> None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)
