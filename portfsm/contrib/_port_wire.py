"""What clients of the port server say over HTTP, and are told: JSON, every size bounded.

    POST /v1/allocate        {"pool": "http", "owner": "replica-1", "service": "checkout", "wait_s": 5}      a lease
    POST /v1/allocate_group  {"requests": [{"pool": "http", "owner": "replica-1", "count": 2}]}              {"leases": [...]}
    POST /v1/release         {"token": 417}                                                                  {"released": 417}
    POST /v1/renew           {"token": 417}                                                                  a lease
    GET  /v1/explain?pool=http&port=30000                                                                    the port, and why it is so
    GET  /v1/status                                                                                          as `portfsm status --json`

The names are those of `PortManager`; times are RFC 3339. An error is `{"error": SENTENCE, "type": CLASS, "fields": {...}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from portfsm.cli._times import rfc3339
from portfsm.cli._views import port_json
from portfsm.errors import BindFailed, CommandRejected, InvalidValue, JournalError, ManagerClosed, PortfsmError, PortOutOfRange, UnknownPool
from portfsm.values import PortView
from portfsm.witnesses._serving import RefusedError

if TYPE_CHECKING:
    from portfsm.values import Lease

__all__ = [
    "BODY_BYTES", "Allocate", "AllocateGroup", "Asking", "Release", "Renew",
    "encode", "failure", "lease_json", "read_body", "read_query",
]  # fmt: skip

BODY_BYTES = 256 << 10
"""Room for a group as large as may be."""
_MOST = 2**63
_TIMES = {"next_free_at", "free_at", "until"}
_STATUS: tuple[tuple[type[PortfsmError], int], ...] = (
    (InvalidValue, 400), (PortOutOfRange, 400), (UnknownPool, 404), (CommandRejected, 409), (BindFailed, 409),
    (ManagerClosed, 503), (JournalError, 503),
)  # fmt: skip

_Token = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A misspelt option is told."""


class Allocate(_Strict):
    """`PortManager.allocate`."""

    pool: str
    owner: str
    node: str | None = None
    service: str = ""
    port: int | None = None
    ttl_s: float | None = None
    wait_s: float | None = 0.0


class Asking(_Strict):
    """`portfsm.Request`."""

    pool: str
    owner: str
    node: str | None = None
    service: str = ""
    port: int | None = None
    count: int = 1
    contiguous: bool = False
    align: int = 1
    stride: int = 1
    same_port: str = ""


class AllocateGroup(_Strict):
    """`PortManager.allocate_group`."""

    requests: list[Asking]
    wait_s: float | None = 0.0


class Release(_Strict):
    """`PortManager.release`."""

    token: _Token
    block: str | None = None
    for_s: float | None = None


class Renew(_Strict):
    """`PortManager.renew`."""

    token: _Token


_Body = TypeVar("_Body", bound=msgspec.Struct)


def read_body(body: bytes, kind: type[_Body]) -> _Body:
    """What the client asks. Raises `RefusedError`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except ValueError as error:  # also the UnicodeDecodeError that msgspec lets through
        raise RefusedError(400, f"{kind.__name__} is not to be read from that: {error}") from error


def read_query(query: str) -> tuple[str, int, str | None]:
    """Pool, port and node of `?pool=http&port=30000`. Raises `RefusedError`."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    port = given.pop("port", "")
    pool, node = given.pop("pool", ""), given.pop("node", None)
    if given or not pool or not (port.isascii() and port.isdigit() and len(port) < 6):  # noqa: PLR2004  (65535)
        raise RefusedError(400, "ask for one port: ?pool=NAME&port=NUMBER, and &node=NAME for another node's")
    return pool, int(port), node


# ---------------------------------------------------------------------- answers


def encode(value: Any) -> bytes:
    """As JSON, with a newline for people at a terminal."""
    return msgspec.json.encode(value) + b"\n"


def lease_json(lease: Lease) -> dict[str, Any]:
    """A lease. `token` is what releases and renews it."""
    names = {name: getattr(lease, name) or None for name in ("port", "pool", "node", "owner", "service", "token")}
    return {**names, "since": rfc3339(lease.since_ns), "expires": rfc3339(lease.expires_ns) if lease.expires_ns else None}


def failure(error: PortfsmError) -> tuple[int, bytes]:
    """The status that a refusal has, and what is said."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    fields = {name: _plain(name, getattr(error, name)) for name in error.fields}
    return status, encode({"error": str(error), "type": type(error).__name__, "fields": fields})


def _plain(name: str, value: Any) -> Any:
    if name in _TIMES and value is not None:
        return rfc3339(value)
    if isinstance(value, Mapping):
        return {str(key): _plain("", each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain("", each) for each in value]
    if isinstance(value, PortView):
        return {"node": value.node or None, "pool": value.pool, **port_json(value)}
    fits = value is None or isinstance(value, bool | float | str) or (isinstance(value, int) and abs(value) < _MOST)
    return value if fits else str(value)
