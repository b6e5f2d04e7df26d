"""Where a log on PostgreSQL lies: what its URL means, and what of it may be shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict

from portfsm.errors import InvalidValue
from portfsm.journals._urls import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOG", "Place"]

LOG = "ports"
"""The log that a URL without `log=` means."""
_LOG_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_HOW = "write postgresql://user:password@host:port/database?log=NAME, with what is no plain letter of a password as %XX"


@attrs.frozen
class Place:
    """One log in one database."""

    shown: str
    """The URL without its password: for errors, logs and people."""
    log: str
    parameters: Mapping[str, Any] = attrs.field(repr=False)
    """What psycopg connects with."""
    pooler: bool = False
    """The user vouches for a pooler that gives each connection one session of its own."""

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read a URL: libpq's, and `log=NAME`, `pooler=session`. Raises `InvalidValue`, which does not show the password."""
        address, _, query = url.partition("?")
        ours, theirs = _split(query)
        log, pooler = ours.get("log", LOG), ours.get("pooler", "")
        if not _LOG_NAME.fullmatch(log):
            raise InvalidValue(f"the name of a log must match [a-z0-9._-]{{1,64}}, not {log!r}: ?log=NAME", name="log", value=log)
        if pooler not in ("", "session"):
            raise InvalidValue(f"pooler=session is all there is to say of a pooler, not {pooler!r}", name="pooler", value=pooler)
        try:
            parameters = conninfo_to_dict("?".join(filter(None, (address, "&".join(theirs)))))
        except (psycopg.Error, UnicodeError) as error:
            raise _no_url(url, str(error).partition('"')[0]) from None  # what libpq quotes may be, or hold, the password
        if _astray(url, parameters):
            raise _no_url(url, "its parts do not fit")
        return cls(shown(url), log, parameters, pooler == "session")

    def hide(self, text: str) -> str:
        """`text` without the password, whoever put it there."""
        for name in ("password", "sslpassword"):
            if secret := self.parameters.get(name):
                text = text.replace(str(secret), "...")
        return text


def _split(query: str) -> tuple[dict[str, str], list[str]]:
    """What of a query is ours, by name, and what is libpq's."""
    ours, theirs = {}, []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name in ("log", "pooler"):
            ours[name] = unquote(value)
        else:
            theirs.append(part)
    return ours, theirs


def _astray(url: str, parameters: Mapping[str, Any]) -> bool:
    """A password that was not encoded has ended up elsewhere, from where it would be shown."""
    ports = str(parameters.get("port") or "").split(",")
    odd = any(port and not (port.isascii() and port.isdigit()) for port in ports)
    return odd or "@" in str(parameters.get("dbname") or "") or not url.isprintable()


def _no_url(url: str, why: str) -> InvalidValue:
    text = "".join(letter if letter.isprintable() else "?" for letter in shown(url))
    return InvalidValue(f"{text} is no PostgreSQL URL ({why.strip(' :')}): {_HOW}", name="target", value=text)
