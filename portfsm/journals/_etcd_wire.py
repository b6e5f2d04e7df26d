"""What goes to etcd's JSON gateway and what comes back: bytes as base64, 64-bit numbers as strings, zeros left out. Pure."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

__all__ = [
    "Failure",
    "Granted",
    "KeepAlive",
    "KeyValue",
    "Part",
    "Range",
    "Status",
    "Token",
    "Txn",
    "created",
    "decode",
    "delete",
    "encode",
    "end_of",
    "fetch",
    "holds",
    "modified",
    "put",
    "transaction",
]

T = TypeVar("T")
Part = dict[str, Any]
"""A comparison or an operation, or all of a transaction."""

encode = msgspec.json.Encoder().encode


class _Header(msgspec.Struct):
    revision: int = 0
    cluster_id: int = 0


class KeyValue(msgspec.Struct):
    """One key as it is now. `create_revision` is new each time it is made."""

    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0


class Range(msgspec.Struct):
    """What a range of keys holds."""

    kvs: list[KeyValue] = []
    header: _Header = msgspec.field(default_factory=_Header)


class _Branch(msgspec.Struct):
    response_range: Range = msgspec.field(default_factory=Range)


class Txn(msgspec.Struct):
    """Which branch was taken, and what it read."""

    succeeded: bool = False
    responses: list[_Branch] = []
    header: _Header = msgspec.field(default_factory=_Header)

    def kvs(self, number: int) -> list[KeyValue]:
        """What the part `number` of the branch read."""
        return self.responses[number].response_range.kvs

    def found(self, number: int) -> KeyValue | None:
        """The one key that the part `number` asked for."""
        return next(iter(self.kvs(number)), None)


class Granted(msgspec.Struct):
    """A lease; its TTL in seconds, 0 when it is gone."""

    ID: int = 0
    TTL: int = 0


class KeepAlive(msgspec.Struct):
    """A lease kept, or not."""

    result: Granted = msgspec.field(default_factory=Granted)


class Status(msgspec.Struct):
    """One member. Sizes in bytes; the quota counts the first, new data goes into what the second leaves of it."""

    dbSize: int = 0  # noqa: N815  (etcd's name)
    dbSizeInUse: int = 0  # noqa: N815
    errors: list[str] = []


class Token(msgspec.Struct):
    """Proof of user and password for some minutes."""

    token: str = ""


class Failure(msgspec.Struct):
    """A request that etcd refused. `code` is gRPC's."""

    code: int = 0
    message: str = ""


def decode(data: bytes, kind: type[T]) -> T:
    """The answer. Raises `ValueError` (msgspec's) when it is none."""
    return msgspec.json.decode(data, type=kind, strict=False)


def end_of(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def created(key: bytes, revision: int) -> Part:
    """Compare: the key is the one made in `revision`; 0: there is no such key."""
    return {"target": "CREATE", "result": "EQUAL", "key": key, "create_revision": str(revision)}


def modified(key: bytes, revision: int) -> Part:
    """Compare: the key was changed in `revision` last; 0: there is no such key."""
    return {"target": "MOD", "result": "EQUAL", "key": key, "mod_revision": str(revision)}


def holds(key: bytes, value: bytes) -> Part:
    """Compare: the key has this value."""
    return {"target": "VALUE", "result": "EQUAL", "key": key, "value": value}


def put(key: bytes, value: bytes, *, lease: int = 0) -> Part:
    """Operation: the key gets this value; it goes when the lease does."""
    return {"request_put": {"key": key, "value": value, "lease": str(lease)}}


def delete(key: bytes, end: bytes = b"") -> Part:
    """Operation: one key goes, or all from `key` to before `end`."""
    return {"request_delete_range": {"key": key, "range_end": end}}


def fetch(key: bytes, end: bytes = b"") -> Part:
    """Operation: one key is read, or all from `key` to before `end`."""
    return {"request_range": {"key": key, "range_end": end}}


def transaction(compare: list[Part], success: list[Part], failure: list[Part] | None = None) -> Part:
    """All of `success` if all of `compare` holds, else all of `failure`."""
    return {"compare": compare, "success": success, "failure": failure or []}
